"""python -m gpt2lab.prepare as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gpt2lab.config import TextConfig, TextSource
from gpt2lab.config.compose import settings_from

COMMAND = [sys.executable, "-m", "gpt2lab.prepare"]
PRESETS = {
    "builtin": TextSource.builtin,
    "shakespeare": TextSource.files,
    "shakespeare_char": TextSource.files,
    "openwebtext": TextSource.hub,
    "fineweb_edu": TextSource.hub,
    "tinystories": TextSource.hub,
    "wikitext103": TextSource.hub,
}


def start(*arguments, cwd, **options):
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"body": f"Document {number}."}) + "\n" for number in range(200))
    )
    return ["data=text", "data.path=a.jsonl", "data.text_field=body", "data.tokenizer=char"]


def test_the_last_line_is_the_folder_or_one_json_object(tmp_path, corpus):
    done = start(*corpus, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "data").iterdir()
    assert done.stdout == f"data/{folder.name}\n"
    assert done.stderr.splitlines()[0] == f"data/{folder.name}: prepares a.jsonl"
    again = start(*corpus, "json=true", cwd=tmp_path)
    assert again.stderr == ""
    result = json.loads(again.stdout.splitlines()[-1])
    assert result["folder"] == f"data/{folder.name}"
    assert sum(result["documents"].values()) == 200
    assert sum(result["tokens"].values()) == sum(len(f"Document {n}.") + 1 for n in range(200))
    assert (
        result["fingerprint"] == json.loads((folder / "manifest.json").read_text())["fingerprint"]
    )
    foreign = start("data=text", f"data.path={folder}", "json=true", cwd=tmp_path)
    assert json.loads(foreign.stdout) == {**result, "folder": str(folder)}


def test_everything_is_answered_without_torch(tmp_path, corpus):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    shown = start("--help", cwd=tmp_path, env=environment)
    assert shown.returncode == 0
    assert "usage: python -m gpt2lab.prepare" in shown.stdout
    assert "json=true" in shown.stdout
    composed = start("--cfg", "job", *corpus, cwd=tmp_path, env=environment)
    assert OmegaConf.create(composed.stdout).data.path == "a.jsonl"
    assert not (tmp_path / "data").exists()
    done = start(*corpus, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["data=sort"], "data: sort needs no preparation; choose text, such as builtin"),
        (["data=text"], "data.path: is null; give a text file, a folder or a glob"),
        (
            ["data=text", "data.path=no.txt"],
            "no.txt: does not exist; set data.path to a file, a folder or a glob",
        ),
        (
            ["data=text", "data.path=a.jsonl"],
            "a.jsonl:1: has no text in field 'text', but 'body'; set data.text_field",
        ),
        (
            ["-m", "data=builtin"],
            "--multirun: prepare takes one set of settings at a time; leave it out",
        ),
    ],
)
@pytest.mark.usefixtures("corpus")
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, arguments, line):
    refused = start(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == f"error: {line}"
    assert "Traceback" not in refused.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_text_that_leaves_the_vocabulary_to_its_tokenizer(name):
    settings = settings_from("train", ["model=char", f"data={name}"]).settings
    assert isinstance(settings.data, TextConfig)
    assert settings.data.source is PRESETS[name]
    assert (settings.data.dataset is None) == (settings.data.source is not TextSource.hub)
    assert settings.model.vocab_size is None
    assert settings.stop_at is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_is_answered_at_once_and_says_how_to_go_on(tmp_path, number, code, processes):
    lines = (json.dumps({"body": f"Document {number}."}) + "\n" for number in range(200))
    (tmp_path / "a.jsonl").write_text("".join(lines))
    corpus = ["data=text", "data.path=a.jsonl", "data.text_field=body", "data.tokenizer=char"]
    corpus.append(f"data.num_processes={processes}")
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nfrom gpt2lab.data.prepare import batches, partial\n"
        "def slow(*arguments):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "partial.Writer.add = slow\nbatches.BATCH_CHARS = 100\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen(
        [*COMMAND, *corpus],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert (len(children) >= 2) == (processes == 2)
    began = time.monotonic()
    os.killpg(process.pid, number)  # as a terminal does
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == code
    assert told.splitlines()[-2].endswith(
        ".partial: is not whole yet; the same command goes on from there"
    )
    assert told.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in told
    deadline = time.monotonic() + 5  # multiprocessing's own helper follows its parent
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert start(*corpus, cwd=tmp_path).returncode == 0
