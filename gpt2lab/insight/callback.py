"""Attention while a model learns: a picture after every few evaluations."""

import math
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
from gpt2lab.model import GPT2
from gpt2lab.samples import said


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
        ids = self._sample(pl_module, data)
        tokenizer = getattr(data, "tokenizer", None)
        speech = None if tokenizer is None else Speech.of_text(tokenizer)
        # Where each rank has a share of the model only, the first one keeps a whole one.
        model = getattr(pl_module, "whole", None) or pl_module.model
        png = self._picture(model, ids, speech, step)
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"step-{step:06d}.png"
        write_whole(path, png)
        show_picture(trainer, "attention", path)

    def _sample(self, pl_module: Any, data: Any) -> Tensor:
        """Ids (T,) of a question or beginning, and of what the model says behind it."""
        if data.has_answers:
            (given, *_), (right, *_) = data.questions(1)
            (more,) = said(pl_module, [given], len(right))
        else:
            (given,) = data.prompts(1)
            given = given[-self.new_tokens :]
            (more,) = said(pl_module, [given], self.new_tokens)
        return torch.cat([given.cpu(), more.cpu()])[: pl_module.model.config.block_size]

    def _picture(self, model: GPT2, ids: Tensor, speech: Speech | None, step: int) -> bytes:
        weights = attention(model, ids).weights[-1].mean(0).cpu()  # (T, T)
        shown = labels(speech, ids.tolist())
        title = f"step {step:,}: the last layer, the mean of its heads"
        return as_png(square(weights.numpy(), shown, title))
