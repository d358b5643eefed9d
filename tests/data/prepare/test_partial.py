"""A preparation that is killed, interrupted or out of room goes on to the same bytes."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from gpt2lab.data.prepare import corpus_folder, partial, prepare
from gpt2lab.data.prepare.partial import locked, partial_of
from tests.data.prepare.corpora import (
    DOCUMENTS,
    config,
    contents,
    decoded,
    write_jsonl,
)


def run(code, *arguments, **options):
    """A process of its own that prepares in tiny batches, after `code` has run."""
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from gpt2lab.config import TextConfig
        from gpt2lab.data.prepare import batches, partial
        from gpt2lab.data.prepare import prepare
        def main():
            batches.BATCH_CHARS, partial.SAVE_EVERY_S = 100, 0.0
            {code}
            path, data_dir, processes = sys.argv[1:]
            prepare(TextConfig(path=path, num_processes=int(processes)), Path(data_dir))
        if __name__ == "__main__":
            main()
    """).replace("{code}", textwrap.indent(textwrap.dedent(code), " " * 4).strip())
    file = Path(arguments[1]).parent / "program.py"
    file.write_text(program)
    return subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


KILL = """
left, add = {number}, partial.SplitFile.add
def dies(self, part):
    nonlocal left
    left -= 1
    add(self, part)
    if left == 0:
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
partial.SplitFile.add = dies
"""


@pytest.mark.parametrize(("number", "processes"), [(1, 1), (17, 1), (20, 2)])
@pytest.mark.usefixtures("tiny_batches")
def test_a_killed_preparation_goes_on_to_the_same_bytes(tmp_path, capsys, number, processes):
    path = write_jsonl(tmp_path / "a.jsonl")
    straight = contents(prepare(config(path), tmp_path / "straight"))
    # With two processes this returns only once the orphans have closed their end of stderr.
    killed = run(KILL.format(number=number), path, tmp_path / "data", processes)
    assert killed.returncode == -9, killed.stderr
    folder = corpus_folder(config(path), tmp_path / "data")
    assert not folder.exists()
    journal = json.loads((partial_of(folder) / "journal.json").read_text())
    assert journal["batches"] < number
    capsys.readouterr()
    assert prepare(config(path), tmp_path / "data") == folder
    assert ("goes on behind batch" in capsys.readouterr().err) == (journal["batches"] > 0)
    assert contents(folder) == straight
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("tiny_batches")
def test_a_kill_before_the_corpus_gets_its_name_costs_nothing(tmp_path, monkeypatch, capsys):
    def killed(*_):
        raise SystemExit

    path = write_jsonl(tmp_path / "a.jsonl")
    straight = contents(prepare(config(path), tmp_path / "straight"))
    with monkeypatch.context() as patch:
        patch.setattr("gpt2lab.data.prepare.corpus.publish", killed)
        with pytest.raises(SystemExit):
            prepare(config(path), tmp_path / "data")
    capsys.readouterr()
    assert contents(prepare(config(path), tmp_path / "data")) == straight
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["source", "journal", "file"])
@pytest.mark.usefixtures("tiny_batches")
def test_a_journal_that_no_longer_fits_is_not_gone_on_from(tmp_path, monkeypatch, capsys, change):
    path = write_jsonl(tmp_path / "a.jsonl")
    interrupt(monkeypatch, config(path), tmp_path / "data", 9)
    folder = corpus_folder(config(path), tmp_path / "data")
    if change == "source":
        write_jsonl(path, DOCUMENTS[::-1])
    elif change == "journal":
        (partial_of(folder) / "journal.json").write_text("{")
    else:
        (partial_of(folder) / "train.bin").write_bytes(b"")
    capsys.readouterr()
    prepare(config(path), tmp_path / "data")
    assert "goes on" not in capsys.readouterr().err
    assert contents(folder) == contents(prepare(config(path), tmp_path / "straight"))


def interrupt(monkeypatch, settings, data_dir, number):
    """Ctrl-C in the middle of a batch: one split is written, the other is not."""
    add, left = partial.SplitFile.add, [number]

    def interrupted(self, part):
        left[0] -= 1
        add(self, part)
        if left[0] == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(partial.SplitFile, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings, data_dir)


@pytest.mark.usefixtures("tiny_batches")
def test_an_interrupt_leaves_what_stands_and_says_so(tmp_path, monkeypatch, capsys):
    path = write_jsonl(tmp_path / "a.jsonl")
    monkeypatch.setattr(partial, "SAVE_EVERY_S", 1e9)  # the interrupt alone writes the journal
    for number in (9, 10):
        interrupt(monkeypatch, config(path), tmp_path / "data", number)
        folder = corpus_folder(config(path), tmp_path / "data")
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"{partial_of(folder)}: is not whole yet; the same command goes on from there"
        )
    prepare(config(path), tmp_path / "data")
    assert "goes on behind batch" in capsys.readouterr().err
    assert contents(folder) == contents(prepare(config(path), tmp_path / "straight"))


def test_a_full_disk_is_named_and_gone_on_from(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    # A file size limit stands for a full disk: the same place fails, with another number.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))"
    full = run(limit, path, tmp_path / "data", 1)
    folder = corpus_folder(config(path), tmp_path / "data")
    assert "DiskError" in full.stderr.splitlines()[-1]
    assert f"{partial_of(folder)}/" in full.stderr.splitlines()[-1]
    assert " bytes stand, " in full.stderr.splitlines()[-1]
    assert not list(partial_of(folder).glob(".*"))
    assert not folder.exists()
    done = run("", path, tmp_path / "data", 1)
    assert "goes on behind batch" in done.stderr
    straight = run("", path, tmp_path / "straight", 1)
    assert straight.returncode == done.returncode == 0
    (other,) = (tmp_path / "straight").iterdir()
    assert contents(folder) == contents(other)


@pytest.mark.parametrize("leaves", ["its partial folder", "nothing"])
@pytest.mark.usefixtures("tiny_batches")
def test_a_second_preparation_waits_for_the_first(tmp_path, capsys, leaves):
    path = write_jsonl(tmp_path / "a.jsonl")
    folder = corpus_folder(config(path), tmp_path)
    with locked(folder) as held:
        second = threading.Thread(target=prepare, args=(config(path), tmp_path))
        second.start()
        while "waiting" not in (told := capsys.readouterr().err):
            time.sleep(0.01)
        assert f"{held}: is written by process {os.getpid()} on " in told
        assert second.is_alive()
        assert not folder.exists()
        if leaves == "nothing":
            shutil.rmtree(held)
    second.join(10)
    assert len(decoded(folder)[0]) > 0


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    lock = partial_of(corpus_folder(config(path), tmp_path)) / "lock"
    lock.parent.mkdir()
    lock.write_text("process 999999 on elsewhere")
    assert prepare(config(path), tmp_path).is_dir()
