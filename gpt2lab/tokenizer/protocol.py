"""What every tokenizer offers, and the checks of text and ids that all share."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt2lab.errors import ConfigError, DataError

END_OF_TEXT = "<|endoftext|>"


class Tokenizer(Protocol):
    """Text to ids and back; V = vocab_size."""

    kind: str
    vocab_size: int
    end_of_text: int | None
    """The id that ends a document, where the vocabulary has one."""
    fingerprint: str
    """Equal for two tokenizers exactly when they give every text the same ids."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of a text, in which `<|endoftext|>` is the special id only if allowed.

        Raises:
            DataError: for what has no id: lone surrogates, characters that are not known.
        """

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """The same as an array (T,), which may be read-only; special tokens are plain text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD.

        A model may have more ids than its tokenizer: such a one shows as its number.

        Raises:
            DataError: for a negative id.
        """

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The same before it is read as UTF-8: a token may end within a character."""

    def bytes_per_token(self) -> NDArray[np.int64]:
        """UTF-8 bytes that each id stands for, (V,); 0 for the end of text."""

    def plain(self) -> dict[str, Any]:
        """What `from_plain` makes the same tokenizer of, in JSON's types."""


def encode_parts(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text whose every `<|endoftext|>` is the special id, each part encoded by itself."""
    assert tokenizer.end_of_text is not None
    ids: list[int] = []
    for part in text.split(END_OF_TEXT):
        ids += [*tokenizer.encode_array(part).tolist(), tokenizer.end_of_text]
    return ids[:-1]  # one end fewer than parts


def code_points(text: str) -> NDArray[np.uint32]:
    """Code points of a text, (characters,).

    Raises:
        DataError: for a lone surrogate.
    """
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        refuse_surrogate(error)


def refuse_surrogate(error: UnicodeEncodeError) -> NoReturn:
    """Surrogates come from broken JSON escapes, or from files read with errors=surrogateescape."""
    code = ord(error.object[error.start])
    raise DataError(
        f"text: half a character, the surrogate U+{code:04X}, at index {error.start} has "
        'no bytes in UTF-8; mend the text, or replace it: text.encode(errors="replace").decode()'
    ) from error


def bytes_of(
    ids: Iterable[int], vocab_size: int, decode: Callable[[NDArray[np.int64]], bytes]
) -> bytes:
    """The text of ids, in which one beyond the tokenizer's shows as its number: `<|50257|>`.

    Args:
        decode: the bytes of ids (n,) that are the tokenizer's.
    Raises:
        DataError: for a negative one.
    """
    tokens = np.fromiter(ids, dtype=np.int64)
    if len(tokens) and tokens.min() < 0:
        raise DataError(
            f"ids: {tokens[tokens < 0][0]} is none of the tokenizer's; give 0 to {vocab_size - 1}"
        )
    text, start = b"", 0
    for place in np.flatnonzero(tokens >= vocab_size).tolist():
        text += decode(tokens[start:place]) + f"<|{tokens[place]}|>".encode()
        start = place + 1
    return text + decode(tokens[start:])


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int | None) -> None:
    """
    Raises:
        ConfigError: if a model has fewer ids, which cannot stand for the text. It may have more,
            as room for tokens of one's own.
    """
    if vocab_size is not None and vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size: is {vocab_size}, the data's tokenizer has "
            f"{tokenizer.vocab_size} ids; set it to null"
        )


def fingerprint_of(kind: str, *deciding: str) -> str:
    """A name for what decides the ids, each part behind its length so that none runs over."""
    content = "".join(f"{len(part)}:{part}" for part in deciding)
    return f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
