"""Training through Lightning, as `train` does it, in turns with other loops."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from gpt2lab.backends import choose_products
from gpt2lab.callbacks import Stop, Throughput
from gpt2lab.config import TrainConfig
from gpt2lab.data.module import StepDataModule
from gpt2lab.experiment import choose_precision, quiet
from gpt2lab.flops import step_flops
from gpt2lab.heap import freed_memory_is_kept
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.loggers import CSVLogger, Guarded
from gpt2lab.measure import now
from gpt2lab.signals import Listener
from gpt2lab.targets import build_trainer

Others = Callable[[torch.device], list[Iterator[float]]]
"""Loops on a device, paused after each block of steps, whose seconds they tell."""


def blocks_in_turn(
    settings: TrainConfig, data: StepDataModule, block_steps: int, others: Others
) -> list[list[float]]:
    """Seconds of each block of steps: through Lightning, and in each of the other loops.

    After each block Lightning is held up while the others do one, so that a busy moment of the
    machine meets all. The first block of each warms up and is left out.
    """
    loops: list[Iterator[float]] = []
    seconds: list[list[float]] = []

    class TakeTurns(Callback):
        """Stands last, so that its clock covers everything else that happens in a step."""

        def on_train_start(self, trainer: Any, module: Any) -> None:
            loops.extend(others(module.device))
            seconds.extend([] for _ in range(1 + len(loops)))
            self.mark = now(module.device)

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.global_step % block_steps == 0:
                seconds[0].append(now(module.device) - self.mark)
                for times, loop in zip(seconds[1:], loops, strict=True):
                    times.append(next(loop))
                self.mark = now(module.device)

    train(settings, data, TakeTurns())
    return [times[1:] for times in seconds]


def train(settings: TrainConfig, data: StepDataModule, *callbacks: Callback) -> None:
    """What `train` runs, with its stop, its throughput and its metrics.csv, and no evaluation."""
    quiet()
    torch.manual_seed(settings.seed)
    module, precision = GPT2LightningModule(settings), choose_precision(settings)
    choose_products(precision)
    flops = step_flops(module.model, data.tokens_per_step, settings.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            settings,
            precision,
            callbacks=[
                Stop(
                    max_steps=settings.max_steps,
                    max_minutes=None,
                    stop_at=None,
                    listener=Listener(),
                    save=lambda trainer: None,
                ),
                Throughput(data.tokens_per_step, flops, precision),
                *callbacks,
            ],
            loggers=[Guarded("metrics.csv", partial(CSVLogger, Path(folder) / "metrics.csv"))],
            folder=Path(folder),
        )
        trainer.limit_val_batches = 0
        with freed_memory_is_kept():
            trainer.fit(module, datamodule=data)
