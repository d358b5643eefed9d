"""strace at a thread that waits for it: what it asks of the system, and faults in that.

A child holds still at the begin of a function (`hooks.hold_in`), strace attaches to that thread
alone, so that its count of calls begins there, and the child goes on.
"""

import re
import signal
import subprocess
import time
from pathlib import Path

from tests.faults.hooks import BEGINS, ENDED
from tests.faults.server import Process

FILES = "%file,%desc"
"""Every system call that takes a path or a file descriptor: no other can change what is on disk."""


class Tracer:
    """strace, attached to a thread of a process.

    Args:
        options: what is injected, and where.
    """

    def __init__(self, thread: int, log: Path, *options: str, calls: str = FILES) -> None:
        self.log = log
        command = ["strace", "-p", str(thread), "-o", str(log), "-e", f"trace={calls}", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        assert "attached" in said, said

    def lines(self) -> list[str]:
        """The calls since it was attached, in order, once the thread has ended."""
        self.process.wait(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return [m[0] for m in re.finditer(r"^\w+\(.*$", self.log.read_text(), re.M)]


def held(process: Process) -> int:
    """The id of the thread that `hold_in` has brought to a stand."""
    process.until(process.cwd / "thread")
    while process.state() not in "TZ":
        time.sleep(0.001)
    return int((process.cwd / "thread").read_text())


def release(process: Process) -> None:
    process.signal(signal.SIGCONT)


def within(lines: list[str]) -> range:
    """Where in a trace the stretch between the two marks lies."""
    begin, end = (
        next(i for i, line in enumerate(lines) if f'"{mark}"' in line) for mark in (BEGINS, ENDED)
    )
    return range(begin + 1, end)


def name_of(line: str) -> str:
    return line.partition("(")[0]


CHANGES = {"write", "pwrite64", "ftruncate", "fsync", "rename", "unlink", "rmdir", "mkdir"}


def changes_disk(line: str) -> bool:
    """Whether a call makes, fills, renames or deletes a file."""
    name = name_of(line)
    return name in CHANGES or (name == "openat" and ("O_WRONLY" in line or "O_RDWR" in line))
