"""One training from its first file to its last words."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers.logger import Logger

from gpt2lab import run_folder, slurm
from gpt2lab.agreement import Agreement, wait_to_be_ended
from gpt2lab.callbacks import Profile, Stop, Throughput
from gpt2lab.checkpoint import Checkpoints, clean, load_facts
from gpt2lab.checkpoint.manifest import Entry
from gpt2lab.config import Precision, TrainConfig, parse_stop_at
from gpt2lab.data.module import StepDataModule
from gpt2lab.durable import write_json
from gpt2lab.errors import RunError
from gpt2lab.exit import exit_code
from gpt2lab.flops import step_flops
from gpt2lab.guard import Guard
from gpt2lab.launch import joined
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.loggers import CSVLogger, Guarded, RunLog
from gpt2lab.peak import peak_facts
from gpt2lab.precision import device_type
from gpt2lab.report import show, show_end, summarize
from gpt2lab.resume import Origin, show_changes
from gpt2lab.signals import Listener
from gpt2lab.spike import Spikes
from gpt2lab.targets import build_callbacks, build_loggers, build_trainer

log = logging.getLogger("gpt2lab")


@dataclass
class Result:
    """What a training leaves: its folder and the content of summary.json."""

    folder: Path
    summary: dict[str, Any]
    signal: int | None = None
    """The signal that ended it, if one did."""


class Training:
    """All ranks do the same to the model; the first alone writes, shows and draws.

    Args:
        printable: the settings without secrets.
        folder: the run's, locked by this process or by the one that started it.
    """

    def __init__(
        self,
        settings: TrainConfig,
        printable: dict[str, Any],
        folder: Path,
        origin: Origin,
        precision: Precision,
        module: GPT2LightningModule,
        data: StepDataModule,
        rank: int = 0,
    ) -> None:
        self.settings = settings
        self.printable = printable
        self.folder = folder
        self.origin = origin
        self.module = module
        self.data = data
        self.is_first = rank == 0
        self.receipt = self._receipt(precision)
        self.checkpoints = Checkpoints(
            folder / "checkpoints",
            every=settings.checkpoint_every,
            eval_every=settings.eval_every,
            monitor=parse_stop_at(settings.stop_at)[0] if settings.stop_at else "val/loss",
            content={
                "settings": printable,
                "data": data.fingerprint(),
                "tokenizer": data.tokenizer.plain() if data.tokenizer else None,
            },
            run=self.receipt["id"],
            keep=settings.checkpoint_keep,
            keep_every=settings.checkpoint_keep_every,
        )
        saves = self.is_first or settings.is_sharded
        self.listener = Listener(
            leaves=saves,
            counts=settings.world_size == 1,
            passes_on=None if self.is_first else joined.pass_on,
        )
        if self.is_first:
            joined.hear_by(self.listener.hear)
        self.stop = Stop(
            max_steps=settings.max_steps,
            max_minutes=settings.max_minutes,
            minutes_gone=origin.restart.minutes if origin.restart else 0.0,
            stop_at=settings.stop_at,
            listener=self.listener,
            save=self.checkpoints.save_now,
        )
        flops = step_flops(module.model, data.tokens_per_step, settings.batch_size)
        self.throughput = Throughput(data.tokens_per_step, flops, precision)
        self.metrics = Guarded("metrics.csv", partial(CSVLogger, folder / "metrics.csv"))
        self.trainer: Trainer = build_trainer(
            settings, precision, self._callbacks(rank), self._loggers(), folder
        )
        self.agreement: Agreement | None = None
        if settings.is_sharded:
            self.agreement = Agreement(
                module.update_lock,
                step=lambda: self.trainer.global_step,
                board=lambda: self.checkpoints.board,
            )
        module.spikes = Spikes(folder, self.checkpoints.newest)

    def _callbacks(self, rank: int) -> list[Callback]:
        chosen = build_callbacks(self.settings, self.folder, rank)
        if self.settings.profile and self.is_first:
            chosen.append(Profile(self.folder / "profile"))
        # The checkpoint last: what the others write of a step is there before it is saved.
        return [self.stop, self.throughput, *chosen, self.checkpoints]

    def _loggers(self) -> list[Logger]:
        if not self.is_first:
            return []
        return [self.metrics, *build_loggers(self.settings, self.folder, self.receipt["id"])]

    def _receipt(self, precision: Precision) -> dict[str, Any]:
        """The run's first one, with a line for each time it went on; or a new one."""
        device = device_type(self.settings.trainer.get("accelerator"))
        now = {
            "data": self.data.fingerprint(),
            "precision": precision.name,
            "world_size": self.settings.world_size,
            "peak": peak_facts(torch.device(device), precision),
            **slurm.facts(),
        }
        facts: dict[str, Any] = {"seed": self.settings.seed}
        facts["parameters"] = self.module.model.num_parameters()
        if self.origin.weights is not None:
            facts["init_from"] = self.origin.weights
        path = self.folder / run_folder.RECEIPT
        first = run_folder.read_json(path)
        restart = self.origin.restart
        # A restart is the same run, even where it has to begin with the first step again.
        if self.origin.checkpoint is None and not (restart and first):
            return run_folder.receipt(**facts, **now)
        earlier = first.get("resumed", [])
        if not isinstance(first.get("id"), str) or not isinstance(earlier, list):
            warnings.warn(f"{path}: is damaged; a new one is begun", stacklevel=2)
            first, earlier = run_folder.receipt(**facts, **now), []
            if self.origin.checkpoint is not None:
                # Loggers know the run by its id, which stands in each of its checkpoints too.
                facts = load_facts(self.origin.checkpoint, self.settings.allow_nonfinite)
                first["id"] = facts["run"]
        leg = run_folder.resumption(self.origin.step, changed=self.origin.changed, **now)
        if restart is not None:
            leg["restart"] = restart.reason
        return {**first, "resumed": [*earlier, leg]}

    def run(self) -> Result:
        """
        Raises:
            ConfigError: if there is no room for what a run says of itself, before the first step.
            RunError: if a save fails, or a step is not finite.
        """
        if not self.is_first:
            with self._listening():
                self._fit()
            return Result(self.folder, {}, self.stop.signal)
        self._begin()
        with log_file(self.folder / "train.log"), self._listening():
            show_changes(self.origin.changed)
            for logger in self.trainer.loggers:
                logger.log_hyperparams(self.printable)
            if self.origin.weights is not None:
                facts = ", ".join(f"{name} {what}" for name, what in self.origin.weights.items())
                log.info("begins with weights: %s", facts)
            log.info("training %s parameters in %s", f"{self.receipt['parameters']:,}", self.folder)
            try:
                self._fit()
            except RunError as error:
                self.stop.failed(error)
                self._finish()
                raise
            with self.module.update_lock:
                summary = self._finish()
        if self.stop.signal is None:
            show(self.module, self.data, summary)
        return Result(self.folder, summary, self.stop.signal)

    def _begin(self) -> None:
        if self.origin.checkpoint is None:
            run_folder.begin(self.folder, self.receipt, self.printable)
        else:
            run_folder.go_on(self.folder, self.receipt, self.printable)
        clean(self.folder / "checkpoints")
        self.metrics.guard(lambda: self.metrics.inner.resume_at(self.origin.step))

    def _fit(self) -> None:
        try:
            self.trainer.fit(
                self.module,
                datamodule=self.data,
                ckpt_path=self.origin.checkpoint,
                weights_only=True,
            )
        except SystemExit as error:  # Lightning's answer to Ctrl-C before the first step
            before = error.__context__
            raise before if isinstance(before, KeyboardInterrupt) else KeyboardInterrupt from error

    def _finish(self) -> dict[str, Any]:
        """Summary, log and terminal; after SIGUSR1, SLURM is asked to start the job again."""
        summary = summarize(self.folder / "metrics.csv", self.module, self.throughput, self.stop)
        Guard(run_folder.SUMMARY)(write_json, self.folder / run_folder.SUMMARY, summary)
        log.info("stopped at step %d: %s", summary["steps"], summary["stop_reason"])
        if self.stop.signal is not None:  # whoever sent it waits: no answers
            show_end(summary)
        if self.stop.signal == signal.SIGUSR1:
            slurm.requeue()
        return summary

    def _listening(self) -> AbstractContextManager[None]:
        last_words = partial(exit_code, self._leave)
        return self.listener.during(self.module.update_lock, last_words, self.agreement)

    def _leave(self) -> int:
        """The end of a training whose step or evaluation takes too long to be waited for."""
        if self.agreement is None or self.agreement.reached:
            # The first rank says what has failed; another's failure is told by the board, or lost.
            with nullcontext() if self.is_first else suppress(Exception):
                self.checkpoints.save_now(self.trainer)
        if not self.is_first:
            wait_to_be_ended()
        if self.agreement is not None and not self.agreement.reached:
            tell_of_no_save(self.stop.signal, self.checkpoints.saved)
        if self.module.evaluated_step != self.trainer.global_step:
            self.stop.cut_off()
        for logger in self.trainer.loggers:
            logger.save()
        self._finish()
        print(self.folder)
        code = 128 + (self.stop.signal or 0)
        joined.announce(code)
        return code


def tell_of_no_save(number: int | None, saved: list[Entry]) -> None:
    """Each rank has some rows of the state, and they could not be had of one step."""
    last = f"the last checkpoint is {saved[0].file}" if saved else "there is no checkpoint"
    name = signal.Signals(number or signal.SIGTERM).name
    text = f"{name}: the ranks came to no common step in time; nothing was saved, {last}"
    log.warning(text)
    warnings.warn(text, stacklevel=2)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """While open, what we log goes to a file."""
    handler = RunLog(path)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
