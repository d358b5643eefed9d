"""Whether a checkpoint is what was written: by the checksums on record, or the zip's own."""

import errno
import hashlib
import time
import zipfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

from gpt2lab.checkpoint.folder import INDEX, File, is_checkpoint, is_folder, read_index
from gpt2lab.checkpoint.manifest import Entry, read_manifest
from gpt2lab.errors import CheckpointError

Answer = TypeVar("Answer")


def once_a_file(check: Callable[[Path], Answer]) -> Callable[[Path], Answer]:
    """Not again for a file that has not changed: a resume asks several times, of gigabytes."""
    answers: dict[tuple[str, int, int, int], Answer] = {}

    @wraps(check)
    def remembering(path: Path) -> Answer:
        stat = path.stat()
        key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if key not in answers:
            answer = check(path)
            # A file's clock ticks in milliseconds: what is written twice in a tick looks unchanged.
            if time.time_ns() - stat.st_mtime_ns < 2 * 10**9:
                return answer
            answers[key] = answer
        return answers[key]

    return remembering


def fault(path: Path, entry: Entry | None) -> str | None:
    """What is wrong with a checkpoint's bytes; None if they are whole.

    Args:
        entry: what is on record of it; without one, its zip must agree with itself.
    """
    try:
        if is_folder(path):
            return folder_fault(path, entry)
        if not path.is_file():
            return "is missing"
        return zip_fault(path) or None if entry is None else file_fault(path, entry)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def file_fault(path: Path, saved: Entry | File) -> str | None:
    size = path.stat().st_size
    if size != saved.bytes:
        return f"has {size:,} bytes that are not a whole checkpoint, {saved.bytes:,} were saved"
    found = sha256(path)
    if found != saved.sha256:
        return (
            f"has {size:,} bytes that are not a whole checkpoint: "
            f"their sha256 is {found}, {saved.sha256} was saved"
        )
    return None


def folder_fault(path: Path, entry: Entry | None) -> str | None:
    """The same of several files; without an entry, they must be what their index says."""
    files = read_index(path)
    if files is None:
        return f"has no whole {INDEX}"
    if entry is not None and sha256(path / INDEX) != entry.sha256:
        return f"has another {INDEX} than was saved"
    for file in files:
        if not (path / file.name).is_file():
            return f"has no {file.name} any more"
        what = file_fault(path / file.name, file)
        if what is None and entry is None:  # whoever wrote the index may have written anything
            what = zip_fault(path / file.name) or None
        if what is not None:
            return f"its {file.name} {what}"
    return None


def check_whole(path: Path) -> None:
    """
    Raises:
        CheckpointError: if the file is missing, or not what was written.
    """
    if not is_checkpoint(path):
        raise CheckpointError(f"{path}: no such checkpoint; see the folder's other files")
    manifest = read_manifest(path.parent)
    on_record = {entry.file: entry for entry in manifest.checkpoints} if manifest else {}
    what = fault(path, on_record.get(path.name))
    if what is not None:
        raise CheckpointError(f"{path}: {what}; take another one")


@once_a_file
def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@once_a_file
def zip_fault(path: Path) -> str:
    """What contradicts itself in a file as torch writes it: a zip that is not compressed."""
    size = path.stat().st_size
    damaged = f"has {size:,} bytes that are not a whole checkpoint"
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            # Whatever is to be unpacked can be larger than the file, up to all of memory.
            is_plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not is_plain or sum(member.file_size for member in members) > size:
                return damaged
            return damaged if file.testzip() is not None else ""
    except Exception as error:
        # Damage shows as half a dozen types, and as an OSError where an offset has become absurd.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        return damaged
