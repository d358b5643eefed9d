"""What Lightning is told: one step of training, one batch of evaluation, the optimizer.

One Lightning batch is one optimizer step (manual optimisation). The step's micro-batches share one
divisor, the number of targets that count in all of them, so that the gradient does not depend on
how a batch is split; and a checkpoint can only fall between steps.
"""

import math
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.config import TrainConfig
from gpt2lab.model import GPT2
from gpt2lab.optim import (
    build_optimizer,
    gradient_norm,
    learning_rate_factor,
    set_learning_rate,
)


class GPT2LightningModule(LightningModule):
    """Trains a GPT2 by the settings' optimizer and schedule."""

    def __init__(self, settings: TrainConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings = settings
        self.model = GPT2(settings.model)
        # torchmetrics' accuracy and perplexity want the logits of a whole batch, which never exist
        self.val_loss = MeanMetric()
        self.val_exact_match = MeanMetric()
        self.val_token_accuracy = MeanMetric()
        self.train_losses: list[Tensor] = []
        self.latest: dict[str, float] = {}
        """Each metric as it was last recorded."""

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer(self.model, self.settings.optim)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        step = self.trainer.global_step
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        learning_rate = self.learning_rate(step)
        set_learning_rate(optimizer.optimizer, learning_rate)
        if self.settings.model.dropout > 0:
            seed_dropout(self.settings.seed, step)

        # Only the forward pass chooses number formats; asking at every later operation costs time.
        full_precision = torch.autocast(self.device.type, enabled=False)
        num_counted = batch.num_counted()
        losses = []
        for part in batch.split(self.settings.micro_batch_size or len(batch.inputs)):
            loss = self.model.loss(part, num_counted)
            with full_precision:
                self.manual_backward(loss)
            losses.append(loss.detach())
        with full_precision:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = gradient_norm(parameters, self.settings.optim.grad_clip)
            optimizer.step()
        optimizer.zero_grad()

        self.train_losses.append(losses[0] if len(losses) == 1 else torch.stack(losses).sum())
        if (step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            mean = torch.stack(self.train_losses).mean()
            self.train_losses.clear()
            # Here alone, for the host waits for the device to have them.
            self.record(
                {
                    "train/loss": float(mean),
                    "train/lr": learning_rate,
                    "train/grad_norm": float(norm),
                }
            )

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        return batch.to(device)

    def learning_rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        settings = self.settings
        factor = learning_rate_factor(step, settings.schedule, settings.max_steps)
        return settings.optim.lr * factor

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        nll, right = self.model.scores(batch)
        counted = batch.targets != IGNORE
        self.val_loss.update(nll[counted])
        self.val_token_accuracy.update(right[counted].float())
        # Greedy decoding is right everywhere exactly when each next token is the likeliest.
        self.val_exact_match.update(right.all(dim=1).float())

    def on_validation_epoch_end(self) -> None:
        loss = self.val_loss.compute()
        metrics = {
            "val/loss": float(loss),
            "val/perplexity": float(loss.exp()),
            "val/token_accuracy": float(self.val_token_accuracy.compute()),
        }
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.has_answers:
            metrics["val/exact_match"] = float(self.val_exact_match.compute())
        else:
            metrics["val/bits_per_byte"] = float(loss) / math.log(2) / data.val_bytes_per_token
        self.log_dict(metrics, logger=False)  # for callbacks of Lightning's own
        self.record(metrics)
        for metric in (self.val_loss, self.val_exact_match, self.val_token_accuracy):
            metric.reset()

    def record(self, metrics: dict[str, float]) -> None:
        """Hand metrics to callbacks and loggers, under the number of steps done.

        Not by way of Lightning's `log`, which takes as long as a small model's step.
        """
        self.latest |= metrics
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning's counters of batches and epochs restart validation in the middle; the step
        # alone says where a run is.
        checkpoint.pop("loops", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.set_step(checkpoint["global_step"])

    def set_step(self, step: int) -> None:
        """Let Lightning's loop, and with it the data and the evaluations, go on after this step."""
        loop = self.trainer.fit_loop.epoch_loop
        loop.manual_optimization.optim_step_progress.total.ready = step
        loop.manual_optimization.optim_step_progress.total.completed = step
        loop.batch_progress.total.ready = step
        loop._batches_that_stepped = step
        self.trainer.datamodule.start_step = step  # type: ignore[attr-defined]


def seed_dropout(seed: int, step: int) -> None:
    """Dropout's random numbers as a function of (seed, step), so that nothing is to be saved."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))
