"""The processes that a parent has started: signals passed on, and an end for all."""

import math
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import FrameType
from typing import Any

from gpt2lab.signals import ASKED

LEFT = {128 + number for number in ASKED}
"""Exit codes of a first rank that a signal has ended, and that has said so."""
SURVIVAL_S = 1.5
"""How long ranks may go on after one has failed: long enough to close their files."""


class Family:
    """The processes of a launch: a thread of their parent passes signals on, and ends them."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.signalled_at = math.inf
        """By time.monotonic, which all processes of a machine share."""
        self.killed: set[int | None] = set()
        self._interrupts = 0
        self._pending: SimpleQueue[int] = SimpleQueue()
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
        if self.signal is None:
            self.signal, self.signalled_at = number, time.monotonic()
        self._interrupts += number == signal.SIGINT
        self._pending.put(number)

    def _guard(self) -> None:
        failed_at = math.inf
        while not self._is_over.wait(0.05):
            children = self.members().values()
            alive = [child for child in children if child.exitcode is None]
            pending = [self._pending.get() for _ in range(self._pending.qsize())]
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
