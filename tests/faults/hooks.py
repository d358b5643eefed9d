"""What is done to a training from within, before its command begins; each runs in the child."""

import ctypes
import importlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
BEGINS, ENDED = "/mark/begins", "/mark/ended"
"""Paths that are asked for at the two ends of a stretch, so that a trace shows them."""


def owner_of(path: str) -> tuple[Any, str]:
    """('the class', 'method') of `module:Class.method`, or the module and its function."""
    module, _, rest = path.partition(":")
    *parents, name = rest.split(".")
    owner = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def is_other_rank(rank: int | None) -> bool:
    """Whether this is another process than the one that is meant."""
    return rank is not None and rank != int(os.environ.get("RANK", 0))


def around(
    path: str,
    number: int,
    before: Callable[..., Any],
    after: Callable[..., Any],
    rank: int | None = None,
) -> None:
    """Do something before and after the number-th call of a function, counted from 1."""
    owner, name = owner_of(path)
    original = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != number or is_other_rank(rank):
            return original(*args, **kwargs)
        before(*args, **kwargs)
        try:
            return original(*args, **kwargs)
        finally:
            after()

    setattr(owner, name, wrapped)


def nothing(*_: Any) -> None:
    pass


def signal_in(
    path: str,
    number: int,
    signals: list[int],
    everywhere: bool = False,
    rank: int | None = None,
) -> None:
    """Send signals as the number-th call of a function begins, to this process or its group."""

    def send(*_: Any, **__: Any) -> None:
        for each in signals:
            if everywhere:
                os.killpg(os.getpid(), each)
            else:
                os.kill(os.getpid(), each)

    around(path, number, send, nothing, rank)


def hold_in(path: str, number: int, folder: str, until: str | None = None) -> None:
    """Stop in the number-th call of a function until a tracer is there, and mark its two ends.

    The thread's id stands in `folder`/thread; SIGCONT lets it go on.

    Args:
        until: the function with whose first call the stretch ends, if not with this call itself.
    """
    place = Path(folder)

    def wait(*_: Any, **__: Any) -> None:
        (place / "thread.tmp").write_text(str(threading.get_native_id()))
        (place / "thread.tmp").rename(place / "thread")
        # to this very thread: one of the process may be taken by another thread, a moment later
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        os.access(BEGINS, os.F_OK)

    def end(*_: Any, **__: Any) -> None:
        os.access(ENDED, os.F_OK)

    around(path, number, wait, nothing if until else end)
    if until:
        around(until, 1, end, nothing)


def stop_still_in(path: str, number: int, folder: str, rank: int | None = None) -> None:
    """Never come back from the number-th call of a function, as from an endless backward pass.

    In C, without the interpreter's lock and deaf to signals: a mutex that is locked twice.
    """

    def stop(*_: Any, **__: Any) -> None:
        (Path(folder) / "still").touch()
        libc = ctypes.CDLL(None)
        mutex = ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)

    around(path, number, stop, nothing, rank)


def wait_in(path: str, number: int, folder: str, rank: int | None = None) -> None:
    """Wait in the number-th call of a function, hearing signals, until `folder`/go exists.

    A checkpoint that is being written beside it is whole, and old ones are gone, by then.
    """
    place = Path(folder)

    def wait(*_: Any, **__: Any) -> None:
        for thread in threading.enumerate():
            if thread.name == "checkpoint" and thread is not threading.current_thread():
                thread.join()
        (place / "waits").touch()
        pause = threading.Event()
        while not (place / "go").exists():
            pause.wait(0.01)

    around(path, number, wait, nothing, rank)


def nan_loss(steps: list[int], value: str = "nan", rank: int | None = None) -> None:
    """Make the loss of these steps, counted from 0, something that is not finite."""
    from gpt2lab.lightning_module import GPT2LightningModule
    from gpt2lab.model import GPT2

    training_step, loss = GPT2LightningModule.training_step, GPT2.loss
    bad = False

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal bad
        bad = self.trainer.global_step in steps and not is_other_rank(rank)
        return training_step(self, *args, **kwargs)

    def spoilt(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = loss(self, *args, **kwargs)
        return found * float(value) if bad else found

    GPT2LightningModule.training_step = watched  # type: ignore[method-assign]
    GPT2.loss = spoilt  # type: ignore[method-assign]


def named(path: str) -> None:
    """Call each rank by its number where others can see it; the last hook of a call runs first."""

    def name(*_: Any, **__: Any) -> None:
        Path("/proc/self/comm").write_text(f"rank {os.environ.get('RANK', 0)}")

    around(path, 1, name, nothing)


def absent(module: str) -> None:
    """As if a package were not installed."""
    import sys

    for name in list(sys.modules):
        if name.split(".")[0] == module:
            del sys.modules[name]
    sys.modules[module] = None  # type: ignore[assignment]


def no_network() -> None:
    """A network namespace without an interface."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
