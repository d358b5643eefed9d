"""What happens around the steps: speed, progress, curves, a profile, and the stop."""

import logging
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gpt2lab.config import HIGHER_IS_BETTER, Precision, parse_stop_at
from gpt2lab.curves import draw_curves
from gpt2lab.errors import RunError
from gpt2lab.guard import Guard
from gpt2lab.loggers import show_picture
from gpt2lab.peak import Peak, peak_of
from gpt2lab.signals import ASKED, Listener

log = logging.getLogger("gpt2lab")


class Throughput(Callback):
    """Tokens and seconds of training alone: evaluations and checkpoints are not counted.

    Args:
        tokens_per_step: on all devices.
        flops_per_step: the model's, for its share of what the devices could do.
        precision: of the matrix products; None for no such share.
    """

    def __init__(
        self, tokens_per_step: int, flops_per_step: int = 0, precision: Precision | None = None
    ) -> None:
        self.tokens_per_step = tokens_per_step
        self.flops_per_step = flops_per_step
        self.precision = precision
        self.peak: Peak | None = None
        """Of all devices; looked for when the first record is due, for a CPU is measured."""
        self._has_looked = False
        self.seconds = 0.0
        self.steps = 0
        self._mark: float | None = None
        self._at_last_record = (0, 0.0)

    @property
    def tokens_per_second(self) -> float:
        return self.steps * self.tokens_per_step / self.seconds if self.seconds else 0.0

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation of the whole training; None where no peak is known."""
        return self.utilisation(self.steps, self.seconds)

    def utilisation(self, steps: int, seconds: float) -> float | None:
        if self.peak is None or not seconds:
            return None
        return steps * self.flops_per_step / seconds / self.peak.flops_per_second

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.steps = state_dict["seconds"], state_dict["steps"]
        self._at_last_record = self.steps, self.seconds

    def on_train_batch_start(self, *_: Any) -> None:
        if self._mark is None:
            self._mark = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        now = time.perf_counter()
        self.seconds += now - (now if self._mark is None else self._mark)
        self.steps += 1
        self._mark = now  # the next batch's loading counts too
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._look_for_peak(trainer, pl_module)
            pl_module.record(self._since_last_record())
            self._at_last_record = self.steps, self.seconds

    def _since_last_record(self) -> dict[str, float]:
        steps = self.steps - self._at_last_record[0]
        seconds = self.seconds - self._at_last_record[1]
        if not seconds:
            return {}
        metrics = {"train/tokens_per_second": steps * self.tokens_per_step / seconds}
        mfu = self.utilisation(steps, seconds)
        return metrics if mfu is None else metrics | {"train/mfu": mfu}

    def _look_for_peak(self, trainer: Trainer, pl_module: Any) -> None:
        """Once, on all ranks at the same step: together they share the cores of a machine."""
        if self._has_looked or self.precision is None:
            return
        self._has_looked = True
        peak = peak_of(pl_module.device, self.precision)
        self._mark = time.perf_counter()  # that was not training
        if peak is not None:
            self.peak = peak.of(trainer.world_size)
            rate = self.peak.flops_per_second
            log.info("peak of all devices: %.4g FLOP/s, %s", rate, peak.source)

    def on_validation_start(self, *_: Any) -> None:
        self._mark = None

    def on_save_checkpoint(self, *_: Any) -> None:
        self._mark = None


class Progress(Callback):
    """A bar with loss, tokens a second and time left; nothing where stderr is not a terminal."""

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.task: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        console = Console(stderr=True)
        if not console.is_terminal:
            return
        self.bar = Bar(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[metrics]}"),
            TextColumn("at most"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            refresh_per_second=4,
        )
        self.bar.start()
        total, done = pl_module.settings.max_steps, trainer.global_step
        self.task = self.bar.add_task("train", total=total, completed=done, metrics="")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if self.bar is None:
            return
        self.bar.update(self.task, completed=trainer.global_step)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.bar.update(self.task, metrics=_shown(pl_module.latest))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, metrics=_shown(pl_module.latest))

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _shown(metrics: dict[str, float]) -> str:
    formats = {
        "train/loss": "loss {:.4f}",
        "val/loss": "val {:.4f}",
        "val/exact_match": "exact match {:.3f}",
        "val/bits_per_byte": "{:.3f} bits a byte",
        "train/tokens_per_second": "{:,.0f} tokens/s",
    }
    return "  ".join(text.format(metrics[n]) for n, text in formats.items() if n in metrics)


class Curves(Callback):
    """A picture, drawn from the metrics.csv beside it when training ends, however it ends."""

    def __init__(self, path: str) -> None:
        self.picture = Path(path)
        self.metrics = self.picture.with_name("metrics.csv")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            logger.save()
        Guard(self.picture.name)(draw_curves, self.metrics, self.picture)
        show_picture(trainer, "curves", self.picture)


class Profile(Callback):
    """Ten steps, or half of a shorter training, under torch's profiler: a trace and a table.

    trace.json opens in Perfetto or chrome://tracing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profiler: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.max_steps - trainer.global_step
        active = min(10, (steps + 1) // 2)
        warmup = min(5, steps - active)
        wait = min(5, steps - active - warmup)
        self.profiler = torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=wait, warmup=warmup, active=active, repeat=1),
            on_trace_ready=partial(Guard(self.folder.name), self._write),
        )
        self.profiler.start()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.profiler is not None:
            self.profiler.step()

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _write(self, profiler: Any) -> None:
        self.folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        table = profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=30)
        (self.folder / "table.txt").write_text(table)


