"""Two models at the same text: nats per token, bits per byte, and which is better."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.config import EvaluateConfig
from gpt2lab.errors import DataError
from gpt2lab.evaluation.compare.sides import Side
from gpt2lab.evaluation.compare.verdict import as_metric, span, verdict
from gpt2lab.evaluation.items import Item, Scores
from gpt2lab.evaluation.pieces import Pieces, Reading, cut, joined
from gpt2lab.evaluation.task import Record
from gpt2lab.evaluation.tasks.text import MANY_DOCUMENTS, Document, Perplexity
from gpt2lab.statistics import paired

if TYPE_CHECKING:
    from gpt2lab.generation.speech import Speech
    from gpt2lab.model import GPT2


class PairedText(Perplexity):
    """A text as one of two models reads it, each token's nats kept.

    Args:
        context: tokens of a window at most; None for the model's own.
        has_start: whether a start token stands before each document.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        documents: list[Document],
        context: int | None,
        has_start: bool,
    ) -> None:
        super().__init__(config)
        self.documents, self.context, self.has_start = documents, context, has_start

    def context_of(self, model: "GPT2") -> int:
        return self.context or super().context_of(model)

    def start_of(self, speech: "Speech") -> int | None:
        return super().start_of(speech) if self.has_start else None

    def record(self, number: int, scores: Sequence[Scores]) -> Record:
        (only,) = scores
        return {"nll": only.nll.tolist()}


def documents_of(config: EvaluateConfig) -> list[Document]:
    task = Perplexity(config)
    task.read()
    return task.documents


def compare_text(
    config: EvaluateConfig, sides: tuple[Side, Side], documents: list[Document], folder: Path
) -> dict[str, Any]:
    """Read the documents by both models, and see whether their losses differ.

    With one tokenizer both read the same windows, of the shorter context of the two, and the
    difference is of nats per token and of bits per byte. With two, a token of one is none of the
    other: each reads windows of its own context, and only bits per byte are compared, over text
    that both have predicted.

    What is paired, and taken as independent, are the documents where there are many; else pieces of
    text that are as long as the longer-sighted model's context. Neighbours among them are joined
    until there are at most 50, because they resemble each other.

    Raises:
        DataError: if there is nothing that both have predicted.
    """
    a, b = (side.model for side in sides)
    assert a.speech is not None
    assert b.speech is not None
    is_same = a.speech.tokenizer.fingerprint == b.speech.tokenizer.fingerprint
    shorter = min(a.config.block_size, b.config.block_size) if is_same else None
    has_start = not is_same or a.speech.start == b.speech.start
    tasks = [PairedText(config, documents, shorter, has_start) for _ in sides]
    readings = [
        readings_of(config, task, side, folder) for task, side in zip(tasks, sides, strict=True)
    ]
    contexts = [task.context_of(side.model) for task, side in zip(tasks, sides, strict=True)]
    both = sorted(readings[0].keys() & readings[1].keys())
    are_many = len(both) >= MANY_DOCUMENTS
    pieces = [
        cut([of_model[number] for of_model in readings], None if are_many else contexts)
        for number in both
    ]
    if not sum(len(piece.num_bytes) for piece in pieces):
        raise DataError(
            f"{documents[0].place}: holds nothing that both models have predicted; give a longer "
            "text, or a higher limit"
        )
    units = joined(pieces)
    name = "documents" if are_many else "pieces of text"
    return {
        **judged(units, is_same, name),
        "units": {
            "kind": name,
            "count": len(units.num_bytes),
            "before_joining": sum(len(piece.num_bytes) for piece in pieces),
        },
        "tokens": units.tokens.sum(axis=1).tolist(),
        "bytes": int(units.num_bytes.sum()),
        "contexts": contexts,
        "protocol": PROTOCOL,
    }


PROTOCOL = (
    "each document by itself behind a start token; one tokenizer: the same windows, of the shorter "
    "context; two: windows of each model's own context, and bits per byte alone; paired test by "
    "turning signs, over documents (30 or more) or pieces as long as the context, neighbours of "
    "which are joined into 50 at most; difference: b less a"
)


def readings_of(
    config: EvaluateConfig, task: PairedText, side: Side, folder: Path
) -> dict[int, Reading]:
    """What a model made of each document that a limit has left, by the document's number."""
    items = task.items(side.model)
    records = side.records(config, task, items, folder)
    assert side.model.speech is not None
    bytes_of = side.model.speech.tokenizer.bytes_per_token()
    windows: dict[int, list[tuple[Item, Record]]] = {}
    for number, (item, record) in enumerate(zip(items, records, strict=False)):
        windows.setdefault(task.document_of[number], []).append((item, record))
    return {
        number: Reading(
            # The first window's context is all that is not scored: a start token, or a first one.
            np.cumsum([bytes_of[own[0][0].context].sum(), *_sizes(bytes_of, own)]),
            np.concatenate([record["nll"] for _, record in own]),
        )
        for number, own in windows.items()
    }


def _sizes(bytes_of: np.ndarray, own: list[tuple[Item, Record]]) -> np.ndarray:
    return bytes_of[np.concatenate([item.continuations[0] for item, _ in own])]


def judged(units: Pieces, is_same: bool, name: str) -> dict[str, Any]:
    """Metrics of each model, and which is better."""
    a, b = units.nll
    bits = units.nll / math.log(2)
    per_byte = paired(bits[1] - bits[0], units.num_bytes)
    metrics = {"bits_per_byte": as_metric(rates(bits, units.num_bytes), per_byte)}
    if not is_same:
        return verdict(per_byte, f"{span(per_byte)} bits per byte less", len(a), name) | {
            "metrics": metrics
        }
    per_token = paired(b - a, units.tokens[0])
    metrics = {"nats_per_token": as_metric(rates(units.nll, units.tokens[0]), per_token)} | metrics
    lower = 1 - math.exp(-abs(per_token.difference.value))
    effect = f"{span(per_token)} nats per token less, a perplexity {lower:.2%} lower"
    return verdict(per_token, effect, len(a), name) | {"metrics": metrics}


def rates(sums: np.ndarray, counts: np.ndarray) -> list[float]:
    """Of each model, over all units."""
    return [float(of_model.sum() / counts.sum()) for of_model in sums]
