"""Work on one core, shared with a second process on another one."""

import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import torch

from gpt2lab.launch.devices import cpus
from gpt2lab.signals import ASKED, default_signals

Work = Callable[[str], bytes]


def in_two_processes(work: Work, names: Sequence[str]) -> dict[str, bytes]:
    """What `work` makes of each name: of every other one in a fork of this process, where it can
    be forked and there is a core for it.

    Raises:
        Exception: whatever `work` raises.
    """
    if len(names) < 2 or cpus() < 2 or not _survives_a_fork():
        return {name: work(name) for name in names}
    with _forked(work, names[1::2]) as others:
        made = {name: work(name) for name in names[::2]}
        return made | others()


def _survives_a_fork() -> bool:
    """Elsewhere than on Linux, libraries do not; a lock that another thread holds stays locked; and
    a process of a pool may have none of its own."""
    is_alone = threading.active_count() == 1
    return sys.platform == "linux" and is_alone and not multiprocessing.current_process().daemon


@contextmanager
def _forked(work: Work, names: Sequence[str]) -> Iterator[Callable[[], dict[str, bytes]]]:
    """A process that does its part meanwhile; if it cannot, or is killed, its part is done here."""

    def made() -> dict[str, bytes]:
        try:
            found: dict[str, bytes] = ours.recv()
        except (EOFError, OSError):  # before its message, or in the middle of it
            return {name: work(name) for name in names}
        return found

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, ours, work, names), daemon=True)
    try:
        with suppress(OSError):  # as many processes as there may be
            _start(process)
        theirs.close()
        yield made
    finally:
        ours.close()
        if process.pid is not None:
            process.kill()
            process.join()


def _start(process: multiprocessing.process.BaseProcess) -> None:
    """No signal finds it with the handlers of this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    try:
        with warnings.catch_warnings():
            # Python 3.12 and later warn of threads; those that torch computes with hold no lock.
            warnings.filterwarnings("ignore", ".*is multi-threaded", DeprecationWarning)
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(to: Connection, other: Connection, work: Work, names: Sequence[str]) -> None:
    default_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    other.close()  # so that sending fails once the parent is gone
    torch.set_num_threads(1)  # those of before are not in a fork, and would be waited for
    with suppress(Exception):  # which comes again where it can be raised
        to.send({name: work(name) for name in names})
