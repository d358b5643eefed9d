"""What tasks share in which one of several continuations is right."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gpt2lab.config import EvaluateConfig
from gpt2lab.errors import DataError
from gpt2lab.evaluation.items import Item, Scores, fitted, too_long
from gpt2lab.evaluation.reading import begun, pair, speech_of_text
from gpt2lab.evaluation.task import BaseTask, Record

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


class Choice(NamedTuple):
    """A context, what may follow it, blank and all, and which does."""

    place: str
    context: str
    continuations: list[str]
    answer: int


class ChoiceTask(BaseTask):
    """Each choice's continuations are scored behind the context that they share, read once."""

    def __init__(self, config: EvaluateConfig) -> None:
        super().__init__(config)
        self.choices: list[Choice] = []

    @abstractmethod
    def read_choices(self) -> list[Choice]: ...

    def read(self) -> None:
        self.choices = self.read_choices()
        if not self.choices:
            raise DataError(f"data: {self.config.data} holds no question; give a file with some")

    def items(self, model: "GPT2") -> list[Item]:
        assert self.config.task is not None
        speech, block_size = speech_of_text(model, self.config.task.name), model.config.block_size
        items = []
        for place, text, continuations, _ in self.choices:
            pairs = [pair(speech, text, continuation, place) for continuation in continuations]
            # Blanks at the context's end go with each continuation, and so all contexts are one.
            context = begun(pairs[0][0], speech, bool(self.config.add_start_token))
            if not len(context) or not all(len(ids) for _, ids in pairs):
                raise DataError(f"{place}: has an empty context or ending; remove the question")
            item = Item(context, [ids for _, ids in pairs])
            if too_long(item, block_size):
                raise DataError(
                    f"{place}: an ending has {item.longest()} tokens, the model's context is "
                    f"{block_size}; remove the question, or take another model"
                )
            items.append(fitted(item, block_size))
        return items

    def record(self, number: int, scores: Sequence[Scores]) -> Record:
        return {"nll": [math.fsum(each.nll) for each in scores]}


def lowest(values: Sequence[float]) -> int:
    """Where the smallest is, the first of equals."""
    return min(range(len(values)), key=lambda i: values[i])
