"""Several devices: one process a rank, started, told of signals and ended by this one.

torch's elastic launcher starts the processes and keeps the store by which they find each other; its
restarts, logs and banners are left out. Here is the rest: a signal to this process reaches every
rank, no rank outlives this process or a rank that failed, and of all that ranks complain of when
one fails, the first complaint is what the caller hears.
"""

import atexit
import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from gpt2lab.config import TrainConfig
from gpt2lab.durable import write_json
from gpt2lab.errors import CheckpointError, ConfigError, DataError, Gpt2labError, RunError
from gpt2lab.exit import FAULT, last_lines
from gpt2lab.signals import ASKED, Signalled, raise_signals, raised
from gpt2lab.terminal import tell

LEFT = {128 + number for number in ASKED}
"""Exit codes of a first rank that a signal has ended, and that has said so."""
SURVIVAL_S = 1.5
"""How long ranks may go on after one has failed: long enough to close their files."""
UNWIND_S = 8.0
"""How long a rank that failed may take to close its files and end its loader's workers."""


def check_devices(settings: TrainConfig) -> None:
    """
    Raises:
        ConfigError: if there are fewer devices than the settings ask for.
    """
    accelerator = settings.trainer.get("accelerator", "auto")
    if settings.devices == 1 and accelerator not in ("gpu", "cuda"):
        return
    kind, found = "CPU cores", cpus()
    if accelerator != "cpu":
        import torch

        gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
        if gpus or accelerator != "auto":
            kind, found = "GPUs", gpus
    if found >= settings.devices:
        return
    if found == 0:
        raise ConfigError(
            f"trainer.accelerator: {accelerator} was asked for, 0 GPUs were found; use trainer=auto"
        )
    raise ConfigError(
        f"devices: {settings.devices} were asked for, {found} {kind} were found; "
        f"choose at most {found}"
    )


def cpus() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_ranks(count: int, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args, rank=r)` in a process for each rank; what rank 0 returns.

    Function and arguments are pickled, and the program that calls this is imported by each process
    as multiprocessing does it: a script needs its `if __name__ == "__main__":`.

    Raises:
        Gpt2labError, RunError: what the first rank that failed has raised.
        Signalled: if a signal came when there was no training to be stopped.
        SystemExit: if the first rank has left upon a signal, and has said so.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    with tempfile.TemporaryDirectory(prefix="gpt2lab-") as reports, Family() as family:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=Path(reports).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a free port
            local_addr="localhost",  # a machine's own name need not lead to it
            max_restarts=0,
            signals_to_handle="",  # they are ours
            logs_specs=DefaultLogsSpecs(log_dir=reports),
        )
        try:
            results = elastic_launch(config, _rank)(function, args, reports, sys.orig_argv)
        except ChildFailedError:
            family.bury()
            _raise_first_failure(Path(reports), family)
        except OSError:
            if family.signal is None:
                raise
            raise Signalled(family.signal) from None  # a rank was ended while it was being started
        return results[0]


class Family:
    """The processes of a launch: a thread of their parent passes signals on, and ends them."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.killed: set[int | None] = set()
        self._interrupts = 0
        self._pending: list[int] = []
        self._others = set(multiprocessing.active_children())
        self._members: dict[int, BaseProcess] = {}
        self._is_over = threading.Event()
        self._guardian = threading.Thread(target=self._guard, daemon=True)
        self._handlers: dict[int, Any] = {}

    def members(self) -> dict[int, BaseProcess]:
        """By process id, the ended ones too; elastic's launcher keeps them to itself."""
        for child in multiprocessing.active_children():
            if child not in self._others and child.pid is not None:
                self._members.setdefault(child.pid, child)
        return self._members

    def __enter__(self) -> "Family":
        # Started before signals are blocked, so that it is a thread they can be delivered to.
        self._guardian.start()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {n: signal.signal(n, self._note) for n in ASKED}
            resource_tracker.ensure_running()  # which lets signals through again when it begins
            # For the ranks, which begin with what is blocked here: no signal finds them unready.
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
        return self

    def __exit__(self, *_: Any) -> None:
        self._is_over.set()
        self._guardian.join()
        if self._handlers:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        self._interrupts += number == signal.SIGINT
        self._pending.append(number)

    def _guard(self) -> None:
        failed_at = math.inf
        while not self._is_over.wait(0.05):
            children = self.members().values()
            alive = [child for child in children if child.exitcode is None]
            pending, self._pending = self._pending, []
            for child in alive:
                if _is_ready(child):
                    for number in pending:
                        self._send(child, number)
                elif self.signal is not None:
                    self._send(child, signal.SIGKILL)
            if any(child.exitcode for child in children):
                failed_at = min(failed_at, time.monotonic())
            has_left = any(child.exitcode in LEFT for child in children)
            is_too_long = time.monotonic() - failed_at > SURVIVAL_S
            if has_left or is_too_long or self._interrupts > 1:
                # They wait for the one that has ended, perhaps for ever; or nobody waits for them.
                for child in alive:
                    self._send(child, signal.SIGKILL)

    def _send(self, child: BaseProcess, number: int) -> None:
        assert child.pid is not None
        if number == signal.SIGKILL:
            self.killed.add(child.pid)
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def bury(self) -> None:
        for child in self.members().values():
            child.join()


def _is_ready(child: BaseProcess) -> bool:
    """Whether a rank has come so far as to have a process group of its own."""
    with suppress(ProcessLookupError):
        return os.getpgid(child.pid or 0) == child.pid
    return True


def _raise_first_failure(reports: Path, family: Family) -> NoReturn:
    """What of all that went wrong was the cause: a rank's death, or the first report."""
    told: list[dict[str, Any]] = []
    for file in reports.glob("rank-*.json"):
        report = json.loads(file.read_text())
        code = family.members()[report["pid"]].exitcode or 0
        if "kind" in report:
            told.append(report)
        elif code in LEFT:
            sys.exit(code)
        elif code != -signal.SIGTERM and code != 0 and report["pid"] not in family.killed:
            # SIGTERM is what elastic sends to those that are left.
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise RunError(
                f"rank {report['rank']}: ended by {how}; see the system's log for a lack of "
                "memory, and go on with resume=last"
            )
    if family.signal is not None or not told:
        raise Signalled(family.signal or signal.SIGTERM)
    first = min(told, key=lambda report: report["time"])
    for kind in (ConfigError, DataError, CheckpointError):
        if first["kind"] == kind.__name__:
            raise kind(*first["problems"])
    if first["kind"] == "Signalled":
        raise Signalled(*first["problems"])
    raise RunError(*first["problems"])


def _rank(
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
        _divide_threads(count)
        result = function(*args, rank=rank)
        # The end that was asked for has come. Elastic's launcher, which has yet to hand the result
        # over, would swallow a signal that raises, and its parent wait for the result for ever.
        for number in ASKED:
            signal.signal(number, signal.SIG_IGN)
        _part_from_others()
        return result
    except BaseException as error:
        kind, problems, code = _described(raised() or error, rank)
        write_json(report, facts | {"time": time.time(), "kind": kind, "problems": problems})
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
    kind = type(error).__name__ if isinstance(error, Gpt2labError) else "RunError"
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


def _part_from_others() -> None:
    """A rank that waits for this one by mistake shall meet an error instead of waiting for ever."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _divide_threads(count: int) -> None:
    """Each rank computes with its share of the cores, unless OMP_NUM_THREADS says with how many."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cpus() // count))
