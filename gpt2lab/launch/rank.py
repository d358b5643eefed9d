"""One rank of several that a parent has started, from its first moment to its last."""

import atexit
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt2lab.durable import write_json
from gpt2lab.errors import Gpt2labError
from gpt2lab.exit import FAULT, last_lines
from gpt2lab.launch.devices import divide_threads
from gpt2lab.signals import ASKED, raise_signals, raised
from gpt2lab.terminal import tell

LOST_DEVICE = {"OutOfMemoryError", "AcceleratorError", "DistBackendError", "DistNetworkError"}
"""Errors of torch's by which a rank has lost its device or the others: bad luck, not bad input."""
UNWIND_S = 8.0
"""How long a rank that failed may take to close its files and end its loader's workers."""


def run_rank(
    function: Callable[..., Any], args: tuple[Any, ...], reports: str, command: list[str]
) -> Any:
    """One rank, from its first moment to its last."""
    sys.orig_argv = command  # what a receipt says was run
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    atexit.register(_end_at_once)  # the first to be registered is the last to be called
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    report = Path(reports) / f"rank-{rank}.json"
    facts = {"rank": rank, "pid": os.getpid()}
    write_json(report, facts)
    try:
        os.setpgid(0, 0)  # what is sent to all of a terminal's processes comes by the parent
        raise_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
        warnings.showwarning = tell  # type: ignore[assignment]
        if rank > 0:
            warnings.simplefilter("ignore")
            logging.disable()
        divide_threads(count)
        result = function(*args, rank=rank)
        # The end that was asked for has come. Elastic's launcher, which has yet to hand the result
        # over, would swallow a signal that raises, and its parent wait for the result for ever.
        for number in ASKED:
            signal.signal(number, signal.SIG_IGN)
        part_from_others()
        return result
    except BaseException as error:
        kind, problems, code = _described(raised() or error, rank)
        write_json(report, facts | {"time": time.monotonic(), "kind": kind, "problems": problems})
        if args and getattr(args[0], "debug", False):
            traceback.print_exc()
        # What is still open may wait for ranks that are not there any more.
        _exit_code[0] = code
        last_resort = threading.Timer(UNWIND_S, os._exit, [code])
        last_resort.daemon = True
        last_resort.start()
        sys.exit(code)


def _described(error: BaseException, rank: int) -> tuple[str, list[Any], int]:
    """Its kind, what it is made of, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "Signalled", [getattr(error, "number", signal.SIGINT)], FAULT
    kind = type(error).__name__
    if kind in LOST_DEVICE:
        return "LostRankError", [rank, " ".join(f"{kind}: {error}".split())], FAULT
    if not isinstance(error, Gpt2labError):
        kind = "RunError"
    return kind, *last_lines(error, f"rank {rank}: ")


_exit_code = [0]


def _end_at_once() -> None:
    """All is closed: what an interpreter then takes apart, for seconds, goes with the process."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(_exit_code[0])


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def pass_on(number: int) -> None:
    """Tell the other ranks of a signal: by the parent, which sends it to all of them."""
    parent = multiprocessing.parent_process()
    # A Ctrl-C comes by the parent, which counts it: a second one ends all at once.
    if parent is not None and parent.pid == os.getppid() and number != signal.SIGINT:
        os.kill(os.getppid(), number)


def part_from_others() -> None:
    """A rank that waits for this one by mistake shall meet an error instead of waiting for ever."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
