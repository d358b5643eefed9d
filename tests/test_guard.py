"""What a run can do without: full disks, failing loggers, no network. Weights stay the same."""

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from gpt2lab.errors import ConfigError
from gpt2lab.experiment import fit
from gpt2lab.guard import Guard
from gpt2lab.loggers import RunLog
from tests.machine import in_mounts, needs_dev_full, needs_mounts, needs_no_network
from tests.test_command_line import QUICK, start
from tests.test_experiment import SHORT, weights

FULL = Path("/dev/full")


@pytest.fixture
def run(tmp_path):
    def run(*overrides):
        return fit([*SHORT, f"runs_dir={tmp_path / 'runs'}", *overrides])

    return run


def warned(action, *arguments):
    """What it returns, and the warnings on what the run goes on without."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action(*arguments)
    return result, [str(w.message) for w in caught if "goes on without" in str(w.message)]


def same_weights(first, second):
    found = weights(second)
    return all(torch.equal(tensor, found[name]) for name, tensor in weights(first).items())


def test_the_first_failure_is_one_warning_and_the_last_attempt():
    calls = []

    def fail():
        calls.append(1)
        raise OSError(28, "No space left on device", "/x/samples.md")

    guard = Guard("samples.md")
    _, found = warned(lambda: [guard(fail), guard(fail)])
    assert found == ["samples.md: No space left on device; training goes on without it"]
    assert calls == [1]


def test_the_reason_is_the_system_s_where_a_library_hides_it():
    def fail():
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise ValueError("you tried to log 1 which is not supported") from error

    _, found = warned(lambda: Guard("logger.x", Exception)(fail))
    assert found == ["logger.x: No space left on device; training goes on without it"]


def test_a_mistake_of_ours_is_no_full_disk():
    with pytest.raises(ZeroDivisionError):
        Guard("samples.md")(lambda: 1 / 0)


@needs_dev_full
def test_a_log_without_room_is_one_warning_and_no_traceback(capsys):
    def write():
        handler = RunLog(FULL)
        for _ in range(3):
            handler.emit(logging.makeLogRecord({"msg": "x"}))
        handler.close()

    assert warned(write)[1] == ["full: No space left on device; training goes on without it"]
    assert capsys.readouterr().err == ""


@needs_dev_full
@pytest.mark.parametrize("name", ["metrics.csv", "samples.md", "train.log"])
def test_a_full_disk_for_what_is_dispensable_changes_no_weight(run, tmp_path, name):
    straight = run("name=a")
    folder = run("name=b", "max_steps=2", "schedule.decay_steps=4").folder
    (folder / name).unlink()
    (folder / name).symlink_to(FULL)
    resumed, found = warned(run, "name=b", "resume=last", "max_steps=4")
    assert found == [f"{name}: No space left on device; training goes on without it"]
    assert same_weights(straight, resumed)


@pytest.mark.parametrize("name", ["config.yaml", "receipt.json", "curves.png"])
def test_what_cannot_be_replaced_on_a_resume_stays_as_it_was(run, name):
    straight = run("name=a")
    folder = run("name=b", "max_steps=2", "schedule.decay_steps=4").folder
    before = (folder / name).read_bytes()
    (folder / f".{name}.tmp").mkdir()  # in the way of the file that is written first
    resumed, found = warned(run, "name=b", "resume=last", "max_steps=4")
    assert found == [f"{name}: Is a directory; training goes on without it"]
    assert (folder / name).read_bytes() == before
    assert same_weights(straight, resumed)


def test_a_summary_that_cannot_be_written_leaves_none_of_a_time_before(run):
    straight = run("name=a")
    folder = run("name=b", "max_steps=2", "schedule.decay_steps=4").folder
    (folder / ".summary.json.tmp").mkdir()
    resumed, found = warned(run, "name=b", "resume=last", "max_steps=4")
    assert found == ["summary.json: Is a directory; training goes on without it"]
    assert not (folder / "summary.json").exists()
    assert same_weights(straight, resumed)


def test_a_profile_without_room_changes_no_weight(run):
    straight = run("name=a")
    folder = run("name=b", "max_steps=2", "schedule.decay_steps=4").folder
    (folder / "profile").write_text("in the way")
    resumed, found = warned(run, "name=b", "resume=last", "max_steps=4", "profile=true")
    assert found == ["profile: File exists; training goes on without it"]
    assert same_weights(straight, resumed)


def test_damaged_samples_are_no_reason_to_stop(run):
    folder = run("name=a", "max_steps=2").folder
    with (folder / "samples.md").open("ab") as file:
        file.write(b"## step \xff\n## step ")
    assert warned(run, "name=a", "resume=last", "max_steps=4")[1] == []


def test_a_name_that_is_a_file_is_refused_and_left_alone(run, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").write_text("mine")
    for resume in ([], ["resume=auto"]):
        with pytest.raises(ConfigError, match="a is there already; choose another name"):
            run("name=a", *resume)
    assert (tmp_path / "runs" / "a").read_text() == "mine"


@pytest.mark.parametrize("failing", ["receipt.json", "config.yaml"])
def test_a_start_that_cannot_be_described_leaves_nothing(run, tmp_path, monkeypatch, failing):
    def write(path, content):
        if path.name == failing:
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr("gpt2lab.run_folder.write_whole", write)
    with pytest.raises(
        ConfigError,
        match=rf"runs/a/{failing}: cannot be written \(No space left on device\), "
        r"[\d,]+ bytes are needed, [\d,]+ are free; make room",
    ):
        run("name=a")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@needs_mounts
def test_a_start_on_a_full_disk_is_refused_and_leaves_no_folder(tmp_path):
    script = (
        'mount -t tmpfs -o size=64k none "$1"; cd "$1"; head -c 63k /dev/zero > filler; shift; '
        '"$@" || code=$?; ls; exit "$code"'
    )
    command = [sys.executable, "-m", "gpt2lab.train", *QUICK, "name=a"]
    refused = in_mounts(script, str(tmp_path), *command)
    assert refused.returncode == 2, refused.stderr
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("error: runs")
    assert "No space left on device" in last
    assert refused.stdout.split() == ["filler"]


@pytest.mark.slow
@needs_mounts
def test_a_read_only_folder_is_refused_for_a_start_and_a_resume(tmp_path):
    done = start(*QUICK, "name=a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    script = 'mount -o bind "$1" "$1"; mount -o remount,ro,bind "$1"; cd "$1"; shift; "$@"'
    command = [sys.executable, "-m", "gpt2lab.train"]
    for arguments in (["name=b", *QUICK], ["name=a", "resume=last", "max_steps=4"]):
        refused = in_mounts(script, str(tmp_path), *command, *arguments)
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.startswith("error: runs")
        assert refused.stderr.count("\n") == 1
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


@pytest.mark.slow
@needs_no_network
@pytest.mark.parametrize("key", [None, "0123456789abcdef" * 2 + "01234567"])
def test_wandb_without_key_or_network_is_one_warning(tmp_path, key):
    straight = start(*QUICK, "name=a", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    environment = {**os.environ, "HOME": str(tmp_path), "WANDB_MODE": "online"}
    environment |= {"WANDB_API_KEY": key} if key else {}
    command = ["unshare", "-n", sys.executable, "-m", "gpt2lab.train"]
    done = subprocess.run(
        [*command, *QUICK, "name=b", "logger=wandb"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "goes on without" in line]
    assert len(lines) == 1
    # How it says that there is no network depends on which of its requests was the first.
    assert ("No API key configured" in lines[0]) == (key is None)
    losses = [
        json.loads((tmp_path / "runs" / name / "summary.json").read_text())["last"]["val/loss"]
        for name in "ab"
    ]
    assert losses[0] == losses[1]
