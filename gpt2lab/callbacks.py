"""What happens around the steps: speed, progress, curves, a profile, and the stop."""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gpt2lab.config import HIGHER_IS_BETTER, parse_stop_at
from gpt2lab.curves import draw_curves


class Throughput(Callback):
    """Tokens and seconds of training alone: evaluations and checkpoints are not counted."""

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.seconds = 0.0
        self.steps = 0
        self._mark: float | None = None
        self._at_last_record = (0, 0.0)

    @property
    def tokens_per_second(self) -> float:
        return self.steps * self.tokens_per_step / self.seconds if self.seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.steps = state_dict["seconds"], state_dict["steps"]
        self._at_last_record = self.steps, self.seconds

    def on_train_batch_start(self, *_: Any) -> None:
        if self._mark is None:
            self._mark = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        assert self._mark is not None
        now = time.perf_counter()
        self.seconds += now - self._mark
        self.steps += 1
        self._mark = now  # the next batch's loading counts too
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            steps, seconds = self._at_last_record
            tokens = (self.steps - steps) * self.tokens_per_step
            pl_module.record({"train/tokens_per_second": tokens / (self.seconds - seconds)})
            self._at_last_record = self.steps, self.seconds

    def on_validation_start(self, *_: Any) -> None:
        self._mark = None


class Progress(Callback):
    """A bar with loss, tokens a second and time left; nothing where stderr is not a terminal."""

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.task: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        total, done = trainer.max_steps, trainer.global_step
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
        draw_curves(self.metrics, self.picture)


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
            on_trace_ready=self._write,
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
    """Ends training between steps, evaluated and saved, and remembers why."""

    def __init__(self, *, max_steps: int, max_minutes: float | None, stop_at: str | None) -> None:
        self.max_steps = max_steps
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes else None
        self.max_minutes = max_minutes
        self.stop_at = stop_at
        self.reason: str | None = None
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, *_: Any) -> None:
        # Lightning has installed its handlers by now; these replace them until training ends.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt  # asked twice: leave at once
        self.signal = number

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step >= self.max_steps:
            self._stop(trainer, f"max_steps={self.max_steps}")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self._stop(trainer, f"max_minutes={self.max_minutes:g}")
        if self.signal is not None:
            trainer.limit_val_batches = 0  # whoever sent it waits: save, and leave
            self._stop(trainer, signal.Signals(self.signal).name)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.stop_at is None:
            return
        metric, target = parse_stop_at(self.stop_at)
        value = pl_module.latest[metric]
        if value >= target if HIGHER_IS_BETTER[metric] else value <= target:
            self._stop(trainer, f"stop_at={self.stop_at}")

    def _stop(self, trainer: Trainer, reason: str) -> None:
        self.reason = self.reason or reason
        trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:
        self._restore()

    def on_exception(self, *_: Any) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
