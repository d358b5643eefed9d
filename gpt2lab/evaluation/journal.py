"""What was scored already, kept as it comes, so that a killed evaluation can go on.

A file of lines, each with its own checksum. One that is cut or changed is never believed: its items
are scored again. A journal belongs to one evaluation by its file's name, in which is the
fingerprint of all that decides numbers; batches are none of that.
"""

import json
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gpt2lab.errors import RunError

Records = dict[int, dict[str, Any]]
"""By the item's number."""


class Journal:
    """Records of items, on disk at once.

    Args:
        path: made when the first record comes; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = read(path)
        # A line that a kill has cut off must not swallow the next one.
        self._lead = "\n" if path.exists() and not path.read_bytes().endswith(b"\n") else ""
        self._file: Any = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, records: Mapping[int, dict[str, Any]]) -> None:
        """Records of a batch.

        Raises:
            RunError: if they cannot be written, with the system's reason.
        """
        text = self._lead + "".join(line(number, record) for number, record in records.items())
        try:
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            self._file.write(text.encode())  # one call: a signal comes before it or after
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}), {len(text):,} bytes are "
                "needed; make room, or choose another folder with to="
            ) from error
        self._lead = ""
        self.records |= records

    def has(self, numbers: Iterable[int]) -> bool:
        """Whether all of these items have a record."""
        return all(number in self.records for number in numbers)

    def remove(self) -> None:
        """Once what it was kept for is written."""
        self.path.unlink(missing_ok=True)


def line(number: int, record: Mapping[str, Any]) -> str:
    """`<checksum> <number> <record>`; Python's JSON gives a float back bit for bit."""
    content = f"{number} {json.dumps(record)}"
    return f"{zlib.crc32(content.encode()):08x} {content}\n"


def read(path: Path) -> Records:
    """Every whole record; warns of lines that are not."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    found, damaged = {}, 0
    for each in filter(None, lines):
        try:
            checksum, content = each.decode().split(" ", 1)
            if checksum != f"{zlib.crc32(content.encode()):08x}":
                raise ValueError
            number, record = content.split(" ", 1)
            found[int(number)] = json.loads(record)
        except ValueError:
            damaged += 1
    if damaged:
        warnings.warn(
            f"{path}: {damaged} of its lines are cut or damaged; what they stood for is scored "
            "again",
            stacklevel=2,
        )
    return found
