"""Data of a task out of local files, whole: texts and rows, each with the place it stands at."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpt2lab.data.jsonl import Row, decoded, opened, row_of, whole
from gpt2lab.errors import DataError

BOM = b"\xef\xbb\xbf"


class Text(NamedTuple):
    """A text and where it is from, for messages."""

    place: str
    text: str


def files_of(data: str) -> list[Path]:
    """The files that a file, folder or glob names, sorted by name; hidden ones are left out.

    Raises:
        DataError: if there are none, or all are empty.
    """
    path = Path(data)
    if path.is_dir():
        files = [p for p in path.rglob("*") if not p.name.startswith(".")]
    elif path.exists():
        files = [path]
    elif glob.has_magic(data):
        files = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    else:
        raise DataError(f"data: {data} does not exist; give a file, a folder or a glob")
    files = sorted(p for p in files if p.is_file())
    if not files:
        raise DataError(f"data: {data} holds no file; give a file, a folder or a glob of them")
    if not any(p.stat().st_size for p in files):
        raise DataError(f"data: {data} is empty; give one with text in it")
    return files


def one_file(data: str, wanted: str) -> Path:
    """
    Raises:
        DataError: if it is not one file; `wanted` says of what kind.
    """
    files = files_of(data)
    if len(files) > 1 or Path(data).is_dir():
        raise DataError(f"data: {data} is no single file; give {wanted}")
    return files[0]


def content_of(path: Path) -> bytes:
    """A file's bytes, unpacked.

    Raises:
        DataError: if the system cannot read them, or they are not what the file's name says.
    """
    try:
        with opened(path) as file:
            return file.read()
    except (OSError, ValueError) as error:
        what = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"{path}: cannot be read ({what}); see whether it is whole") from error


def text_of(path: Path) -> str:
    """
    Raises:
        DataError: naming the first byte that is not UTF-8.
    """
    return decoded(content_of(path), str(path))


def rows_of(path: Path) -> Iterator[Row]:
    """The objects of a .jsonl file, one a line.

    Raises:
        DataError: naming the line that is none.
    """
    offset = 0
    content = content_of(path)
    if content.startswith(BOM):
        content, offset = content.removeprefix(BOM), len(BOM)
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield row_of(line, f"{path}:{number}", offset, "mend the line")
        offset += len(line) + 1


def texts(row: Row, name: str) -> list[str]:
    """A list of texts of a row, at least one.

    Raises:
        DataError: if there is none.
    """
    value = row.fields.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise DataError(f"{row.place}: has no list of texts in field {name}; add it")
    return [whole(x, row.place, name) for x in value]
