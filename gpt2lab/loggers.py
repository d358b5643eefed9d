"""Where metrics go. No logger can stop a run, slow it down by more than a write, or change it."""

import csv
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from gpt2lab.config import HIGHER_IS_BETTER

COLUMNS = [
    "step",
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "train/tokens_per_second",
    *HIGHER_IS_BETTER,
]


class CSVLogger(Logger):
    """metrics.csv: one row a logged step; appends on resume, without the rows beyond that step."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns = list(COLUMNS)
        self.row: dict[str, float] = {}

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings stand in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.row and self.row["step"] != step:
            self.save()
        self.row |= {"step": step or 0, **metrics}

    def save(self) -> None:
        if not self.row:
            return
        row, self.row = self.row, {}
        unknown = [column for column in row if column not in self.columns]
        if unknown:
            self.columns += unknown
            rewrite(self.path, self.columns, read_metrics(self.path))
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def finalize(self, status: str) -> None:
        self.save()

    def resume_at(self, step: int) -> None:
        """Drop the rows beyond the step that a resumed run goes on from."""
        if not self.path.exists():
            return
        rows = read_metrics(self.path)
        self.columns += [c for row in rows[:1] for c in row if c not in self.columns]
        rewrite(self.path, self.columns, [row for row in rows if int(row["step"]) <= step])


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a line that a kill cut short or a disk damaged is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row.get("step", "").isdigit() and _is_whole(row)]


def _is_whole(row: dict[str, str]) -> bool:
    try:
        [float(cell) for cell in row.values() if cell != ""]
    except (TypeError, ValueError):
        return False
    return True


def rewrite(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


class Guarded(Logger):
    """A logger whose failures are one warning: training goes on, with the same weights.

    Args:
        make: builds the logger; importing it, its key and its network may be what is missing.
    """

    def __init__(self, key: str, make: Callable[[], Logger]) -> None:
        super().__init__()
        self.key = key
        self.inner: Logger | None = None
        self.inner = self._try(make)

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return action(*args, **kwargs)
        except (Exception, SystemExit) as error:
            self.inner = None
            what = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(f"{self.key}: {what}; training goes on without it", stacklevel=2)
            return None

    @property
    def name(self) -> str:
        return self.key

    @property
    def version(self) -> str:
        return ""

    @property
    def experiment(self) -> Any:
        """The inner logger's own object, for callbacks that know it; None once it has failed."""
        return self._try(lambda: getattr(self.inner, "experiment", None))

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        if self.inner is not None:
            self._try(self.inner.log_hyperparams, params, *args, **kwargs)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.inner is not None:
            self._try(self.inner.log_metrics, dict(metrics), step)

    def save(self) -> None:
        if self.inner is not None:
            self._try(self.inner.save)

    def finalize(self, status: str) -> None:
        if self.inner is not None:
            self._try(self.inner.finalize, status)
