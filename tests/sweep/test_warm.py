"""A trial that is forked from a warm process is what one of its own would be."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from gpt2lab.signals import ASKED
from gpt2lab.sweep.process import UNKNOWN, Process, Start, spawn
from gpt2lab.sweep.warm import Warm
from tests.sweep.studies import STUB


@pytest.fixture(params=["spawned", "forked"])
def begin(request):
    if request.param == "spawned":
        yield spawn
        return
    warm = Warm({}, imports="json")
    yield warm.start
    warm.close()


def start(tmp_path, name: str = "a", **environment: str) -> Start:
    overrides = [f"name={name}", f"runs_dir={tmp_path}", "seed=0", "lr=0.5"]
    return Start(STUB, overrides, {"OMP_NUM_THREADS": "3", **environment}, tmp_path / f"{name}.txt")


def code_of(process: Process) -> int:
    deadline = time.monotonic() + 60
    while (code := process.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return code


def test_a_trial_runs_to_its_end_in_its_own_environment(tmp_path, begin):
    assert code_of(begin(start(tmp_path))) == 0
    assert (tmp_path / "a" / "starts.txt").read_text() == "3\n"
    assert (tmp_path / "a" / "summary.json").exists()
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"] != "3"


def test_exit_codes_signals_and_last_words_are_known(tmp_path, begin):
    words = json.dumps({"*": {"raise": "a: b; c"}})
    failed = begin(start(tmp_path, "failed", STUB=words))
    killed = begin(start(tmp_path, "killed", STUB=json.dumps({"*": {"signal": signal.SIGKILL}})))
    slow = begin(start(tmp_path, "slow", STUB=json.dumps({"*": {"step_seconds": 60}})))
    assert code_of(failed) == 1
    assert failed.said() == "error: a: b; c\n"
    assert code_of(killed) == -signal.SIGKILL
    assert slow.poll() is None
    slow.terminate()
    assert code_of(slow) in (-signal.SIGTERM, 143)


def test_overrides_stand_in_no_list_of_processes(tmp_path, begin):
    process = begin(start(tmp_path, STUB=json.dumps({"*": {"step_seconds": 60}})))
    while not (tmp_path / "a" / "starts.txt").exists():
        time.sleep(0.01)
    assert "lr=0.5" not in Path(f"/proc/{process._pid}/cmdline").read_text()
    process.kill()
    assert code_of(process) == -signal.SIGKILL


def test_trials_are_started_anew_where_the_warm_process_is_gone(tmp_path):
    warm = Warm({}, imports="json")
    assert code_of(warm.start(start(tmp_path, "a"))) == 0
    warm._process.kill()
    warm._process.wait()
    assert code_of(warm.start(start(tmp_path, "b"))) == 0
    warm.close()


def test_a_trial_goes_on_where_the_warm_process_dies_and_nobody_knows_how_it_ends(tmp_path):
    warm = Warm({}, imports="json")
    process = warm.start(start(tmp_path, STUB=json.dumps({"*": {"step_seconds": 0.05}})))
    while not (tmp_path / "a" / "steps.txt").exists():
        time.sleep(0.01)
    warm._process.kill()
    warm._process.wait()
    assert process.poll() is None
    assert code_of(process) == UNKNOWN
    assert (tmp_path / "a" / "summary.json").exists()
    warm.close()


def test_signals_to_all_processes_are_for_trials_alone(tmp_path):
    warm = Warm({}, imports="json")
    assert code_of(warm.start(start(tmp_path, "a"))) == 0
    for number in ASKED:
        warm._process.send_signal(number)
    slow = warm.start(start(tmp_path, "b", STUB=json.dumps({"*": {"step_seconds": 60}})))
    assert warm._process.poll() is None
    os.kill(slow._pid, signal.SIGUSR1)
    assert code_of(slow) == -signal.SIGUSR1
    warm.close()


def test_a_warm_process_that_does_not_answer_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2lab.sweep.warm.ANSWER_S", 0.1)
    warm = Warm({}, imports="json")
    warm._process.send_signal(signal.SIGSTOP)
    assert code_of(warm.start(start(tmp_path, "a"))) == 0
    warm.close()


def test_a_trial_that_could_not_be_begun_leaves_no_pipe_open(tmp_path):
    def begin(reading, file):
        raise OSError

    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError):  # noqa: PT011 - that of begin
        Process(start(tmp_path), begin)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
