"""Where documents come from: local files, a download, a Hugging Face dataset, Python's own docs."""

import hashlib
import http.client
import os
import platform
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Any, Protocol

from gpt2lab.config import TextConfig, TextSource
from gpt2lab.data.prepare import builtin
from gpt2lab.data.prepare.files import KNOWN, Document, FileReader, kind_of, local_files
from gpt2lab.durable import at_home
from gpt2lab.errors import DataError

HUB_ROWS = 1000
TIMEOUT_S = 30


class Source(Protocol):
    """Documents in a fixed order, as often as they are asked for."""

    title: str
    """What stands in messages."""
    has_val: bool
    """Whether documents to evaluate come apart from those to train on."""

    @property
    def total(self) -> int | None:
        """What `position` counts up to; None where nobody knows."""

    @property
    def position(self) -> int:
        """How far the documents have been read."""

    def documents(self, val: bool = False) -> Iterator[Document]: ...

    def files(self) -> list[Path]:
        """The local files that are read."""

    def replaced(self) -> int:
        """Stretches of bytes read that were not UTF-8."""


def open_source(config: TextConfig, data_dir: Path) -> Source:
    """The documents that the settings name; a download comes first.

    Raises:
        DataError: if there are none, before any is read.
    """
    if config.source is TextSource.builtin:
        return BuiltinSource()
    if config.source is TextSource.hub:
        return HubSource(config)
    path = config.path
    if path is None:
        path = str(download(_given_url(config), data_dir))
    return FilesSource(path, FileReader(local_files(path), config.text_field, config.errors.name))


def deciding(config: TextConfig) -> dict[str, Any]:
    """The settings that decide which ids are written, as plain values."""
    chosen: dict[str, Any] = {"kind": config.source.name}
    if config.source is TextSource.builtin:
        chosen["python"] = platform.python_version()
    elif config.source is TextSource.hub:
        names = ("dataset", "dataset_config", "dataset_split", "val_split", "text_field")
        chosen |= {name: getattr(config, name) for name in names}
        if Path(str(config.dataset)).is_dir():
            chosen["dataset"] = os.path.abspath(str(config.dataset))  # noqa: PTH100
    else:
        here = config.path and os.path.abspath(at_home(config.path))  # noqa: PTH100
        chosen |= {"path": here} if here else {"url": config.url}
        chosen |= {"text_field": config.text_field, "errors": config.errors.name}
    return chosen | {"tokenizer": config.tokenizer.name, "val_share": config.val_share}


def stem(config: TextConfig) -> str:
    """A readable name of the source, fit for a folder's name."""
    if config.source is TextSource.builtin:
        name = "builtin"
    elif config.source is TextSource.hub:
        name = name_and_revision(config)[0].rstrip("/").rpartition("/")[2]
    else:
        path = config.path or urllib.parse.urlsplit(_given_url(config)).path
        parts = [part for part in Path(at_home(path)).parts if not has_magic(part)]
        name = parts[-1] if parts else ""
        if kind_of(Path(name)):
            name = name.partition(".")[0]
    return re.sub(r"[^\w-]+", "-", name, flags=re.ASCII).strip("-") or "text"


@dataclass
class FilesSource:
    title: str
    reader: FileReader
    has_val: bool = False

    @property
    def total(self) -> int | None:
        return sum(path.stat().st_size for path in self.reader.files)

    @property
    def position(self) -> int:
        return self.reader.position

    def documents(self, val: bool = False) -> Iterator[Document]:
        return self.reader.documents()

    def files(self) -> list[Path]:
        return self.reader.files

    def replaced(self) -> int:
        return sum(self.reader.replaced.values())


@dataclass
class BuiltinSource:
    title: str = "Python's own documentation"
    has_val: bool = False
    total: int | None = None
    position: int = 0

    def documents(self, val: bool = False) -> Iterator[Document]:
        return builtin.documents()

    def files(self) -> list[Path]:
        return []

    def replaced(self) -> int:
        return 0


