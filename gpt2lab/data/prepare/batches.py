"""Documents into batches of text, each bound for the training or the validation split.

A batch is a pure function of the documents, so that a preparation that was killed can count the
batches it has written, and go on behind them.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from gpt2lab.data.prepare.files import Document, chunks_of
from gpt2lab.data.prepare.sources import Source
from gpt2lab.errors import DataError

BATCH_CHARS = 2**20  # as many MB at least, four times as many where a text holds emoji
TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class TextBatch:
    """Texts that one process turns into ids at once."""

    texts: list[str]
    split: str | None
    """TRAIN or VAL for all of them; None where each is a document to be split by its hash."""
    ends: bool = True
    """Whether each text ends its document."""
    position: int = 0
    """How far the source was read for it."""


def is_val(text: bytes, val_share: float) -> bool:
    """Whether a document is evaluated: by its content alone, on every machine the same."""
    return _is_below(hashlib.blake2b(text, digest_size=8).digest(), val_share)


def _is_below(digest: bytes, val_share: float) -> bool:
    return int.from_bytes(digest, "little") < val_share * 2.0**64


def batches(source: Source, is_single: bool, val_share: float) -> Iterator[TextBatch]:
    """Everything there is to write, in order.

    Args:
        is_single: whether the corpus is one document, which is split by position.
    """
    if source.has_val:
        yield from _of_documents(source, source.documents(), TRAIN, val_share)
        yield from _of_documents(source, source.documents(val=True), VAL, val_share)
    elif is_single:
        yield from _of_one(source, next(source.documents()), val_share)
    else:
        yield from _of_documents(source, source.documents(), None, val_share)


def _of_one(source: Source, document: Document, val_share: float) -> Iterator[TextBatch]:
    """The first characters to train on, the last to evaluate, as nanoGPT splits a file."""
    length = sum(map(len, chunks_of(document)))
    border = int(length * (1 - val_share))
    if not 0 < border < length:
        raise DataError(
            f"{source.title}: its {length:,} characters are too few for data.val_share={val_share} "
            "to leave some of them on either side; give more text"
        )
    for split, start, stop in ((TRAIN, 0, border), (VAL, border, length)):
        parts = pieces(between(chunks_of(document), start, stop), BATCH_CHARS)
        yield from _long(source, parts, split)


def _of_documents(
    source: Source, documents: Iterable[Document], split: str | None, val_share: float
) -> Iterator[TextBatch]:
    texts: list[str] = []
    held = 0
    for document in documents:
        if isinstance(document, str) and len(document) <= BATCH_CHARS:
            texts.append(document)
            held += len(document)
            if held >= BATCH_CHARS:
                yield TextBatch(texts, split, position=source.position)
                texts, held = [], 0
            continue
        if texts:
            yield TextBatch(texts, split, position=source.position)
            texts, held = [], 0
        parts = pieces(chunks_of(document), BATCH_CHARS)
        yield from _long(source, parts, split or _split_of(document, val_share))
    if texts:
        yield TextBatch(texts, split, position=source.position)


def _split_of(document: Document, val_share: float) -> str:
    """`is_val` of a document that is read for it from its beginning to its end."""
    digest = hashlib.blake2b(digest_size=8)
    for chunk in chunks_of(document):
        digest.update(chunk.encode())
    return VAL if _is_below(digest.digest(), val_share) else TRAIN


def _long(source: Source, parts: Iterator[str], split: str) -> Iterator[TextBatch]:
    """One document, a batch for each part of it."""
    part = next(parts, None)
    while part is not None:
        following = next(parts, None)
        yield TextBatch([part], split, ends=following is None, position=source.position)
        part = following


def between(chunks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """The characters start..stop of a text that comes in chunks."""
    at = 0
    for chunk in chunks:
        if part := chunk[max(start - at, 0) : max(stop - at, 0)]:
            yield part
        at += len(chunk)
        if at >= stop:
            return


# A pre-tokenizer piece of GPT-2 may begin with whitespace, but never holds any behind a
# character that is none: between the two a text can be cut without changing its ids. Python's \S
# leaves out more than the pre-tokenizer's (the separators 1C to 1F), never less.
_BORDER = re.compile(r"(?<=\S)[ \t\n\r\f\v]")


def pieces(chunks: Iterable[str], size: int) -> Iterator[str]:
    """The same text in pieces of `size` characters or more, whose ids are those of the whole.

    Where no place to cut is found, a piece grows until there is one.
    """
    held: list[str] = []
    length = 0
    for chunk in chunks:
        # The last character held says whether the chunk's first one is a border.
        before = held[-1][-1] if held else ""
        border = _last_border(before + chunk) - len(before)
        if border >= 0 and length + border >= size:
            yield "".join(chain(held, [chunk[:border]]))
            chunk, held, length = chunk[border:], [], 0
        held.append(chunk)
        length += len(chunk)
    if held:
        yield "".join(held)


def _last_border(text: str) -> int:
    """Where the last border is, or -1 - len(text); looked for from the end, in growing steps."""
    width = 256
    while True:
        start = max(len(text) - width, 0)
        found = [match.start() for match in _BORDER.finditer(text, max(start, 1))]
        if found:
            return found[-1]
        if start == 0:
            return -1 - len(text)
        width *= 16
