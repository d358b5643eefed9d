"""Where metrics go. No logger can stop a run, slow it down by more than a write, or change it."""

import csv
import logging
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.loggers.logger import Logger
from numpy.typing import NDArray

from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.guard import Guard
from gpt2lab.metrics import read_metrics, rewrite

COLUMNS = [
    "step",
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "train/tokens_per_second",
    "train/mfu",
    *HIGHER_IS_BETTER,
]


class CSVLogger(Logger):
    """metrics.csv: one row a logged step; appends on resume, without the rows beyond that step."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns = list(COLUMNS)
        self.row: dict[str, float] = {}
        self.resumed_step: int | None = None
        """The step that a resumed run goes on from, whose row may be there already."""

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
        if row["step"] == self.resumed_step:
            self._complete(row)
            return
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _complete(self, row: dict[str, float]) -> None:
        """Add to the last row, if it is this step's, what was still to be measured then."""
        rows: list[dict[str, Any]] = list(read_metrics(self.path))
        begun = rows.pop() if rows and int(rows[-1]["step"]) == row["step"] else {}
        rewrite(self.path, self.columns, [*rows, begun | row])

    def finalize(self, status: str) -> None:
        self.save()

    def resume_at(self, step: int) -> None:
        """Drop the rows beyond the step that a resumed run goes on from."""
        self.resumed_step = step
        if not self.path.is_file():
            return
        rows = read_metrics(self.path)
        if not rows and self.path.stat().st_size > len(",".join(COLUMNS)) + 1:
            kept = self.path.replace(self.path.with_name("metrics.csv.damaged"))
            warnings.warn(f"{self.path}: is damaged; it is kept as {kept.name}", stacklevel=2)
            return
        self.columns += [c for row in rows[:1] for c in row if c not in self.columns]
        rewrite(self.path, self.columns, [row for row in rows if int(row["step"]) <= step])


class RunLog(logging.FileHandler):
    """train.log: what we log, while there is room for it."""

    def __init__(self, path: Path) -> None:
        self.guard = Guard(path.name)
        super().__init__(path, delay=True)  # opened with the first line, so that failing is guarded
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.guard(super().emit, record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise  # what went wrong in emit, for the guard; logging would print a traceback

    def close(self) -> None:
        self.guard(super().close)  # what is still to be flushed may not fit either


@contextmanager
def no_terminal() -> Iterator[None]:
    """While open, there is nobody to be asked."""
    stdin = sys.stdin
    with Path(os.devnull).open() as sys.stdin:
        try:
            yield
        finally:
            sys.stdin = stdin


class Guarded(Logger):
    """A logger whose failures are one warning: training goes on, with the same weights.

    Args:
        make: builds the logger; importing it, its key and its network may be what is missing.
    """

    def __init__(self, key: str, make: Callable[[], Logger]) -> None:
        super().__init__()
        self.key = key
        self.guard = Guard(key, Exception, SystemExit)
        self.inner: Any = self.guard(make)

    @property
    def name(self) -> str:
        return self.key

    @property
    def version(self) -> str:
        return ""

    @property
    def experiment(self) -> Any:
        """The inner logger's own object, for callbacks that know it; None once it has failed."""
        return self.guard(lambda: getattr(self.inner, "experiment", None))

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        with no_terminal():  # wandb would ask for a key, and wait
            self.guard(lambda: self.inner.log_hyperparams(params, *args, **kwargs))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.guard(lambda: self.inner.log_metrics(dict(metrics), step))

    def log_text(self, name: str, text: str, step: int) -> None:
        """A text in Markdown, for those that show one."""
        if hasattr(self.inner, "log_text"):
            self.guard(lambda: self.inner.log_text(name, text, step))
        elif hasattr(self.experiment, "add_text"):  # TensorBoard's own
            self.guard(lambda: self.experiment.add_text(name, text, step))

    def log_picture(self, name: str, path: Path, step: int) -> None:
        """A PNG file, for those that show one."""
        if hasattr(self.inner, "log_image"):
            self.guard(lambda: self.inner.log_image(name, [str(path)], step))
        elif hasattr(self.experiment, "add_image"):
            self.guard(lambda: self.experiment.add_image(name, pixels(path), step))

    def save(self) -> None:
        self.guard(lambda: self.inner.save())

    def finalize(self, status: str) -> None:
        self.guard(lambda: self.inner.finalize(status))


def show_text(trainer: Trainer, name: str, text: str) -> None:
    """Hand a text in Markdown, such as samples, to the loggers that show one, for this step."""
    for logger in trainer.loggers:
        if isinstance(logger, Guarded):
            logger.log_text(name, text, trainer.global_step)


def show_picture(trainer: Trainer, name: str, path: Path) -> None:
    """Hand a PNG file, if it is there, to the loggers that show one, for this step.

    Any callback may do so until training has ended, `teardown` included; wandb copies the file.
    """
    for logger in trainer.loggers:
        if isinstance(logger, Guarded) and path.is_file():
            logger.log_picture(name, path, trainer.global_step)


def pixels(path: Path) -> NDArray[np.uint8]:
    """(3, height, width)."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
