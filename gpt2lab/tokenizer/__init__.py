"""Text to ids and back: GPT-2's byte-pair encoding, characters, digits. Nothing is downloaded."""

from collections.abc import Mapping
from typing import Any

from gpt2lab.errors import DataError
from gpt2lab.tokenizer.char import CharTokenizer, characters_of
from gpt2lab.tokenizer.digits import DigitTokenizer
from gpt2lab.tokenizer.gpt2 import GPT2Tokenizer, gpt2_tokenizer
from gpt2lab.tokenizer.protocol import END_OF_TEXT, Tokenizer, check_vocabulary
from gpt2lab.tokenizer.stages import Explanation, Piece, explain

__all__ = [
    "END_OF_TEXT",
    "CharTokenizer",
    "DigitTokenizer",
    "Explanation",
    "GPT2Tokenizer",
    "Piece",
    "Tokenizer",
    "characters_of",
    "check_vocabulary",
    "explain",
    "from_plain",
    "gpt2_tokenizer",
]


def from_plain(plain: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `plain()` described.

    Raises:
        DataError: if the kind is unknown, or what it needs is missing.
    """
    kind = plain.get("kind") if isinstance(plain, Mapping) else plain
    if kind == GPT2Tokenizer.kind:
        return gpt2_tokenizer()
    if kind == CharTokenizer.kind:
        return _characters(plain)
    if kind == DigitTokenizer.kind:
        return _digits(plain)
    raise DataError(f"tokenizer.kind: {kind!r} is unknown; gpt2lab knows gpt2, char and digits")


def _characters(plain: Mapping[str, Any]) -> CharTokenizer:
    characters, end_of_text = plain.get("characters"), plain.get("end_of_text")
    if not isinstance(characters, str) or not isinstance(end_of_text, bool):
        raise DataError(
            "tokenizer: a character tokenizer needs characters (text) and end_of_text (true or "
            f"false), not {type(characters).__name__} and {end_of_text!r}; prepare the data again"
        )
    return CharTokenizer(characters, end_of_text)


def _digits(plain: Mapping[str, Any]) -> DigitTokenizer:
    num_digits = plain.get("num_digits")
    if type(num_digits) is not int:
        raise DataError(f"tokenizer.num_digits: {num_digits!r} is no number; give how many")
    return DigitTokenizer(num_digits)
