"""Files and folders that are there as a whole or not at all, whatever is killed or unplugged."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpt2lab.errors import ConfigError


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, as_json(content))


def as_json(content: dict[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=2)}\n".encode()


def write_whole(path: Path, content: bytes) -> None:
    """Written beside the target, flushed to the disk, renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names, without which a rename may not survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def at_home(path: str) -> str:
    """A path with the user's home for ~ at its beginning; as it is where nobody has that home, as
    in a shell."""
    return os.path.expanduser(path)  # noqa: PTH111  Path's own raises


def check_writable(folder: Path, key: str) -> None:
    """Find out before anything heavy whether a folder can be made here, or written to.

    Args:
        key: the setting that names it.
    Raises:
        ConfigError: naming the nearest part of the path that is in the way.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ConfigError(f"{key}: {nearest} is a file; choose a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {nearest} cannot be written to; choose another folder")


def check_room(folder: Path, needed: int) -> None:
    """Find out before gigabytes are written, and the disk is full for everyone else on it.

    Raises:
        OSError: if so many bytes cannot fit.
    """
    usage = shutil.disk_usage(folder)
    # some network file systems say that they have no bytes at all
    if usage.total > 0 and usage.free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_full(error: OSError) -> bool:
    """Whether it was for want of room that a file could not be written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path`, which takes its place after the body; gone if the body fails.

    What a kill left there is cleared away by the next one.

    Raises:
        BlockingIOError: if another process writes there now.
    """
    temporary, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    new = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(exist_ok=True)
        with _locked(temporary):
            try:
                for left in temporary.iterdir():
                    left.unlink()
                yield temporary
                for file in temporary.iterdir():
                    _sync(file)
                sync_folder(temporary)
                _put(temporary, path, old)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    finally:
        with suppress(OSError):
            for parent in new:
                parent.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(descriptor)


def _put(temporary: Path, path: Path, old: Path) -> None:
    """Give a folder its name; what has that name is replaced."""
    shutil.rmtree(old, ignore_errors=True)  # of an earlier kill, just here
    if path.exists():
        path.rename(old)
    try:
        temporary.rename(path)
    except BaseException:
        if old.exists():
            old.rename(path)
        raise
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
