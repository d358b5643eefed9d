"""How far a preparation is."""

import re

import pytest

from gpt2lab.data.prepare import prepare
from gpt2lab.progress import Progress
from tests.data.prepare.corpora import config, write_jsonl


def test_a_line_tells_speed_share_and_time_left():
    progress = Progress(total=1000, start=200)
    progress.began = 50.0
    progress.tokens = 12_000
    assert progress.line(400, 54.0) == "12,000 tokens, 3,000 tokens/s, 40%, 12 s left"
    progress.total = None
    assert progress.line(400, 54.0) == "12,000 tokens, 3,000 tokens/s"


@pytest.mark.usefixtures("tiny_batches")
def test_without_a_terminal_progress_is_plain_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gpt2lab.progress.LINE_EVERY_S", 0.0)
    prepare(config(write_jsonl(tmp_path / "a.jsonl")), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"[\d,]+ tokens, [\d,]+ tokens/s, 100%, 0 s left", lines[-2])
    assert not any("\x1b" in line for line in lines)