class Stop(Callback):
    """Ends training between steps, and remembers why.

    At a limit or a target, the last step is evaluated and saved. At a signal it is saved, and
    evaluated only if an evaluation was due and ends in time.

    Args:
        minutes_gone: of max_minutes, those that ranks have used up which were lost.
        save: writes the state as it is to the disk, unless it is there.
    """

    def __init__(
        self,
        *,
        max_steps: int,
        max_minutes: float | None,
        minutes_gone: float = 0.0,
        stop_at: str | None,
        listener: Listener,
        save: Callable[[Trainer], None],
    ) -> None:
        self.max_steps = max_steps
        minutes = max_minutes - minutes_gone if max_minutes else None
        self.deadline = time.monotonic() + 60 * minutes if minutes is not None else None
        self.max_minutes = max_minutes
        self.stop_at = stop_at
        self.listener = listener
        self.save = save
        self._reason: str | None = None
        self._has_failed = False

    @property
    def signal(self) -> int | None:
        return self.listener.number

    @property
    def reason(self) -> str | None:
        if self._reason is None and self.signal is not None:
            return signal.Signals(self.signal).name
        return self._reason

    @property
    def ended_by(self) -> str:
        """Whether the run came to its own end: `itself`, or else a `signal` or a `fault`."""
        if self._has_failed:
            return "fault"
        return "signal" if self._reason is None and self.signal is not None else "itself"

    def failed(self, error: RunError) -> None:
        """An error is the reason."""
        self._has_failed = True
        self._reason = str(error).partition(";")[0]

    def cut_off(self) -> None:
        """A signal leaves no time for the evaluation at the end: that is still to come."""
        self._reason = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own handlers save or wait for other ranks in the middle of whatever runs.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step >= self.max_steps:
            # Where no step is left Lightning skips all the rest too: the evaluation that is owed.
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step + 1

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.listener.listen()
        pl_module.votes = self._votes
        # Of its end, a run that was killed there has not been able to tell.
        if trainer.global_step >= self.max_steps:
            self._stop(trainer, f"max_steps={self.max_steps}")
        if pl_module.evaluated_step == trainer.global_step:
            self._stop_at_target(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # The signal came between steps, so this one need not begin. Ranks hear it at different
        # moments: several finish the step and agree in on_train_batch_end.
        if self.signal is not None and trainer.world_size == 1:
            trainer.should_stop = True

    def _votes(self) -> list[float]:
        """Whether time is up, and which signal has come: of several ranks, each has a clock and
        signals of its own, but all stop after the same step."""
        is_late = self.deadline is not None and time.monotonic() >= self.deadline
        return [is_late, *(self.signal == number for number in ASKED)]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        # A rank by itself need not go by what it said before the step's end.
        late, *asked = self._votes() if trainer.world_size == 1 else pl_module.tallies
        number = max(n if votes else 0 for n, votes in zip(ASKED, asked, strict=True))
        if trainer.global_step >= self.max_steps:
            self._stop(trainer, f"max_steps={self.max_steps}")
        if late:
            self._stop(trainer, f"max_minutes={self.max_minutes:g}")
        if number:
            self.listener.number = number
            if trainer.global_step % trainer.val_check_interval and not trainer.should_stop:
                trainer.limit_val_batches = 0  # only stopping would bring an evaluation here
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._stop_at_target(trainer, pl_module)

    def _stop_at_target(self, trainer: Trainer, pl_module: Any) -> None:
        if self.stop_at is None:
            return
        metric, target = parse_stop_at(self.stop_at)
        value = pl_module.latest[metric]
        if value >= target if HIGHER_IS_BETTER[metric] else value <= target:
            self._stop(trainer, f"stop_at={self.stop_at}")

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        if self.signal is not None:
            self.save(trainer)

    def _stop(self, trainer: Trainer, reason: str) -> None:
        self._reason = self._reason or reason
        trainer.should_stop = True
