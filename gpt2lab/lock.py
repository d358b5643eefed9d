"""One run, one process: who is at work in a run's folder.

A POSIX record lock: the kernel releases it when its process dies, however it dies, and loader
workers that outlive a killed run do not hold it, for children inherit no record locks. (`flock`
would be theirs too.) One trap comes with it: a process that closes any descriptor of the file
gives up the lock, so nothing else may open it; hence `_held`.
"""

import errno
import fcntl
import json
import os
import platform
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from gpt2lab.errors import ConfigError

LOCK = "lock"

# What file systems without record locks answer: some network ones, where they are not set up.
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

FLOCK = "hhqqi"
"""Linux' struct flock of 64 bits: type, whence, start, length, process."""

_held: set[Path] = set()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """While open, no other process trains in this folder, which must be there.

    Raises:
        ConfigError: if another does now, or if the folder cannot be written to.
    """
    path = folder.resolve() / LOCK
    if path in _held:
        raise ConfigError(_refusal(folder, myself()))
    try:
        descriptor = _taken(path, folder)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); "
            "make the folder writable, or choose another"
        ) from error
    _held.add(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked, so that nobody else's file is removed
        _held.discard(path)
        os.close(descriptor)


def check_unlocked(folder: Path) -> None:
    """
    Raises:
        ConfigError: if another process is at work in the folder.
    """
    path = folder.resolve() / LOCK
    if path in _held:
        return
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return  # there is none, or none that could be taken
    try:
        _take(descriptor, folder)
    finally:
        os.close(descriptor)


def at_work(folder: Path) -> dict[str, Any] | None:
    """Who is at work in the folder; the lock is not taken, not even to see.

    Returns:
        What the process says of itself, {} if that cannot be read; None if nobody is at work. Where
        the system does not say who has a lock, a process of another machine is taken to be there.
    """
    path = folder.resolve() / LOCK
    if path in _held:  # which another descriptor, closed, would give up
        return myself()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO waits for nobody
    except OSError:
        return None
    try:
        found, is_locked = _read(descriptor), _is_locked(descriptor)
    finally:
        os.close(descriptor)
    if is_locked is None:
        is_locked = is_alive(found)
    return found if is_locked else None


def _is_locked(descriptor: int) -> bool | None:
    """Whether another process has the lock, by the kernel; None where it does not say."""
    if not sys.platform.startswith("linux"):
        return None
    question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    except OSError:
        return None
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)


def _taken(path: Path, folder: Path) -> int:
    """A descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with ExitStack() as otherwise:
            otherwise.callback(os.close, descriptor)
            _take(descriptor, folder)
            with suppress(FileNotFoundError):
                # Else its holder removed it between our opening and our locking.
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    _sign(descriptor)
                    otherwise.pop_all()
                    return descriptor


def _take(descriptor: int, folder: Path) -> None:
    """
    Raises:
        ConfigError: if another process has the lock.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        taken = error.errno in (errno.EACCES, errno.EAGAIN)
        if not taken and error.errno not in _UNSUPPORTED:
            raise
        holder = _read(descriptor)
        if taken or is_alive(holder):
            raise ConfigError(_refusal(folder, holder)) from error


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote this is still there; of another place nobody can say no."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or not 0 < pid < 2**31:
        return False
    if not is_here(holder):
        return True
    born = None if pid == os.getpid() else _born(pid)
    return born is not None and born == holder.get("born", born)


def is_here(holder: dict[str, Any]) -> bool:
    """Whether its number is that of a process here: containers share names, but not processes."""
    return all(holder.get(name, value) == value for name, value in _here().items())


def _here() -> dict[str, str]:
    """The machine, its start and its set of processes; on other systems than Linux its name."""
    found = {"host": platform.node()}
    with suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["processes"] = str(Path("/proc/self/ns/pid").readlink())
    return found


def _born(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's ticks; None if there is no such."""
    try:
        # The name, in brackets, may hold spaces and brackets itself.
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A zombie has ended, and its parent has not asked how.
        return None if facts[0] == "Z" else facts[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"


def myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        **_here(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "born": _born(os.getpid()),  # tells a process from a later one of the same number
    }


def _sign(descriptor: int) -> None:
    with suppress(OSError):  # a full disk: it is the kernel's lock that counts
        # In this order there is a signature at any moment.
        os.ftruncate(descriptor, os.pwrite(descriptor, json.dumps(myself()).encode() + b"\n", 0))


def _read(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(folder: Path, holder: dict[str, Any]) -> str:
    where = f"process {holder['pid']}" if "pid" in holder else "another process"
    where += f" on host {holder['host']}" if "host" in holder else ""
    return f"{folder}: {where} is at work in it; wait for it, or choose another name"
