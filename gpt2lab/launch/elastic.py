"""Ranks started by this process.

torch's elastic launcher starts the processes and keeps the store by which they find each other; its
restarts, logs and banners are left out. Here is the rest: a signal to this process reaches every
rank, no rank outlives this process or a rank that failed, and of all that ranks complain of when
one fails, the first complaint is what the caller hears.
"""

import json
import logging
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gpt2lab.errors import CheckpointError, ConfigError, DataError, LostRankError, RunError
from gpt2lab.launch.family import LEFT, Family
from gpt2lab.launch.rank import run_rank
from gpt2lab.signals import Signalled


def on_ranks(count: int, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args, rank=r)` in a process for each rank; what rank 0 returns.

    Function and arguments are pickled, and the program that calls this is imported by each process
    as multiprocessing does it: a script needs its `if __name__ == "__main__":`.

    Raises:
        Gpt2labError, RunError: what the first rank that failed has raised.
        LostRankError: if one has ended without having raised anything, or has lost its device.
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
            results = elastic_launch(config, run_rank)(function, args, reports, sys.orig_argv)
        except ChildFailedError:
            family.bury()
            _raise_first_failure(Path(reports), family)
        except OSError:
            if family.signal is None:
                raise
            raise Signalled(family.signal) from None  # a rank was ended while it was being started
        return results[0]


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
            raise LostRankError(report["rank"], how)
    if family.signal is None and not told:
        for child in family.members().values():  # killed before it could say which rank it is
            code = child.exitcode or 0
            if code < 0 and code != -signal.SIGTERM and child.pid not in family.killed:
                raise LostRankError(None, signal.Signals(-code).name)
    first = min(told, key=lambda report: report["time"], default=None)
    # A rank passes on the SIGTERM by which elastic ends it after another one has failed.
    if first is None or family.signalled_at < first["time"]:
        raise Signalled(family.signal or signal.SIGTERM)
    for kind in (ConfigError, DataError, CheckpointError, LostRankError):
        if first["kind"] == kind.__name__:
            raise kind(*first["problems"])
    if first["kind"] == "Signalled":
        raise Signalled(*first["problems"])
    raise RunError(*first["problems"])
