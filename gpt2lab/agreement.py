"""Ranks that hold still together, between the same two steps, whatever their main threads do."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gpt2lab.ranks import Board

PATIENCE_S = 4.0
"""How long the ranks may take to agree: ten seconds less a step's grace and a large save."""
TURN_S = 0.2
"""How long a rank waits for its lock before it says that this round is not for it."""

GO, AGAIN, PART = "go", "again", "part"


class Agreement:
    """Takes the locks of all ranks when they are at the same step; `reached` says whether it did.

    In rounds, which the first rank opens and closes: each takes its lock and says its step, and the
    first says what follows. Where one cannot have its lock, or is a step behind, all let go, so
    that what they do to each other's state can end, and meet again.

    Args:
        lock: of this rank, held wherever the state changes.
        step: of this rank.
        board: where ranks leave notes for each other.
    """

    def __init__(
        self, lock: Any, step: Callable[[], int], board: Callable[[], Board | None]
    ) -> None:
        self.lock = lock
        self.step = step
        self.board = board
        self.reached = False

    def __enter__(self) -> "Agreement":
        board = self.board()
        if board is None:  # a signal before there is anything to agree about
            return self
        end = time.monotonic() + PATIENCE_S
        for number in range(2**31):
            name = f"agreement-{number}"
            if board.rank == 0:
                board.post(f"{name}/open", True)
            else:
                board.read(f"{name}/open")  # no lock is held for a first rank that never leaves
            is_held = self.lock.acquire(timeout=TURN_S)
            board.post(f"{name}/{board.rank}", self.step() if is_held else None)
            if board.rank == 0:
                board.post(f"{name}/closed", verdict(board, name, end))
            said = board.read(f"{name}/closed")
            self.reached = said == GO
            if self.reached:
                return self
            if is_held:
                self.lock.release()
            if said == PART:
                return self
            time.sleep(0.02)
        raise AssertionError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.reached:
            self.lock.release()


def verdict(board: Board, name: str, end: float) -> str:
    """What follows from the steps that the ranks say they are at; None is of one without lock."""
    try:
        steps = {
            board.read(f"{name}/{rank}", max(0.0, end - time.monotonic()))
            for rank in range(board.size)
        }
    except TimeoutError:
        return PART
    if len(steps) == 1 and None not in steps:
        return GO
    return AGAIN if time.monotonic() < end else PART


def wait_to_be_ended() -> None:
    """Another rank has said all that is to be said, and the parent ends the rest."""
    threading.Event().wait()
