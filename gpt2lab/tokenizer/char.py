"""One id a character."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.errors import DataError
from gpt2lab.tokenizer.protocol import (
    END_OF_TEXT,
    bytes_of,
    code_points,
    encode_parts,
    fingerprint_of,
)

CODE_POINTS = 0x110000
UNKNOWN = np.iinfo(np.uint32).max


class CharTokenizer:
    """One id a character, in code-point order; the end of text, if wanted, is the last id."""

    kind = "char"

    def __init__(self, characters: str, end_of_text: bool = False) -> None:
        self.characters = characters_of([characters])
        count = len(self.characters)
        if not count:
            raise DataError("tokenizer.characters: there are none; give a text that is not empty")
        self.end_of_text = count if end_of_text else None
        self.vocab_size = count + int(end_of_text)
        self.fingerprint = fingerprint_of(self.kind, self.characters, str(end_of_text))
        self._ids = np.full(CODE_POINTS, UNKNOWN, dtype=np.uint32)
        self._ids[code_points(self.characters)] = np.arange(count)
        self._strings = np.array([*self.characters, END_OF_TEXT], dtype=object)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        if not allow_special or self.end_of_text is None:
            return self.encode_array(text).tolist()
        # refuses unknown characters by their index in the whole text, of which the end is none
        self.encode_array(text.replace(END_OF_TEXT, self.characters[0] * len(END_OF_TEXT)))
        return encode_parts(self, text)

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        ids = self._ids[code_points(text)]
        if len(ids) and ids.max() == UNKNOWN:
            place = int(ids.argmax())
            raise DataError(
                f"text: the character {text[place]!r} (U+{ord(text[place]):04X}) at index "
                f"{place} is none of the {len(self.characters)} that the tokenizer knows; "
                "leave it out, or prepare the data with it"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return self.decode_bytes(ids).decode()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        strings = self._strings
        return bytes_of(ids, self.vocab_size, lambda tokens: "".join(strings[tokens]).encode())

    def bytes_per_token(self) -> NDArray[np.int64]:
        lengths = [len(character.encode()) for character in self.characters]
        return np.array(lengths + [0] * (self.end_of_text is not None), dtype=np.int64)

    def plain(self) -> dict[str, Any]:
        has_end = self.end_of_text is not None
        return {"kind": self.kind, "characters": self.characters, "end_of_text": has_end}


def characters_of(texts: Iterable[str]) -> str:
    """The distinct characters of all texts, in code-point order.

    Raises:
        DataError: for a lone surrogate.
    """
    seen = np.zeros(CODE_POINTS, dtype=bool)
    for text in texts:
        seen[code_points(text)] = True
    return np.flatnonzero(seen).astype("<u4").tobytes().decode("utf-32-le")
