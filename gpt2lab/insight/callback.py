"""Attention while a model learns: a picture after every few evaluations."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from gpt2lab.durable import write_whole
from gpt2lab.generation import Speech
from gpt2lab.guard import Guard
from gpt2lab.insight.inside import attention
from gpt2lab.insight.labels import labels
from gpt2lab.insight.pictures.canvas import as_png
from gpt2lab.insight.pictures.squares import square
from gpt2lab.loggers import show_picture
from gpt2lab.samples import said

CANDIDATES = 100
"""Questions or beginnings, spread over what is held out, of which one is shown."""


class AttentionPictures(Callback):
    """After every so many evaluations, the last block's attention over a held-out sample.

    The sample is a question with the model's answer, or the beginning of a text and how the model
    goes on with it. Neither it nor the picture changes a weight or a random number of the training;
    a failure is one warning.

    Args:
        path: the folder of the pictures, `step-000500.png`.
        every: evaluations.
        new_tokens: length of a continuation.
    """

    def __init__(self, path: str, every: int = 1, new_tokens: int = 16) -> None:
        if every < 1 or new_tokens < 1:
            raise ValueError(f"every={every} and new_tokens={new_tokens} must be at least 1")
        self.folder = Path(path)
        self.every = every
        self.new_tokens = new_tokens
        self.guard = Guard(self.folder.name, Exception)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        # Counted by the step, so that a resumed run draws what the straight one does.
        evaluations = math.ceil(trainer.global_step / pl_module.settings.eval_every)
        if evaluations % self.every == 0:
            self.guard(self._draw, trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: Any) -> None:
        data, step = trainer.datamodule, trainer.global_step  # type: ignore[attr-defined]
        ids, num_given = self._sample(pl_module, data)
        tokenizer = getattr(data, "tokenizer", None)
        speech = None if tokenizer is None else Speech.of_text(tokenizer)
        # Where each rank has a share of the model only, the first one keeps a whole one.
        model = getattr(pl_module, "whole", None) or pl_module.model
        begins = "the answer" if data.has_answers else "what it says itself"
        layer = f"layer {model.config.n_layer - 1}, the last: the mean of its heads"
        title = f"step {step:,}, {layer}\nbehind the line: {begins}"
        weights = attention(model, ids).weights[-1].mean(0).cpu().numpy()  # (T, T)
        png = as_png(square(weights, labels(speech, ids.tolist()), title, num_given))
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"step-{step:06d}.png"
        write_whole(path, png)
        show_picture(trainer, "attention", path)

    def _sample(self, pl_module: Any, data: Any) -> tuple[Tensor, int]:
        """Ids (T,) of a question or beginning and of what the model says behind it, and how many
        were given."""
        if data.has_answers:
            questions, right = data.questions(CANDIDATES)
            chosen = most_varied(questions)
            given, num_new = questions[chosen], len(right[chosen])
        else:
            beginnings = [ids[-self.new_tokens :] for ids in data.prompts(CANDIDATES)]
            given, num_new = beginnings[most_varied(beginnings)], self.new_tokens
        (more,) = said(pl_module, [given], num_new)
        ids = torch.cat([given.cpu(), more.cpu()])[: pl_module.model.config.block_size]
        return ids, len(given)


def most_varied(rows: Sequence[Tensor]) -> int:
    """Which row has the most different tokens, and among those changes most often; the first one.

    Of 000012, 001122 and 201102 it is the last: its columns can be told apart.
    """

    def variety(i: int) -> tuple[int, int]:
        ids = rows[i].tolist()
        return len({*ids}), sum(a != b for a, b in pairwise(ids))

    return max(range(len(rows)), key=variety)
