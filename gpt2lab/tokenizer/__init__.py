"""Text to ids and back: GPT-2's byte-pair encoding, and characters. Nothing is downloaded."""

from collections.abc import Mapping
from typing import Any

from gpt2lab.errors import DataError
from gpt2lab.tokenizer.char import CharTokenizer, characters_of
from gpt2lab.tokenizer.gpt2 import GPT2Tokenizer, gpt2_tokenizer
from gpt2lab.tokenizer.protocol import END_OF_TEXT, Tokenizer, check_vocabulary
from gpt2lab.tokenizer.stages import Explanation, Piece, explain

__all__ = [
    "END_OF_TEXT",
    "CharTokenizer",
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
        DataError: if the kind is unknown, or a character tokenizer lacks its characters.
    """
    kind = plain.get("kind") if isinstance(plain, Mapping) else plain
    if kind == GPT2Tokenizer.kind:
        return gpt2_tokenizer()
    if kind != CharTokenizer.kind:
        raise DataError(f"tokenizer.kind: {kind!r} is unknown; gpt2lab knows gpt2 and char")
    characters, end_of_text = plain.get("characters"), plain.get("end_of_text")
    if not isinstance(characters, str) or not isinstance(end_of_text, bool):
        raise DataError(
            "tokenizer: a character tokenizer needs characters (text) and end_of_text (true or "
            f"false), not {type(characters).__name__} and {end_of_text!r}; prepare the data again"
        )
    return CharTokenizer(characters, end_of_text)
