"""A trial's learning curve, read while it grows, and the pruner's word on it."""

import math
from contextlib import suppress
from pathlib import Path

import optuna

from gpt2lab.metrics import read_metrics


class Watch:
    """
    Args:
        path: the metrics.csv of the trial.
        metric: its column that is judged.
        is_turned: whether that is better where the study's goal is worse.
        trial: Optuna's.
        last_step: up to which it has been reported before.
    """

    def __init__(
        self, path: Path, metric: str, is_turned: bool, trial: optuna.Trial, last_step: int | None
    ) -> None:
        self.path = path
        self.metric = metric
        self.sign = -1.0 if is_turned else 1.0
        self.trial = trial
        self.last_step = -1 if last_step is None else last_step
        self._seen: tuple[int, int] | None = None

    def should_prune(self) -> bool:
        """Report what is new; whether the trial does worse than others did."""
        if not self._has_changed():
            return False
        for row in read_metrics(self.path):
            step, text = int(row["step"]), row.get(self.metric)
            if step <= self.last_step or not text or not math.isfinite(float(text)):
                continue
            self.last_step = step
            self.trial.report(self.sign * float(text), step)
            if self.trial.should_prune():
                return True
        return False

    def _has_changed(self) -> bool:
        before, self._seen = self._seen, None
        with suppress(OSError):
            stat = self.path.stat()
            self._seen = stat.st_size, stat.st_mtime_ns
        return self._seen is not None and self._seen != before
