"""Work that is shared with a second process."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from gpt2lab.insight.pictures import beside
from gpt2lab.insight.pictures.beside import in_two_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture(autouse=True)
def alone_on_two_cores(monkeypatch):
    monkeypatch.setattr(beside, "cpus", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # whatever other tests have left


def whose(name):
    return f"{name} {os.getpid()}".encode()


def test_two_processes_take_turns():
    made = in_two_processes(whose, NAMES)
    assert sorted(made) == NAMES
    pids = [int(made[name].split()[1]) for name in NAMES]
    assert pids[0::2] == [os.getpid()] * 3
    assert len({*pids[1::2]}) == 1
    assert pids[1] != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[1], 0)


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (beside, "cpus", lambda: 1),
        (threading, "active_count", lambda: 2),
        (multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True)),
        (os, "fork", lambda: os.open("/nowhere", 0)),
    ],
    ids=["one core", "threads", "of a pool", "no more processes"],
)
def test_where_nothing_can_be_forked_all_is_done_here(monkeypatch, owner, name, value):
    monkeypatch.setattr(owner, name, value)
    assert in_two_processes(whose, NAMES) == {name: whose(name) for name in NAMES}


@pytest.mark.parametrize("names", [[], ["a"]])
def test_nothing_may_be_left_for_the_other(names):
    assert in_two_processes(whose, names) == {name: whose(name) for name in names}


def test_more_than_a_pipe_holds_comes_over():
    assert in_two_processes(lambda name: name.encode() * 2**20, ["a", "b"])["b"] == b"b" * 2**20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_killed_process_leaves_is_done_here(number, capfd):
    here = os.getpid()

    def work(name):
        if os.getpid() != here:
            os.kill(os.getpid(), number)
        return whose(name)

    assert in_two_processes(work, NAMES) == {name: whose(name) for name in NAMES}
    assert capfd.readouterr() == ("", "")


def test_it_may_be_killed_in_the_middle_of_its_message():
    here = os.getpid()

    def work(name):
        if name == "a":
            time.sleep(0.5)  # the other one waits for the pipe to be emptied
            (child,) = multiprocessing.active_children()
            child.kill()
        return b"there" * 2**20 if os.getpid() != here else b"here"

    assert in_two_processes(work, ["a", "b"]) == {"a": b"here", "b": b"here"}


@pytest.mark.parametrize("at", ["a", "b"])
def test_what_it_raises_is_raised_here(at, capfd):
    def work(name):
        if name == at:
            raise ValueError(name)
        return whose(name)

    with pytest.raises(ValueError, match=at):
        in_two_processes(work, NAMES)
    assert capfd.readouterr() == ("", "")


def test_torchs_threads_of_before_are_not_waited_for():
    large = torch.ones(2**22)
    before = float(large.sum())  # whose threads no fork has
    made = in_two_processes(lambda name: str(float(large.sum())).encode(), NAMES)
    assert made == dict.fromkeys(NAMES, str(before).encode())
