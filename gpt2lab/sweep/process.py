"""A trial's process, as the study sees it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

UNKNOWN = 256
"""Stands for the exit code of a process of which nobody knows how it ended; no code is so large."""
LEAVING_S = 20.0
"""How long a trial may take to save and leave before it is killed."""


@dataclass
class Start:
    """What a trial begins with.

    Args:
        module: whose command line is run: gpt2lab.train.
        environment: variables besides ours.
        output: the file to which stdout and stderr are appended.
        asked: when it was asked for; what it waits for imports since is time of its own.
    """

    module: str
    overrides: Sequence[str]
    environment: Mapping[str, str]
    output: Path
    asked: float = field(default_factory=time.monotonic)


class Process:
    """One training, in a process group of its own, so that a terminal's Ctrl-C comes by the study.

    Args:
        begin: makes the process, given the pipe that it reads and the file that it writes to;
            gives its id, and a function that gives its exit code once it has ended.
    """

    def __init__(
        self, start: Start, begin: Callable[[int, BinaryIO], tuple[int, Callable[[], int | None]]]
    ) -> None:
        self.output = start.output
        self._asked_at: float | None = None
        self._asked_for = start.asked
        reading, self._pipe = os.pipe()
        try:
            with start.output.open("ab") as file:
                self._begins_at = file.tell()
                self._pid, self._code = begin(reading, file)
        except BaseException:
            os.close(self._pipe)  # what has begun all the same leaves by itself then
            raise
        finally:
            os.close(reading)
        with suppress(BrokenPipeError):  # it has ended at once, and will say why
            os.write(self._pipe, json.dumps(list(start.overrides)).encode() + b"\n")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._asked_for

    @property
    def was_asked_to_leave(self) -> bool:
        return self._asked_at is not None

    def poll(self) -> int | None:
        """Its exit code, once it has ended; what is asked to leave and does not is killed."""
        code = self._code()
        if code is not None:
            self._close()
        elif self._asked_at is not None and time.monotonic() - self._asked_at > LEAVING_S:
            self.kill()
        return code

    def terminate(self) -> None:
        """Ask it to save and leave."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)

    def said(self) -> str:
        """What this process has written so far."""
        with self.output.open("rb") as file:
            file.seek(self._begins_at)
            return file.read().decode("utf-8", "replace")

    def _close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def spawn(start: Start) -> Process:
    """A process from its first import on."""

    def begin(reading: int, file: BinaryIO) -> tuple[int, Callable[[], int | None]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpt2lab.sweep.trial", str(reading), start.module],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=(reading,),
            process_group=0,
            env={**os.environ, **start.environment},
        )
        return process.pid, process.poll

    return Process(start, begin)
