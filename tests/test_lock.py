"""Who is at work in a folder, with real processes: record locks mean nothing within one."""

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from gpt2lab.errors import ConfigError
from gpt2lab.lock import LOCK, at_work, check_unlocked, is_alive, lock, myself

HOLD = """
import os, sys, time
from pathlib import Path
from gpt2lab.lock import lock
with lock(Path(sys.argv[1])):
    {then}
    print("held", flush=True)
    sys.stdin.readline()
"""
FORK = "if os.fork() == 0: time.sleep(60); os._exit(0)"


@pytest.fixture
def hold(tmp_path):
    """Start a process that holds the folder's lock until its stdin is closed."""
    started = []

    def start(then="pass"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(then=then), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path, hold):
    process = hold()
    said = (
        f"{tmp_path}: process {process.pid} on host {platform.node()} is at work in it; "
        "wait for it, or choose another name"
    )
    for attempt in (check_unlocked, lambda folder: lock(folder).__enter__()):
        with pytest.raises(ConfigError) as refusal:
            attempt(tmp_path)
        assert str(refusal.value) == said
    process.communicate("\n")
    assert not (tmp_path / LOCK).exists()
    check_unlocked(tmp_path)
    with lock(tmp_path):
        pass


@pytest.mark.parametrize("then", ["pass", FORK], ids=["alone", "a forked child lives on"])
def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, hold, then):
    process = hold(then)
    process.kill()
    process.wait()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == process.pid
    check_unlocked(tmp_path)
    with lock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_of_many_that_come_at_once_one_gets_in(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom gpt2lab.lock import lock\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "with lock(Path(sys.argv[1])): print('in', flush=True); time.sleep(1)\n"
    )
    begin = str(time.time() + 1)
    command = [sys.executable, "-c", code, str(tmp_path), begin]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    processes = [subprocess.Popen(command, **options) for _ in range(6)]
    assert [p.communicate()[0] for p in processes].count("in\n") == 1


def test_a_process_does_not_lose_its_lock_by_asking(tmp_path):
    with lock(tmp_path):
        check_unlocked(tmp_path)
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"), lock(tmp_path):
            pass
        code = "import sys; from pathlib import Path; from gpt2lab.lock import check_unlocked as c"
        asked = subprocess.run(
            [sys.executable, "-c", f"{code}; c(Path(sys.argv[1]))", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert f"process {os.getpid()} on" in asked.stderr


def test_a_file_that_another_run_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Between our opening and our locking, the holder removes the file and another run comes."""
    real, calls = fcntl.lockf, []

    def lockf(descriptor, flags):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()
        real(descriptor, flags)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with lock(tmp_path):
        assert len(calls) == 2
        assert (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be written \(No such file or directory"):
        lock(tmp_path / "nowhere").__enter__()


@pytest.mark.parametrize(
    ("holder", "refused"),
    [
        ({"pid": os.getppid(), "host": platform.node()}, True),
        ({"pid": os.getppid(), "host": platform.node(), "born": "1"}, False),  # a later namesake
        ({"pid": 2**22 + 1, "host": platform.node()}, False),
        ({"pid": 2**22 + 1, "host": "another"}, True),  # nobody here can tell
        ({}, False),
    ],
)
def test_without_locks_of_the_file_system_the_process_is_looked_for(
    tmp_path, monkeypatch, holder, refused
):
    def lockf(descriptor, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    (tmp_path / LOCK).write_text(json.dumps(holder))
    if refused:
        with pytest.raises(ConfigError, match=f"process {holder['pid']} on host"):
            lock(tmp_path).__enter__()
    else:
        with lock(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_process_is_dead_once_it_has_ended_whoever_still_has_to_ask():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not is_alive({**myself(), "pid": child})
    os.waitpid(child, 0)


@pytest.mark.parametrize("place", ["host", "boot", "processes"])
def test_of_a_process_elsewhere_nobody_says_that_it_is_dead(place):
    dead = {"pid": 2**30}
    assert not is_alive({**myself(), **dead})
    assert is_alive({**myself(), **dead, place: "another"})


def test_who_is_at_work_is_seen_without_taking_the_lock(tmp_path, hold):
    assert at_work(tmp_path) is None
    process = hold()
    assert at_work(tmp_path)["pid"] == process.pid
    os.truncate(tmp_path / LOCK, 0)  # a full disk, or the moment before it is signed
    assert at_work(tmp_path) == {}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / LOCK).exists()
    assert at_work(tmp_path) is None
    with lock(tmp_path):
        assert at_work(tmp_path)["pid"] == os.getpid()
        hold_is_kept = subprocess.run([sys.executable, "-c", TAKE, str(tmp_path)], check=False)
        assert hold_is_kept.returncode == 2  # to ask did not give up our own


TAKE = """
import sys
from pathlib import Path
from gpt2lab.errors import ConfigError
from gpt2lab.lock import lock
try:
    with lock(Path(sys.argv[1])): pass
except ConfigError:
    sys.exit(2)
"""


def test_where_the_system_does_not_say_who_has_a_lock_its_signature_does(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    sign = myself() | {"pid": os.getppid()}
    del sign["born"]
    (tmp_path / LOCK).write_text(json.dumps(sign))
    assert at_work(tmp_path)["pid"] == os.getppid()
    (tmp_path / LOCK).write_text("")
    assert at_work(tmp_path) is None


def test_a_process_elsewhere_of_our_own_number_is_another():
    assert is_alive(myself() | {"host": "another"})
    assert not is_alive(myself())  # of before a restart of this machine's processes
