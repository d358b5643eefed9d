"""Token files are read through before they are trusted: their checksums and their largest ids."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.errors import DataError
from gpt2lab.tokenizer import Tokenizer

VERIFIED = "verified.json"
# A split up to this size is read through at every start: about a second. Of a larger one, the
# files that have not changed since they were last read through are taken for good.
ALWAYS_READ_BYTES = 2**30
CHUNK_IDS = 2**20

PREPARE = "remove its folder, and prepare the corpus again"


@dataclass(frozen=True)
class TokenFile:
    """Where the ids of one file lie, its size being right."""

    path: Path
    dtype: str
    tokens: int
    offset: int = 0
    sha256: str | None = None
    """What the manifest says of the whole file; None where nothing is recorded."""

    def open(self) -> NDArray[Any]:
        return np.memmap(self.path, self.dtype, "r", self.offset, (self.tokens,))


@dataclass(frozen=True)
class Content:
    """What reading a file through has shown, and by which one can tell that it has not changed."""

    size: int
    mtime_ns: int
    sha256: str
    largest_id: int


def check(folder: Path, split: Sequence[TokenFile], tokenizer: Tokenizer) -> list[Content]:
    """What the files of a split hold.

    Raises:
        DataError: if a checksum is not the recorded one, or an id is beyond the vocabulary.
    """
    is_large = sum(size_of(file.path) for file in split) > ALWAYS_READ_BYTES
    known = _read_verified(folder) if is_large else {}
    contents = []
    for file in split:
        stat = file.path.stat()
        content = known.get(file.path.name)
        if content is None or (content.size, content.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            content = _read_through(file)
        if file.sha256 is not None and content.sha256 != file.sha256:
            raise DataError(
                f"{file.path}: has sha256 {content.sha256[:12]}..., its manifest says "
                f"{file.sha256[:12]}...: it has changed since it was written; {PREPARE}"
            )
        if content.largest_id >= tokenizer.vocab_size:
            raise DataError(
                f"{file.path}: holds id {content.largest_id}, {tokenizer.kind} has ids below "
                f"{tokenizer.vocab_size}; give ids of that vocabulary"
            )
        contents.append(content)
    if is_large:
        names = [file.path.name for file in split]
        _write_verified(folder, known | dict(zip(names, contents, strict=True)))
    return contents


def _read_through(file: TokenFile) -> Content:
    """Checksum of the whole file and largest of its ids, in one reading and little memory."""
    stat = file.path.stat()
    digest = hashlib.sha256()
    largest = 0
    with file.path.open("rb") as header:
        digest.update(header.read(file.offset))
    ids = np.asarray(file.open())
    for start in range(0, len(ids), CHUNK_IDS):
        chunk = ids[start : start + CHUNK_IDS]
        digest.update(chunk.data)
        largest = max(largest, int(chunk.max()))
    return Content(stat.st_size, stat.st_mtime_ns, digest.hexdigest(), largest)


def _read_verified(folder: Path) -> dict[str, Content]:
    """What is known of files by name; nothing where the record cannot be read."""
    try:
        record = json.loads((folder / VERIFIED).read_bytes())
        return {name: Content(**content) for name, content in record.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_verified(folder: Path, known: dict[str, Content]) -> None:
    text = json.dumps({name: asdict(content) for name, content in known.items()}, indent=1)
    temporary = folder / f".{VERIFIED}.tmp"
    # A record that saves time, no more: a folder that cannot be written is read through each time.
    with contextlib.suppress(OSError):
        try:
            temporary.write_text(text)
            temporary.replace(folder / VERIFIED)
        finally:
            temporary.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file.

    Raises:
        DataError: if it cannot be read or is empty.
    """
    try:
        # A pipe would be waited for without an end.
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is no ordinary file; give a token file that can be read")
        with path.open("rb") as file:
            size = file.seek(0, 2)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {what}; give a token file that can be read") from error
    if size == 0:
        raise DataError(f"{path}: is empty, at least 2 ids are needed; give a file of ids")
    return size
