"""What Lightning is told: one step of training, one batch of evaluation, the optimizer.

One Lightning batch is one optimizer step (manual optimisation). The step's micro-batches share one
divisor, the number of targets that count in all of them, so that the gradient does not depend on
how a batch is split; and a checkpoint can only fall between steps.
"""

import logging
import math
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import fmean
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from gpt2lab import ranks
from gpt2lab.backends import attention_kernel, compile_blocks
from gpt2lab.batch import Batch
from gpt2lab.config import TrainConfig
from gpt2lab.config.check.train import AUTO
from gpt2lab.fsdp import FSDPStrategy, gathered
from gpt2lab.heap import give_back
from gpt2lab.micro_batch import fits, largest_that_fits, spare_bytes
from gpt2lab.model import GPT2
from gpt2lab.optim import (
    build_optimizer,
    clip_gradients,
    gradient_norm,
    learning_rate_factor,
    set_learning_rate,
)
from gpt2lab.spike import Spikes, nonfinite

log = logging.getLogger("gpt2lab")


class GPT2LightningModule(LightningModule):
    """Trains a GPT2 by the settings' optimizer and schedule."""

    def __init__(self, settings: TrainConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings = settings
        self.model = GPT2(settings.model)
        # torchmetrics' accuracy and perplexity want the logits of a whole batch, which never exist.
        # NaN is shown, not left out: to look for it, the host would wait for the device.
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_exact_match = MeanMetric(nan_strategy="disable")
        self.val_token_accuracy = MeanMetric(nan_strategy="disable")
        self.train_losses: list[float] = []
        """Of the steps since the last record."""
        self.skipped_steps = 0
        """Steps that were counted and changed nothing, their loss or gradient not being finite."""
        self.spikes = Spikes()
        self.update_lock = threading.RLock()
        """Held while weights, optimizer, step count and what goes with them change: whoever has it
        finds them between two steps."""
        self.votes: Callable[[], list[float]] = list
        """What a rank has to say to the others during a step, as numbers to be added up."""
        self.tallies: list[float] = []
        """The sums over all ranks of what they said during the last step; none of one alone."""
        self.micro_batch_size: int | None = None
        """Rows that the device holds at once; all of its share if None."""
        if isinstance(settings.micro_batch_size, int):
            self.micro_batch_size = settings.micro_batch_size
        self.backends: dict[str, str] = {}
        """What torch computes a step with."""
        self.latest: dict[str, float] = {}
        """Each metric as it was last recorded."""
        self._whole: tuple[GPT2 | None] = (None,)  # a module by itself would be one of ours
        self.is_first_step = True
        """Of those that this process makes."""
        self.missing_passes = 0
        """Batches of an evaluation that other ranks have and this one has not."""
        self.evaluated_step: int | None = None
        """Step of the last evaluation that came to its end, with all that callbacks make of it."""

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        self.backends["compile"] = compile_blocks(
            self.model,
            self.settings.compile,
            strategy.root_device,
            is_sharded=self.is_sharded,
        )
        if isinstance(strategy, FSDPStrategy):
            strategy.shard(self.model)

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer(self.model, self.settings.optim)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch | list[Batch]:
        """Training steps are cut into micro-batches on the host: see `Batch.with_counted`."""
        if not self.trainer.training:
            return batch.with_counted().to(device)
        return [part.with_counted().to(device) for part in self.parts(batch)]

    def parts(self, batch: Batch) -> list[Batch]:
        """The micro-batches of a step."""
        return batch.split(self.micro_batch_size or len(batch.inputs))

    def on_train_batch_start(self, batch: list[Batch], batch_idx: int) -> int | None:
        # Lightning's way to leave before a step; it looks at should_stop only after one.
        return -1 if self.trainer.should_stop else None

    def training_step(self, batch: list[Batch], batch_idx: int) -> None:
        """
        Args:
            batch: the micro-batches of this rank's share of the step.
        """
        step = self.trainer.global_step
        self.seed_dropout(step)
        # Only the forward pass chooses number formats; asking at every later operation costs time.
        full_precision = torch.autocast(self.device.type, enabled=False)
        here = 0
        for part in batch:
            assert part.counted is not None
            here += len(part.counted)
        # The mean over ranks: DDP averages gradients, so that theirs is the sum over all targets
        # divided by how many there are.
        num_counted = ranks.total(torch.full((), here, device=self.device)) / ranks.count()
        losses = []
        for part in batch:
            loss = self.model.loss(part, num_counted)
            exchange = nullcontext() if part is batch[-1] else self.no_exchange()
            with full_precision, exchange:
                self.manual_backward(loss)
            losses.append(loss.detach())
        with full_precision:
            self.update(losses, step)
        if self.is_first_step:
            # The optimizer's state has come to lie among what is gone: the holes are given back.
            give_back()
            self.is_first_step = False

    def seed_dropout(self, step: int) -> None:
        """Make dropout's random numbers a function of (seed, step, rank): none is to be saved."""
        if self.settings.model.dropout > 0:
            seed = np.random.SeedSequence([self.settings.seed, step, self.global_rank])
            torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))

    def no_exchange(self) -> AbstractContextManager[None]:
        """Within it, gradients add up on each rank: the step's last micro-batch exchanges them."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return nullcontext()

    def update(self, losses: list[Tensor], step: int) -> None:
        """Let the gradients change the weights, if they and the loss are finite.

        Raises:
            RunError: if they are not, and no more steps may be left out; nothing has changed then.
        """
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        loss, norm = self.to_host(losses, gradient_norm(parameters))
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        if not is_finite and self.skipped_steps >= self.settings.skip_nonfinite:
            raise self.spikes.error(self, step + 1, loss, norm)
        learning_rate = self.learning_rate(step)
        with self.update_lock:
            if is_finite:
                clip_gradients(parameters, norm, self.settings.optim.grad_clip)
                self.train_losses.append(loss)
            else:
                optimizer.zero_grad()  # without gradients, the step below does nothing but count
                self.skipped_steps += 1
            set_learning_rate(optimizer.optimizer, learning_rate)
            optimizer.step()
            if (step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
                self.record_training(learning_rate, norm if is_finite else None)
        optimizer.zero_grad()
        if not is_finite:
            self.warn_of_skip(step + 1, loss, norm)

    def to_host(self, losses: list[Tensor], norm: Tensor) -> tuple[float, float]:
        """A step's loss and gradient norm as numbers, and `tallies` from `votes`.

        The only time in a step that the host waits for the device, and ranks for one another's
        words.

        Args:
            norm: of the gradients that this rank has; where they are sharded, of its rows.
        """
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        votes = ranks.on_device(self.votes() if ranks.several() else [], loss.device)
        if self.is_sharded:
            # In float64: the square of a finite fp32 number may be beyond fp32.
            own = [loss[None].double(), votes.double(), norm[None].double().square()]
            loss_sum, *self.tallies, square = ranks.total(torch.cat(own)).tolist()
            return loss_sum / ranks.count(), math.sqrt(square)
        summed = ranks.total(torch.cat([loss[None], votes]))
        loss_sum, *self.tallies, gradient_norm = torch.cat([summed, norm[None]]).tolist()
        return loss_sum / ranks.count(), gradient_norm

    def learning_rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        settings = self.settings
        factor = learning_rate_factor(step, settings.schedule, settings.max_steps)
        return settings.optim.lr * factor

    def record_training(self, learning_rate: float, norm: float | None) -> None:
        """The mean loss since the last record, and the step just made.

        Args:
            norm: of its gradients; None where it was left out.
        """
        metrics = {"train/lr": learning_rate}
        if self.train_losses:
            metrics["train/loss"] = fmean(self.train_losses)
            self.train_losses.clear()
        if norm is not None:
            metrics["train/grad_norm"] = norm
        self.record(metrics)

    def warn_of_skip(self, step: int, loss: float, norm: float) -> None:
        allowed = self.settings.skip_nonfinite
        text = (
            f"step {step}: {nonfinite(loss, norm)}; it was left out, "
            f"{self.skipped_steps} of skip_nonfinite={allowed}"
        )
        log.warning(text)
        warnings.warn(text, stacklevel=1)

    def record(self, metrics: dict[str, float]) -> None:
        """Hand metrics to callbacks and loggers, under the number of steps done.

        Not by way of Lightning's `log`, which takes as long as a small model's step.
        """
        self.latest |= metrics
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.trainer.global_step)

    def on_train_start(self) -> None:
        if self.owes_evaluation:
            self.evaluate()
        batch = self.trainer.datamodule.train[self.trainer.global_step]  # type: ignore[attr-defined]
        with self.trainer.precision_plugin.forward_context():
            self.choose(batch)
        log.info(
            "computes with %s; %s sequences at once",
            ", ".join(f"{name}: {what}" for name, what in self.backends.items()),
            self.micro_batch_size or len(batch.inputs),
        )

    def choose(self, batch: Batch) -> None:
        """What only the device can tell, tried on one batch: how many rows fit, and the kernel of
        attention."""
        if self.settings.micro_batch_size == AUTO:
            optimizer = self.trainer.optimizers[0]
            # AdamW has two tensors for each parameter, Muon one.
            state = () if optimizer.state else [p for p in self.parameters() for _ in range(2)]
            spare = spare_bytes(self.device)
            with self.no_exchange():
                self.micro_batch_size = largest_that_fits(
                    len(batch.inputs),
                    lambda rows: fits(self.model, batch, rows, state, spare),
                    self.device,
                )
            torch.accelerator.reset_peak_memory_stats(self.device)  # not those of what was tried
            if not self.backends["compile"].startswith("eager"):
                torch.compiler.reset()  # graphs that have met several sizes serve any, but slower
        part = self.parts(batch)[0]
        self.backends["attention"] = attention_kernel(self.model, part)

    @property
    def is_sharded(self) -> bool:
        """Whether each rank has some rows of the weights only."""
        return isinstance(self.trainer.strategy, FSDPStrategy)

    @property
    def whole(self) -> GPT2 | None:
        """A copy of the model as it was evaluated, where this rank has some of its rows only."""
        return self._whole[0]

    @property
    def owes_evaluation(self) -> bool:
        """Whether this step's evaluation is due and was not held to its end, as in a checkpoint
        that was saved at a signal."""
        step, settings = self.trainer.global_step, self.settings
        if step == 0 or not self.trainer.enable_validation:
            return False
        is_due = step % settings.eval_every == 0 or step >= settings.max_steps
        return is_due and self.evaluated_step != step

    def evaluate(self) -> None:
        """Hold an evaluation between two steps, as Lightning does after one."""
        self.trainer.validating = True
        self.trainer.fit_loop.epoch_loop.val_loop.run()
        self.trainer.training = True

    def on_validation_epoch_start(self) -> None:
        batches = sum(self.trainer.num_val_batches)
        (most,) = ranks.largest([batches], self.device) if self.is_sharded else (batches,)
        self.missing_passes = int(most) - int(batches)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if self.missing_passes:
            # Weights are gathered by all ranks at once, also for those with another batch to come.
            self.missing_passes -= 1
            self.model.scores(batch)
        nll, right = self.model.scores(batch)
        assert batch.counted is not None
        self.val_loss.update(nll.flatten()[batch.counted])
        self.val_token_accuracy.update(right.flatten()[batch.counted].float())
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
        if self.is_sharded:
            self._whole = (gathered(self.model),)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning's counters of batches and epochs restart validation in the middle; the step
        # alone says where a run is.
        checkpoint.pop("loops", None)
        checkpoint["train_losses"] = list(self.train_losses)
        checkpoint["skipped_steps"] = self.skipped_steps
        checkpoint["latest"] = dict(self.latest)
        checkpoint["evaluated_step"] = self.evaluated_step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The state is the checkpoint's, but how it is used is for the settings of today to say.
        (stored,) = checkpoint["optimizer_states"]
        today = build_optimizer(self.model, self.settings.optim).state_dict()
        for group, now in zip(stored["param_groups"], today["param_groups"], strict=True):
            group |= {name: value for name, value in now.items() if name != "params"}
        self.set_step(checkpoint["global_step"])
        self.train_losses = list(checkpoint["train_losses"])
        self.skipped_steps = checkpoint["skipped_steps"]
        self.latest = dict(checkpoint.get("latest", {}))  # version 0.3.0 has none
        self.evaluated_step = checkpoint.get("evaluated_step")

    def set_step(self, step: int) -> None:
        """Let Lightning's loop, and with it the data and the evaluations, go on after this step."""
        loop = self.trainer.fit_loop.epoch_loop
        loop.manual_optimization.optim_step_progress.total.ready = step
        loop.manual_optimization.optim_step_progress.total.completed = step
        loop.batch_progress.total.ready = step
        loop._batches_that_stepped = step
        self.trainer.datamodule.start_step = step  # type: ignore[attr-defined]
