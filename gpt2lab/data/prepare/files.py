"""Documents out of local files: .txt, .jsonl, .parquet, and the first two as .gz or .zst.

A `.txt` is one document, and so is a line of `.jsonl` and a row of `.parquet`. Bytes that are not
UTF-8 are refused with their place in the (unpacked) file, or replaced and counted.
"""

import codecs
import glob
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gpt2lab.durable import at_home
from gpt2lab.errors import DataError

CHUNK_BYTES, BUFFER_BYTES = 2**20, 2**20
PARQUET_ROWS = 1024
LINES_A_POSITION = 256

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_KINDS = (".txt", ".jsonl", ".parquet")
KNOWN = ".txt, .jsonl, .parquet, .txt.gz, .jsonl.gz, .txt.zst or .jsonl.zst"

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class LongText:
    """A document too long to be held at once; `chunks` reads it anew each time."""

    chunks: Callable[[], Iterator[str]]


Document = str | LongText


def chunks_of(document: Document) -> Iterator[str]:
    if isinstance(document, LongText):
        return document.chunks()
    starts = range(0, len(document), CHUNK_BYTES)
    return (document[start : start + CHUNK_BYTES] for start in starts)


def kind_of(path: Path) -> tuple[str, str | None] | None:
    """('.txt', 'gzip') for book.txt.gz; None for a name of another kind."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    codec = _CODECS.get(suffixes[-1]) if suffixes else None
    kind = "".join(suffixes[-2:-1] if codec else suffixes[-1:])
    if kind not in _KINDS or (codec and kind == ".parquet"):
        return None
    return kind, codec


def local_files(path: str) -> list[Path]:
    """The files that a file, folder or glob names, sorted by name.

    Raises:
        DataError: if there are none that can be read, or nothing but empty ones.
    """
    root = Path(at_home(path))
    if root.is_file():
        if kind_of(root) is None:
            raise DataError(f"{path}: is of an unknown kind; give {KNOWN}")
        files = [root]
    elif root.is_dir():
        files = once(p for p in root.rglob("*") if p.is_file() and kind_of(p))
    elif glob.has_magic(path):
        found = map(Path, glob.glob(str(root), recursive=True))  # noqa: PTH207 (it takes a whole path)
        files = once(p for p in found if p.is_file() and kind_of(p))
    elif root.exists():
        raise DataError(f"{path}: is no file and no folder; set data.path to one, or to a glob")
    else:
        raise DataError(f"{path}: does not exist; set data.path to a file, a folder or a glob")
    if not files:
        raise DataError(f"{path}: there is no text file; give one or several {KNOWN}")
    if not any(file.stat().st_size for file in files):
        raise DataError(f"{path}: is empty; give text to train on")
    return files


def once(paths: Iterable[Path]) -> list[Path]:
    """Each file once, sorted by name, though links lead to it in several ways."""
    by_file = {path.resolve(): path for path in sorted(paths, reverse=True)}
    return sorted(by_file.values())


@dataclass
class FileReader:
    """Reads files one after another, and knows how far it is."""

    files: list[Path]
    text_field: str = "text"
    errors: str = "strict"
    """strict, or replace."""
    position: int = 0
    """Bytes read of all files, as they are on disk."""
    replaced: dict[Path, int] = field(default_factory=dict)
    """Stretches of bytes that were not UTF-8, by file."""

    def documents(self) -> Iterator[Document]:
        """Every document with text in it, in order.

        Raises:
            DataError: naming file and place of what cannot be read.
        """
        before = 0
        for path in self.files:
            kind, codec = kind_of(path) or (".txt", None)
            read = {".txt": self._txt, ".jsonl": self._jsonl, ".parquet": self._parquet}[kind]
            with _told(path):
                size = path.stat().st_size
            self.replaced.pop(path, None)
            yield from read(path, codec, before)
            before += size
            self.position = before

    def _txt(self, path: Path, codec: str | None, before: int) -> Iterator[Document]:
        chunks = self._text_chunks(path, codec, before)
        first, second = next(chunks, ""), next(chunks, None)
        chunks.close()
        if second is not None:
            yield LongText(lambda: self._text_chunks(path, codec, before))
        elif first:
            yield first

    def _text_chunks(self, path: Path, codec: str | None, before: int) -> Any:
        """The text of one file, decoded in pieces of about CHUNK_BYTES."""
        decoder = codecs.getincrementaldecoder("utf-8")(self.errors)
        offset = replaced = 0
        with _opened(path, codec) as (raw, stream):
            while True:
                with _told(path):
                    data = stream.read(CHUNK_BYTES)
                    self.position = before + raw.tell()
                held = decoder.getstate()[0]  # the beginning of a character that the last one cut
                try:
                    text = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, offset - len(held) + error.start) from error
                offset += len(data)
                if self.errors == "replace" and _REPLACEMENT in text:
                    whole = held + data
                    replaced += text.count(_REPLACEMENT) - whole.count(_REPLACEMENT.encode())
                    self.replaced[path] = replaced
                if text:
                    yield text
                if not data:
                    return

    def _jsonl(self, path: Path, codec: str | None, before: int) -> Iterator[Document]:
        offset = 0
        with _opened(path, codec) as (raw, stream), _told(path):
            for number, line in enumerate(stream, 1):
                # Asking the system at each line would cost a tenth of the reading.
                if number % LINES_A_POSITION == 0:
                    self.position = before + raw.tell()
                text = self._decoded(path, line, offset)
                offset += len(line)
                if text.isspace():
                    continue
                if value := self._field(f"{path}:{number}", text):
                    yield value

    def _field(self, place: str, line: str) -> str:
        """The text in one line of .jsonl."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: is not JSON ({error}); mend or remove the line") from error
        value = row.get(self.text_field) if isinstance(row, dict) else None
        if not isinstance(value, str):
            has = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
            raise DataError(
                f"{place}: has no text in field {self.text_field!r}, but {has or 'nothing'}; "
                "set data.text_field"
            )
        # JSON can escape half of a surrogate pair (D800 to DFFF), which is no character.
        if not value.isascii() and ("\\ud" in line or "\\uD" in line):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                if self.errors == "strict":
                    half = f"{ord(value[error.start]):04x}"
                    raise DataError(
                        f"{place}: \\u{half} is half of a character; mend the line, or set "
                        "data.errors=replace"
                    ) from error
                return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value

    def _parquet(self, path: Path, codec: str | None, before: int) -> Iterator[Document]:
        import pyarrow
        from pyarrow import parquet

        with _told(path), parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if self.text_field not in schema.names:
                raise DataError(
                    f"{path}: has no column {self.text_field!r}, but {', '.join(schema.names)}; "
                    "set data.text_field"
                )
            rows, size, number = file.metadata.num_rows, path.stat().st_size, 0
            for batch in file.iter_batches(PARQUET_ROWS, columns=[self.text_field]):
                values = batch.column(0)
                try:
                    column = values.to_pylist()
                except UnicodeDecodeError:  # Arrow itself does not look whether texts are UTF-8
                    column = values.cast(pyarrow.large_binary()).to_pylist()
                for number, value in enumerate(column, number + 1):  # noqa: B020
                    if isinstance(value, bytes):
                        value = self._decoded(path, value, 0, f"row {number}, ")
                    if not isinstance(value, str):
                        raise DataError(
                            f"{path}: row {number} has no text in column {self.text_field!r}; "
                            "remove the row"
                        )
                    self.position = before + size * number // rows
                    if value:
                        yield value

    def _decoded(self, path: Path, data: bytes, offset: int, row: str = "") -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            if self.errors == "strict":
                raise _not_utf8(path, offset + error.start, row) from error
        text = data.decode(errors="replace")
        replaced = text.count(_REPLACEMENT) - data.count(_REPLACEMENT.encode())
        self.replaced[path] = self.replaced.get(path, 0) + replaced
        return text


def _not_utf8(path: Path, offset: int, row: str = "") -> DataError:
    return DataError(
        f"{path}: {row}byte {offset:,} is not UTF-8; save the file as UTF-8, or set "
        "data.errors=replace"
    )


@contextmanager
def _opened(path: Path, codec: str | None) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file as it is, which tells the position, and its unpacked bytes."""
    with _told(path):
        raw = path.open("rb", buffering=BUFFER_BYTES)
    with raw:
        if codec is None:
            yield raw, raw
        else:
            import pyarrow

            # BufferedReader reads until it has all that was asked for; gzip and zstd files of
            # several members, which many tools write, are read to their end.
            with pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), codec) as stream:
                yield raw, io.BufferedReader(stream, BUFFER_BYTES)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A file that the system or Arrow cannot read is an error of ours that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        what = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"{path}: cannot be read ({what}); see whether it is whole") from error
