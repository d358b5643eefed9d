"""A corpus while it is written: `<folder>.partial/`, its lock, and the journal to go on from.

The journal says how many batches stand in the files and how long the files were then. It is
written after the files have reached the disk, so that whatever a kill left behind it is cut off.
"""

import fcntl
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gpt2lab.data.prepare.batches import TRAIN, VAL
from gpt2lab.data.prepare.encode import Part
from gpt2lab.durable import sync_folder, write_json
from gpt2lab.errors import DataError

JOURNAL, LOCK = "journal.json", "lock"
SAVE_EVERY_S = 10.0
CHUNK_BYTES = 2**24


class DiskError(DataError):
    """What was written so far stands, and can be gone on from."""


def partial_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """The partial folder, of this process alone; waits while another process has it.

    The kernel lets go of the lock when its process ends, in whatever way. Unlike a run's lock this
    is a `flock`, for it is taken by threads too; the workers are spawned and inherit none.
    """
    partial = partial_of(folder)
    while True:
        with _disk(partial):
            partial.mkdir(parents=True, exist_ok=True)
            try:
                lock = (partial / LOCK).open("a+")
            except FileNotFoundError:  # another process has just finished
                continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                owner = lock.read() or "another process"
                print(f"{partial}: is written by {owner}; waiting for it", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(lock.fileno(), partial / LOCK):
                continue
            with _disk(partial / LOCK):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {platform.node()}")
                lock.flush()
            yield partial
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def read_journal(partial: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier process has left, if it was of the same settings and sources."""
    try:
        journal = json.loads((partial / JOURNAL).read_bytes())
        is_whole = journal["settings"] == settings and all(
            (partial / f"{name}.bin").stat().st_size >= split["size"]
            for name, split in journal["splits"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return journal if is_whole else None


@dataclass
class SplitFile:
    """The token file of one split, and what stands in it."""

    path: Path
    file: BinaryIO
    digest: Any
    size: int = 0
    tokens: int = 0
    documents: int = 0
    bytes: int = 0

    @classmethod
    def at(cls, path: Path, journaled: dict[str, int]) -> "SplitFile":
        """Opened behind what the journal vouches for; the rest is cut off."""
        size = journaled.get("size", 0)
        file = path.open("r+b" if size else "w+b")
        file.truncate(size)
        digest = hashlib.sha256()
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
        return cls(path, file, digest, **journaled)

    def add(self, part: Part) -> None:
        with _disk(self.path, len(part.ids), self.size):
            self.file.write(part.ids)
        self.digest.update(part.ids)
        self.size += len(part.ids)
        self.tokens += part.tokens
        self.documents += part.documents
        self.bytes += part.bytes

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("size", "tokens", "documents", "bytes")}


class Writer:
    """Writes batches in order, with a journal of them every few seconds.

    Args:
        facts: what was found out before the first batch, and need not be found out again.
    """

    def __init__(
        self,
        partial: Path,
        settings: dict[str, Any],
        facts: dict[str, Any],
        journal: dict[str, Any] | None,
    ) -> None:
        self.partial, self.settings, self.facts = partial, settings, facts
        found = journal["splits"] if journal else {TRAIN: {}, VAL: {}}
        with _disk(partial):
            self.splits = {n: SplitFile.at(partial / f"{n}.bin", found[n]) for n in (TRAIN, VAL)}
        self._vouch(journal["batches"] if journal else 0)
        self.save()

    def add(self, parts: dict[str, Part]) -> None:
        for name, part in parts.items():
            if part.ids:
                self.splits[name].add(part)
        self._vouch(self.stands["batches"] + 1)
        if time.monotonic() - self.saved >= SAVE_EVERY_S:
            self.save()

    def _vouch(self, batches: int) -> None:
        # One assignment: an interrupt falls before or behind a whole batch.
        splits = {name: split.counts() for name, split in self.splits.items()}
        self.stands: dict[str, Any] = {"batches": batches, "splits": splits}

    def save(self) -> None:
        """Bring the files, then the journal that vouches for them, onto the disk."""
        for split in self.splits.values():
            with _disk(split.path, 0, split.size):
                split.file.flush()
                os.fsync(split.file.fileno())
        journal = {"settings": self.settings, "facts": self.facts, **self.stands}
        write_whole(self.partial / JOURNAL, journal)
        self.saved = time.monotonic()

    def close(self) -> None:
        for split in self.splits.values():
            # What a full disk did not take is written again from the journal on.
            try:
                split.file.close()
            except OSError:
                continue


def publish(partial: Path, folder: Path) -> None:
    """Give a whole corpus its name."""
    with _disk(folder):
        for name in (JOURNAL, LOCK):
            (partial / name).unlink(missing_ok=True)
        sync_folder(partial)
        partial.rename(folder)
        sync_folder(folder.parent)


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """JSON that is there as a whole, or not at all."""
    with _disk(path):
        write_json(path, content)


@contextmanager
def _disk(path: Path, more: int = 0, written: int = 0) -> Iterator[None]:
    """What the disk refuses is an error of ours that names the file and the bytes."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path}: cannot be written ({error.strerror}): {written:,} bytes stand, {more:,} more "
            "are to come; make room or choose another data_dir, and start again: it goes on from "
            "there"
        ) from error
