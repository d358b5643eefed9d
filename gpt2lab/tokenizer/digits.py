"""One id a number, for tasks whose tokens are numbers already."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.errors import DataError
from gpt2lab.tokenizer.protocol import fingerprint_of

MOST_DIGITS = 65_536
LONGEST_SHOWN = 40


class DigitTokenizer:
    """The digits 0 .. num_digits - 1, each its own id; beyond ten, a digit is a number.

    They are written apart: "2 0 1 1 0 2", or with commas.
    """

    kind = "digits"
    end_of_text: int | None = None

    def __init__(self, num_digits: int) -> None:
        if not 1 <= num_digits <= MOST_DIGITS:
            raise DataError(
                f"tokenizer.num_digits: {num_digits} is out of range; choose 1 to {MOST_DIGITS}"
            )
        self.vocab_size = num_digits
        self.fingerprint = fingerprint_of(self.kind, str(num_digits))
        self._ids = {str(digit): digit for digit in range(num_digits)}

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        words = text.replace(",", " ").split()
        for word in words:
            if word not in self._ids:
                raise DataError(
                    f"text: {shortened(word)!r} is none of the digits 0 to {self.vocab_size - 1}; "
                    "write them with spaces between them"
                )
        return [self._ids[word] for word in words]

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        return np.array(self.encode(text), dtype=np.uint32)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids with spaces between them. One beyond the digits is shown as it is: a model may have
        more ids than its task has digits."""
        numbers = np.fromiter(ids, dtype=np.int64).tolist()
        if (lowest := min(numbers, default=0)) < 0:
            raise DataError(
                f"ids: {lowest} is none of the tokenizer's; give 0 to {self.vocab_size - 1}"
            )
        return " ".join(map(str, numbers))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return self.decode(ids).encode()

    def bytes_per_token(self) -> NDArray[np.int64]:
        """Of the digits alone: the spaces between them are nobody's."""
        return np.array([len(word) for word in self._ids], dtype=np.int64)

    def plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "num_digits": self.vocab_size}


def shortened(word: str) -> str:
    return word if len(word) <= LONGEST_SHOWN else f"{word[:LONGEST_SHOWN]}..."
