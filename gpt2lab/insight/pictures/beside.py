"""Work on one core, shared with a second process on another one."""

import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from gpt2lab.launch.devices import cpus
from gpt2lab.signals import default_signals

Work = Callable[[str], bytes]


def in_two_processes(work: Work, names: Sequence[str]) -> dict[str, bytes]:
    """What `work` makes of each name: of every other one in a fork of this process, where it can
    be forked and there is a core for it.

    Raises:
        Exception: whatever `work` raises.
    """
    if sys.platform != "linux" or cpus() == 1:  # elsewhere, libraries do not survive a fork
        return {name: work(name) for name in names}
    with _forked(work, names[1::2]) as others:
        made = {name: work(name) for name in names[::2]}
        return made | others()


@contextmanager
def _forked(work: Work, names: Sequence[str]) -> Iterator[Callable[[], dict[str, bytes]]]:
    """A process that does its part meanwhile; if it fails or is killed, that is done here."""

    def made() -> dict[str, bytes]:
        try:
            found: dict[str, bytes] = ours.recv()
        except EOFError:
            return {name: work(name) for name in names}
        return found

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, ours, work, names), daemon=True)
    with warnings.catch_warnings():
        # Of Python's since 3.12: other threads hold nothing here that drawing needs.
        warnings.filterwarnings("ignore", ".*is multi-threaded", DeprecationWarning)
        process.start()
    theirs.close()
    try:
        yield made
    finally:
        ours.close()
        process.kill()
        process.join()


def _send(to: Connection, other: Connection, work: Work, names: Sequence[str]) -> None:
    import torch

    default_signals()
    other.close()  # or it would wait for a reader that is gone
    torch.set_num_threads(1)  # those of before are not in a fork, and would be waited for
    with suppress(Exception):  # which comes again where it can be raised
        to.send({name: work(name) for name in names})
