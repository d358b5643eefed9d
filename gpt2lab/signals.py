"""SIGTERM, Ctrl-C and SIGUSR1: an exception outside of training, a request to stop while it runs.

Python runs a handler between two bytecodes of the main thread, and so none while a backward pass
is inside C++. The signal's number is written into a file descriptor at once, though, and a thread
that reads there waits a little, and then does what the main thread could not.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE_S = 2.0
"""How long a step, or an evaluation, may go on after a signal: ten seconds less a large save."""
UNWIND_S = 8.0
"""How long a program outside of training may take to close what is open."""
CTRL_C = "Ctrl-C: stopped at once; what was saved before is whole"


class Signalled(KeyboardInterrupt):
    """A signal outside of training; its text is an error line."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.code = 128 + number
        name = signal.Signals(number).name
        super().__init__(
            CTRL_C
            if number == signal.SIGINT
            else f"{name}: stopped before the end; what was saved before is whole"
        )


def raise_signals() -> None:
    """From here on signals raise, so that files are closed and processes end."""
    for number in ASKED:
        signal.signal(number, _raise)


def raised() -> Signalled | None:
    """What was raised, if anything: code that swallowed it may have raised something else since.

    An import that is cut short is tried anew by some, and fails in a way of its own.
    """
    return _raised


def default_signals() -> None:
    """From here on they end the program where it is: there is nothing left to say."""
    for number in ASKED:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """While large libraries are imported, a signal ends the program where it stands, in its line:
    they call Python from C++, which no exception passes. Nothing may be open that wants closing."""
    is_main = threading.current_thread() is threading.main_thread()
    ours = [number for number in ASKED if is_main and signal.getsignal(number) is _raise]
    for number in ours:
        signal.signal(number, _say_and_leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _raise)


def _say_and_leave(number: int, frame: FrameType | None) -> NoReturn:
    from gpt2lab.exit import last_lines

    (line,), code = last_lines(Signalled(number))
    with suppress(OSError):
        os.write(2, f"error: {line}\n".encode())
    _end_processes(code)


_raised: Signalled | None = None


def _raise(number: int, frame: FrameType | None) -> None:
    global _raised
    if _raised is not None:
        if number == signal.SIGINT == _raised.number:
            _leave_at_once(_raised)
        return  # once is enough: what is open is being closed
    _raised = Signalled(number)
    # It may meet code that swallows all exceptions, or that takes too long.
    timer = threading.Timer(UNWIND_S, _leave_at_once, args=(_raised,))
    timer.daemon = True
    timer.start()
    raise _raised


class Listener:
    """Remembers the signal that asks a training to stop, and sees to it that it does.

    Args:
        leaves: without the main thread, if need be; of several ranks, the first one alone, which
            saves and speaks for all and whose end is theirs, or all that have a part in a save.
        counts: a second Ctrl-C as one more than the first. A rank may get the same one from its
            parent and from a terminal, and leaves the counting to the parent.
        passes_on: tells the other ranks of a signal, of which they hear at the end of a step, but
            would not if the step, or an evaluation, took too long.
    """

    def __init__(
        self,
        leaves: bool = True,
        counts: bool = True,
        passes_on: Callable[[int], None] | None = None,
    ) -> None:
        self.leaves = leaves
        self.counts = counts
        self.passes_on = passes_on
        self.number: int | None = None
        self._lock: AbstractContextManager[Any] = threading.RLock()
        self._leaving: AbstractContextManager[Any] = self._lock
        self._last_words: Callable[[], int] | None = None
        self._is_over = False
        self._thread: threading.Thread | None = None
        self._timer: threading.Timer | None = None
        self._handlers: dict[int, Any] = {}
        self._closing = threading.Lock()

    @contextmanager
    def during(
        self,
        lock: AbstractContextManager[Any],
        last_words: Callable[[], int],
        leaving: AbstractContextManager[Any] | None = None,
    ) -> Iterator[None]:
        """Around a training; it may begin to `listen` once it has something to save.

        Args:
            lock: held wherever the state is changed or saved.
            last_words: saves what a step under way has not changed yet, says what is to be said,
                and returns the exit code. Called with the lock held, from another thread than the
                main one, which gets no further then.
            leaving: what is held in place of the lock then, where more than one process leaves.
        """
        self._lock, self._last_words, self._leaving = lock, last_words, leaving or lock
        try:
            yield
        finally:
            with lock:  # for ever, where the other thread is already leaving
                self._is_over = True
            self._close()

    def listen(self) -> None:
        """Take the signals over; not in another thread than the main one, which gets none."""
        if self._last_words is None or threading.current_thread() is not threading.main_thread():
            return
        source, self._target = os.pipe()
        os.set_blocking(self._target, False)
        self._thread = threading.Thread(target=self._watch, args=(source,), daemon=True)
        self._thread.start()
        self._handlers = {number: signal.signal(number, self._note) for number in ASKED}
        self._wakeup = signal.set_wakeup_fd(self._target, warn_on_full_buffer=False)
        _ours.add(self._target)

    def _close(self) -> None:
        if self._thread is None:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._target, b"\0")
        self._thread.join()
        if self._timer is not None:
            self._timer.cancel()
        _ours.discard(self._target)
        with self._closing:
            os.close(self._target)
            self._thread = None

    def hear(self, number: int) -> None:
        """A signal that another rank has got and passed on; from any thread."""
        with self._closing:
            if self._thread is not None:
                os.write(self._target, bytes([number]))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number

    def _watch(self, source: int) -> None:
        interrupts, has_told = 0, False
        while number := os.read(source, 1)[0]:
            if number not in ASKED:
                continue
            if self.passes_on is not None and not has_told:
                self.passes_on(number)
                has_told = True
            self._note(number, None)
            if not self.leaves:
                continue
            if self._timer is None:
                self._timer = threading.Timer(GRACE_S, self._leave)
                self._timer.daemon = True
                self._timer.start()
            interrupts += self.counts and number == signal.SIGINT
            if interrupts == 2:
                _leave_at_once(Signalled(number))
        os.close(source)

    def _leave(self) -> None:
        with self._leaving:
            if not self._is_over:
                assert self._last_words is not None
                _leave_cores_to_this_thread()
                _end(self._last_words())


def _leave_cores_to_this_thread() -> None:
    """Of this process: the step that is dropped would slow down the save, on all cores."""
    main = threading.main_thread()
    others = {thread.native_id for thread in threading.enumerate() if thread is not main}
    lower = os.getpriority(os.PRIO_PROCESS, 0) + 10
    with suppress(OSError):  # not a Linux
        for task in Path("/proc/self/task").iterdir():
            if int(task.name) not in others:
                os.setpriority(os.PRIO_PROCESS, int(task.name), lower)


def _leave_at_once(signalled: Signalled) -> NoReturn:
    with suppress(OSError):
        # Not by sys.stderr, whose lock another thread may hold.
        os.write(2, f"error: {signalled}\n".encode())
    _end_processes(signalled.code)


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or its reader has left
            stream.flush()
    _end_processes(code)


def _end_processes(code: int) -> NoReturn:
    """End this process from any thread, and those that it has started."""
    for child in multiprocessing.active_children():
        child.kill()  # loader workers leave signals to their parent
    os._exit(code)


_ours: set[int] = set()
"""Descriptors that listeners of this process read."""


def _forget() -> None:
    """A forked child's signals are not ours: Ctrl-C reaches all, and would count twice."""
    if _ours:
        previous = signal.set_wakeup_fd(-1)
        if previous not in _ours:
            signal.set_wakeup_fd(previous)


os.register_at_fork(after_in_child=_forget)
