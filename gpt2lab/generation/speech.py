"""How a model is spoken to: what its ids stand for, and what stands around a prompt.

As KerasHub's preprocessor does it, prompts become ids padded on the right, with a start token and
without an end token; an answer is stripped of padding, of special tokens, and of the prompt if so
wished.
"""

import codecs
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gpt2lab.errors import DataError
from gpt2lab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Speech:
    """What a model was trained on, as far as a prompt must be like it."""

    tokenizer: Tokenizer
    start: int | None = None
    """The id before each text: the end of text, behind which documents begin."""
    empty: int | None = None
    """The id that an empty prompt stands for; None where there must be one."""
    separator: str = ""
    """Text between a question and its answer."""
    question_tokens: int | None = None
    """Tokens of every question."""
    answer_tokens: int | None = None
    """Tokens of every answer."""
    has_answers: bool = False
    """Whether a prompt is a question with one right answer, which is what is wanted."""

    @classmethod
    def of_text(cls, tokenizer: Tokenizer) -> "Speech":
        """Running text."""
        start = tokenizer.end_of_text
        return cls(tokenizer, start, _beginning(tokenizer) if start is None else start)

    @classmethod
    def of_pairs(cls, tokenizer: Tokenizer, separator: str) -> "Speech":
        """Source, separator, target, end of text."""
        return cls(tokenizer, separator=separator, has_answers=True)

    @classmethod
    def of_sort(cls, tokenizer: Tokenizer, length: int) -> "Speech":
        """So many digits, then the same sorted."""
        return cls(tokenizer, question_tokens=length, answer_tokens=length, has_answers=True)

    def encode(
        self, prompt: str, *, add_start_token: bool = True, allow_special: bool = False
    ) -> list[int]:
        """Ids of a prompt with all that stands before and behind it, at least one.

        Args:
            allow_special: the text `<|endoftext|>` stands for the token; else it is plain text.
        Raises:
            DataError: if the model cannot be asked this.
        """
        try:
            ids = self.tokenizer.encode(prompt + self.separator, allow_special=allow_special)
        except DataError as error:
            raise DataError(*(f"prompt: {problem}" for problem in error.problems)) from error
        if self.question_tokens not in (None, len(ids)):
            raise DataError(
                f"prompt: has {len(ids)} digits, the model knows questions of "
                f"{self.question_tokens}; give so many, as in "
                f'prompt="{self.tokenizer.decode([0] * (self.question_tokens or 0))}"'
            )
        if add_start_token and self.start is not None:
            ids = [self.start, *ids]
        if not ids:
            if self.empty is None:
                raise DataError("prompt: is empty, and the model only answers; give a question")
            ids = [self.empty]
        return ids

    def right_answer(self, question: Sequence[int]) -> list[int] | None:
        """Of a question of digits, the same sorted; None where only the data knows it."""
        return None if self.question_tokens is None else sorted(question)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, without the special ones."""
        return self.decode_bytes(token_ids).decode(errors="replace")

    def decode_bytes(self, token_ids: Sequence[int]) -> bytes:
        end = self.tokenizer.end_of_text
        return self.tokenizer.decode_bytes(i for i in token_ids if i != end)


def _beginning(tokenizer: Tokenizer) -> int:
    """What text begins after: a newline, or the first character where there is none."""
    try:
        return tokenizer.encode("\n")[0]
    except DataError:
        return 0


def cropped(rows: Sequence[Sequence[int]], context: int) -> list[list[int]]:
    """Prompts that fit the model: the last ids of those that are longer, with a warning."""
    longest = max(map(len, rows))
    if longest > context:
        warnings.warn(
            f"prompt: has {longest:,} tokens, the model's context is {context:,}; "
            "its last ones are kept",
            stacklevel=2,
        )
    return [list(row[-context:]) for row in rows]


def pack(rows: Sequence[Sequence[int]], length: int | None = None) -> dict[str, Tensor]:
    """Rows of ids, padded on the right with 0, and which of them are no padding.

    Args:
        length: T; None for the longest row's.
    Returns:
        token_ids (B, T) int64; padding_mask (B, T) bool, True where a row has a token.
    """
    tensors = [torch.as_tensor(row, dtype=torch.long) for row in rows]
    token_ids = pad_sequence(tensors, batch_first=True)
    if length is not None:
        token_ids = torch.nn.functional.pad(token_ids, (0, length - token_ids.shape[1]))
    lengths = torch.tensor([len(row) for row in rows])
    return {
        "token_ids": token_ids,
        "padding_mask": torch.arange(token_ids.shape[1]) < lengths[:, None],
    }


class Pieces:
    """Text of ids as they come, in pieces of whole characters; together, the text of all.

    Args:
        given: ids before them, whose text is there already.
    """

    def __init__(self, speech: Speech, given: Sequence[int]) -> None:
        self.speech = speech
        self.last = list(given[-1:])
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        """The text that is whole with this token; empty where it ends within a character."""
        before = self.speech.decode_bytes(self.last)
        # What joins two tokens, such as the space between digits, depends on both.
        both = self.speech.decode_bytes([*self.last, token_id])
        self.last = [token_id]
        return self.decoder.decode(both[len(before) :])

    def rest(self) -> str:
        """What is left at the end, whole or not."""
        return self.decoder.decode(b"", final=True)
