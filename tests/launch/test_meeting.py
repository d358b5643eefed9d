"""One rank that waits for another, both in this process."""

import socket

import pytest

from gpt2lab.errors import RunError
from gpt2lab.launch import joined
from gpt2lab.launch.started import Started


@pytest.fixture
def first(monkeypatch):
    """The first of two ranks."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        monkeypatch.setenv("MASTER_PORT", str(listener.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    return joined.Member(Started("torchrun", rank=0, local_rank=0, node=0, devices=2, nodes=1))


def test_the_first_rank_does_not_wait_for_ever_for_the_others(monkeypatch, first):
    monkeypatch.setattr(joined, "MEETING_S", 0.1)
    with pytest.raises(RunError, match=r"^ranks: 1 of 2 came in 0.1 s; see whether "):
        first.agree({})
