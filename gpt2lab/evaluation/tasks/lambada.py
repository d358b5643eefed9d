"""LAMBADA: the last word of a passage (Paperno et al. 2016), in two protocols named apart."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2lab.config import EvaluateConfig
from gpt2lab.data.jsonl import field
from gpt2lab.errors import DataError
from gpt2lab.evaluation.files import Text
from gpt2lab.evaluation.hub import HubDataset, rows_given
from gpt2lab.evaluation.items import Item, Scores, fitted, too_long
from gpt2lab.evaluation.reading import begun, pair, speech_of_text
from gpt2lab.evaluation.task import BaseTask, Metric, Record
from gpt2lab.statistics import Interval, mean_interval, perplexity, share_interval

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


class Lambada(BaseTask):
    """How likely the last word is, and its last token.

    The context is all before the last blank, the target that blank and what is behind it. As
    lm-eval has it (lambada_openai), a word is right if each of its tokens is the likeliest, and
    perplexity is of whole words. The last-token protocol, which comes near the GPT-2 paper's
    numbers, also gives what comes before it within the word.
    """

    protocol = (
        "word: as lm-eval's lambada_openai, the text behind the last blank, right if greedy, "
        "perplexity per word; last_token: the last token alone, all before it given; no start token"
    )
    hub = HubDataset("EleutherAI/lambada_openai", "default")
    local = "lambada_test.jsonl"

    def __init__(self, config: EvaluateConfig) -> None:
        super().__init__(config)
        self.passages: list[Text] = []

    def read(self) -> None:
        rows = rows_given(self.config.data, self.hub, self.local)
        self.passages = [Text(row.place, field(row, "text")) for row in rows]
        if not self.passages:
            raise DataError(f'data: {self.config.data} is empty; write one {{"text": ...}} a line')
        for place, text in self.passages:
            if not text:
                raise DataError(f"{place}: is empty; give a passage, or leave it out")
            if not text.rpartition(" ")[2]:
                raise DataError(f"{place}: ends with a blank, not with a word; remove it")

    def items(self, model: "GPT2") -> list[Item]:
        speech = speech_of_text(model, "lambada")
        items = []
        for place, text in self.passages:
            before, blank, word = text.rpartition(" ")
            context, target = pair(speech, before, blank + word, place)
            context = begun(context, speech, bool(self.config.add_start_token))
            if not len(context):
                raise DataError(f"{place}: has nothing before its last word; add what leads to it")
            item = Item(context, [target])
            if too_long(item, model.config.block_size):
                raise DataError(
                    f"{place}: its last word has {len(target)} tokens, the model's context is "
                    f"{model.config.block_size}; remove the line"
                )
            items.append(fitted(item, model.config.block_size))
        return items

    def record(self, number: int, scores: Sequence[Scores]) -> Record:
        (word,) = scores
        return {
            "nll": math.fsum(word.nll),
            "right": bool(word.right.all()),
            "last_nll": float(word.nll[-1]),
            "last_right": bool(word.right[-1]),
        }

    def metrics(self, records: Sequence[Record], model: "GPT2") -> list[Metric]:
        def accuracy(key: str) -> Interval:
            return share_interval([record[key] for record in records])

        def of_nats(key: str) -> Interval:
            return mean_interval([record[key] for record in records]).map(perplexity)

        return [
            Metric("word_accuracy", accuracy("right"), "passages"),
            Metric("word_perplexity", of_nats("nll"), "passages"),
            Metric("last_token_accuracy", accuracy("last_right"), "passages"),
            Metric("last_token_perplexity", of_nats("last_nll"), "passages"),
        ]