@dataclass
class HubSource:
    """A dataset as `datasets` reads it, from its hub, its cache or a local folder."""

    config: TextConfig
    position: int = 0
    total: int | None = None
    _loaded: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.config.dataset is None:
            raise DataError("data.dataset: is null; name a dataset, or a folder of one")
        self.title = f"dataset {self.config.dataset}"
        self.has_val = self.config.val_split is not None
        splits = [self._load(split) for split in self._splits()]
        if not self.config.streaming:
            self.total = sum(len(split) for split in splits)

    def documents(self, val: bool = False) -> Iterator[Document]:
        """The texts of one split, in its order."""
        train, *rest = self._splits()
        name = rest[0] if val else train
        column = self.config.text_field
        row = 0
        self.position = len(self._load(train)) if val and self.total is not None else 0
        for batch in _told(self.title, self._load(name).iter(HUB_ROWS)):
            if column not in batch:
                raise _no_column(self.title, column, batch)
            for text in batch[column]:
                row += 1
                self.position += 1
                if not isinstance(text, str):
                    raise DataError(
                        f"{self.title}: row {row:,} of {name} has no text in {column!r}; "
                        "set data.text_field"
                    )
                if text:
                    yield text

    def files(self) -> list[Path]:
        """Those of a local folder, which can change; the hub's are taken as they are."""
        return dataset_files(self.config)

    def replaced(self) -> int:
        return 0

    def _splits(self) -> list[str]:
        val = self.config.val_split
        return [self.config.dataset_split, *([val] if val else [])]

    def _load(self, split: str) -> Any:
        if split not in self._loaded:
            self._loaded[split] = _load_split(self.config, split)
        return self._loaded[split]


def _told(title: str, batches: Iterator[Any]) -> Iterator[Any]:
    """What `datasets` complains of while it reads is an error of ours."""
    try:
        yield from batches
    # Errors of many libraries, as in _load_split.
    except Exception as error:
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"{title}: cannot be read: {what}; see whether it is whole") from error


def name_and_revision(config: TextConfig) -> tuple[str, str | None]:
    """('owner/name', 'v2') of owner/name@v2; a folder is a name as a whole."""
    whole = str(config.dataset)
    name, _, revision = (whole, "", "") if Path(whole).is_dir() else whole.partition("@")
    return name, revision or None


def dataset_files(config: TextConfig) -> list[Path]:
    """The files of a dataset that is a local folder; none for one of the hub."""
    folder = Path(str(config.dataset))
    return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


def _load_split(config: TextConfig, split: str) -> Any:
    """One split of a dataset, with the text's column alone where the columns are known.

    Raises:
        DataError: whatever `datasets` complains of: a name, a split, the network.
    """
    import datasets  # a second to load, and only this needs it

    name, revision = name_and_revision(config)
    try:
        loaded = datasets.load_dataset(
            name,
            config.dataset_config,
            split=split,
            streaming=config.streaming,
            revision=revision,
        )
    # `datasets` raises errors of many libraries: files, http, parsers, its own.
    except Exception as error:
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"data.dataset: {config.dataset} (config {config.dataset_config}, split {split}) "
            f"cannot be loaded: {what}; check the names and the network"
        ) from error
    columns = loaded.column_names
    if columns is None:
        return loaded
    if config.text_field not in columns:
        raise _no_column(f"dataset {config.dataset}", config.text_field, columns)
    return loaded.select_columns([config.text_field])


def _no_column(title: str, column: str, columns: Any) -> DataError:
    return DataError(
        f"{title}: has no column {column!r}, but {', '.join(columns)}; set data.text_field"
    )


def _given_url(config: TextConfig) -> str:
    if config.url is None:
        raise DataError("data.path: is null, and so is data.url; set one of them")
    return config.url


def download(url: str, data_dir: Path) -> Path:
    """The file of a url, fetched into data_dir unless it is there already; whole or not at all.

    Raises:
        DataError: if it cannot be fetched.
    """
    parts = urllib.parse.urlsplit(url)
    name = Path(parts.path).name
    if parts.scheme not in ("http", "https") or kind_of(Path(name)) is None:
        raise DataError(f"data.url: {url} is not the http(s) address of a text file; give {KNOWN}")
    path = data_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
    if path.exists():
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            data_dir.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                shutil.copyfileobj(answer, file)
                file.flush()
                os.fsync(file.fileno())
            expected, found = answer.headers.get("Content-Length"), temporary.stat().st_size
        if expected is not None and found != int(expected):
            raise OSError(f"{found:,} of {int(expected):,} bytes came")
        temporary.replace(path)
    except (OSError, http.client.HTTPException) as error:
        what = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise DataError(
            f"data.url: {url} cannot be downloaded ({what}); check the network, or set data.path "
            "to a copy of the file"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path
