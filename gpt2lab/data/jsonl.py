"""Lines of JSON with texts in them, and where each mistake stands."""

import io
import json
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gpt2lab.errors import DataError

COMPRESSED = (".gz", ".zst")


class Row(NamedTuple):
    """An object of JSON, and where it stands: `file.jsonl:3`."""

    place: str
    fields: dict[str, Any]


def opened(path: Path) -> BinaryIO:
    """The file's bytes, unpacked."""
    if path.suffix not in COMPRESSED:
        return path.open("rb")
    import pyarrow  # here, because a plain file needs no such help

    # pyarrow finds the compression by the file's name; its own streams know no lines.
    return io.BufferedReader(pyarrow.input_stream(str(path)))


def decoded(content: bytes, place: str, offset: int = 0) -> str:
    """
    Args:
        offset: of the content in its file.
    Raises:
        DataError: naming the first byte that is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: byte {offset + error.start:,} (0x{content[error.start]:02x}) is not UTF-8; "
            "save the file as UTF-8"
        ) from error


def row_of(line: bytes, place: str, offset: int, mend: str) -> Row:
    """
    Args:
        mend: what to do about a line that is no object.
    Raises:
        DataError: naming the place, and the byte where bytes are no text.
    """
    text = decoded(line, place, offset)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: is not JSON ({error}); {mend}") from error
    if not isinstance(fields, dict):
        raise DataError(f"{place}: is no JSON object; {mend}")
    return Row(place, fields)


def field(row: Row, name: str) -> str:
    """A text of a row.

    Raises:
        DataError: if there is none.
    """
    if name not in row.fields:
        found = ", ".join(map(str, row.fields)) or "none"
        raise DataError(f"{row.place}: has no field {name} (its fields: {found}); add it")
    value = row.fields[name]
    if not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(f"{row.place}: {name} is {kind}, not text; write it in quotes")
    return whole(value, row.place, name)


def whole(text: str, place: str, name: str) -> str:
    """
    Raises:
        DataError: for half a surrogate pair, which JSON can escape.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        raise DataError(
            f"{place}: {name} holds {half}, half of a surrogate pair; write the whole character"
        ) from error
    return text
