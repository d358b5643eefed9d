"""A trial that is forked from a warm process is what one of its own would be."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from gpt2lab.sweep.process import Process, Start, spawn
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
