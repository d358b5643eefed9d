"""Writing a checkpoint whole or not at all, in one file or in one of each rank."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from gpt2lab.checkpoint.folder import (
    COMMON,
    INDEX,
    File,
    name_of_rank,
    remove,
    size_of,
    write_index,
)
from gpt2lab.checkpoint.manifest import temporary_of
from gpt2lab.checkpoint.reading import STATES, Content, foreign, walk
from gpt2lab.checkpoint.verify import sha256
from gpt2lab.durable import check_room, is_full, sync_folder
from gpt2lab.errors import RunError
from gpt2lab.ranks import Board


@dataclass(frozen=True)
class Written:
    """A file that is whole and on disk, and has no name yet that anyone looks for."""

    path: Path
    bytes: int
    sha256: str


@contextmanager
def written(content: Content, path: Path) -> Iterator[Written]:
    """The content in a temporary file beside its target; gone after the body, if still there."""
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(path.parent, bytes_needed(content))
        file = save_file(content, temporary)
        yield Written(temporary, file.bytes, file.sha256)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_file(content: Content, path: Path) -> File:
    """The content in a file that is flushed to the disk."""
    with path.open("wb") as file:
        hashed = HashedFile(file)
        torch.save(content, cast(BinaryIO, hashed))
        if hashed.error is not None:
            raise hashed.error
        file.flush()
        os.fsync(file.fileno())
    return File(path.name, hashed.bytes, hashed.sha256.hexdigest())


@contextmanager
def written_by_ranks(content: Content, path: Path, board: Board, save: str) -> Iterator[Written]:
    """The same by all ranks at once, each of which brings its rows: a folder of their files.

    The first rank's body names the folder and records it; the others' run when that is done. What
    fails on one rank fails on all of them.

    Args:
        save: a name for this save, the same on all ranks and used once.
    Raises:
        OSError: if this rank, or another one, cannot write.
    """
    folder = temporary_of(path)
    try:
        note = asdict(save_rows(content, folder, board))
    except OSError as error:
        note = described(error)
    board.post(f"{save}/{board.rank}", note)
    if board.rank > 0:
        done = board.read(f"{save}/done")
        check_note(done)
        yield Written(path, **done)
        return
    done = {"errno": errno.EIO, "strerror": "the first rank has not saved"}
    try:
        notes = [board.read(f"{save}/{rank}") for rank in range(board.size)]
        done = next((note for note in notes if "errno" in note), done)
        for note in notes:
            check_note(note)
        files = [save_file(common(content), folder / COMMON), *(File(**note) for note in notes)]
        write_index(folder, files)
        sync_folder(folder)
        written = Written(folder, size_of(folder), sha256(folder / INDEX))
        yield written
        done = {"bytes": written.bytes, "sha256": written.sha256}
    except OSError as error:
        done = described(error)
        raise
    finally:
        board.post(f"{save}/done", done)
        shutil.rmtree(folder, ignore_errors=True)


def save_rows(content: Content, folder: Path, board: Board) -> File:
    folder.mkdir(parents=True, exist_ok=True)
    check_room(folder, bytes_needed(content))
    own = {name: content[name] for name in STATES}
    return save_file(own, folder / name_of_rank(board.rank, board.size))


def common(content: Content) -> Content:
    return {name: value for name, value in content.items() if name not in STATES}


def described(error: OSError) -> dict[str, Any]:
    return {"errno": error.errno or errno.EIO, "strerror": error.strerror or str(error)}


def check_note(note: dict[str, Any]) -> None:
    """
    Raises:
        OSError: if it tells of one.
    """
    if "errno" in note:
        raise OSError(note["errno"], note["strerror"])


def put(temporary: Path, path: Path) -> None:
    """Give a file or a folder its name, for good."""
    if path.is_dir() or (temporary.is_dir() and path.exists()):
        # No name passes from a folder to another at once: whatever has it goes first.
        remove(path, temporary_of(temporary))
    temporary.replace(path)
    sync_folder(path.parent)


class HashedFile:
    """Knows the checksum of what was written through it, and the first error met.

    torch.save hides an error of its file behind one of its own. It is told that all is well, and
    whoever called it asks for `error` afterwards.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.error: BaseException | None = None

    def write(self, data: memoryview) -> int:
        if self.error is None:
            try:
                self.file.write(data)
                self.sha256.update(data)
            except BaseException as error:
                self.error = error
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Done by the caller, who wants to know of its errors."""


@contextmanager
def told(path: Path, content: Content) -> Iterator[None]:
    """A failure to write, in a line that says what is needed and what to do.

    Raises:
        RunError: for an OSError, and for content that no checkpoint takes.
    """
    for name, value in walk(content):
        if foreign(value):
            raise RunError(
                f"{path}: {name} is a {type(value).__name__}, a checkpoint holds plain types and "
                "tensors only; leave out the callback that adds it"
            )
    try:
        yield
    except OSError as error:
        try:
            free = f"{shutil.disk_usage(path.parent).free:,}"
        except OSError:
            free = "an unknown number"
        mend = "make room" if is_full(error) else "make it writable"
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}): "
            f"{bytes_needed(content):,} bytes are needed, {free} are free; "
            f"{mend} and go on with name={path.absolute().parent.parent.name} resume=last"
        ) from error


def bytes_needed(content: Content) -> int:
    """Size of a checkpoint's file, at most some kilobytes more or less."""
    overhead = 256  # of the zip, a tensor
    sizes = [v.nbytes + overhead for _, v in walk(content) if isinstance(v, Tensor)]
    return sum(sizes) + 2**14
