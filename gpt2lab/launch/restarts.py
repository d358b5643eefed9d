"""Ranks that are started again, all of them, when one was lost."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gpt2lab.checkpoint import find_checkpoint
from gpt2lab.checkpoint.manifest import step_files, step_of
from gpt2lab.errors import LostRankError
from gpt2lab.resume import Restart

T = TypeVar("T")


def with_restarts(
    begin: Callable[[Path | None, Restart | None], T],
    folder: Path,
    checkpoint: Path | None,
    max_restarts: int,
) -> T:
    """What `begin` returns, called again after each lost rank, at most so many times.

    Bad input, a loss that is not finite and a signal to this process would only be met again.

    Args:
        begin: starts all ranks, from a checkpoint or afresh.
        folder: the run's, locked by this process.
        checkpoint: what the first start goes on from.
    Raises:
        LostRankError: the last one, when no restart is left.
        CheckpointError: if all checkpoints are damaged.
    """
    began = time.monotonic()
    before = _stamps(folder)
    restart = None
    for number in range(1, max_restarts + 1):
        try:
            return begin(checkpoint, restart)
        except LostRankError as lost:
            checkpoint = _newest_since(before, folder, checkpoint)
            warnings.warn(
                f"{lost.what}; restart {number} of {max_restarts}, from {_told(checkpoint)}",
                stacklevel=2,
            )
            restart = Restart(lost.what, minutes=(time.monotonic() - began) / 60)
    return begin(checkpoint, restart)


def _told(checkpoint: Path | None) -> str:
    if checkpoint is None:
        return "step 0, afresh"
    step = step_of(checkpoint.name)
    return checkpoint.name if step is None else f"step {step}"  # a user may have renamed it


def _newest_since(before: dict[Path, int], folder: Path, origin: Path | None) -> Path | None:
    """The last good checkpoint of this training, or else the one that it has begun with."""
    found = find_checkpoint(folder, "last")
    # A run that was turned back, by resume=best, may have been lost before it could say so.
    is_of_before = found is None or _stamps(folder).get(found) == before.get(found)
    return origin if origin is not None and is_of_before else found


def _stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in step_files(folder / "checkpoints")}
