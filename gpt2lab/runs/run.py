"""One run, as its folder tells of it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from gpt2lab import run_folder
from gpt2lab.config.changes import leaves
from gpt2lab.config.parse import near
from gpt2lab.errors import ConfigError
from gpt2lab.lock import at_work, is_here
from gpt2lab.metrics import last_and_best, read_metrics

STATES = {"itself": "finished", "signal": "stopped", "fault": "failed"}
"""By what ended a run."""
WHERE = ("name", "runs_dir", "resume")
"""Settings by which a run is found, and no two are alike."""
FIGURES = ("seconds", "tokens", "tokens_per_second", "mfu", "peak_memory_bytes")
"""Of summary.json: what a run took."""


@dataclass(frozen=True)
class Run:
    """A run's folder, of which any file may be missing or damaged.

    Args:
        name: by which it is called: its path below the folder that was looked into.
    """

    name: str
    folder: Path

    @cached_property
    def receipt(self) -> dict[str, Any]:
        return run_folder.read_json(self.folder / run_folder.RECEIPT)

    @cached_property
    def summary(self) -> dict[str, Any]:
        return run_folder.read_json(self.folder / run_folder.SUMMARY)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Each setting by its dotted key, but for the run's name."""
        try:
            found = yaml.safe_load((self.folder / run_folder.CONFIG).read_text("utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return {}
        found = dict(leaves(found)) if isinstance(found, dict) else {}
        return {key: value for key, value in found.items() if key not in WHERE}

    @cached_property
    def metrics(self) -> tuple[dict[str, float], dict[str, float]]:
        """The last value of each metric, and the best of those that a run can be judged by."""
        return last_and_best(self._rows)

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        try:
            return read_metrics(self.folder / "metrics.csv")
        except OSError:
            return []

    @property
    def steps(self) -> int | None:
        """As many as are recorded; the run itself says at its end how many there were."""
        steps = self.summary.get("steps")
        if isinstance(steps, int):
            return steps
        return int(self._rows[-1]["step"]) if self._rows else None

    @property
    def state(self) -> str:
        """Running, or how it ended: without a word, if it was killed."""
        if (process := at_work(self.folder)) is not None:
            return "running" if is_here(process) else f"running on {process.get('host')}, or killed"
        return STATES.get(str(self.summary.get("ended_by")), "killed")

    @property
    def started(self) -> str:
        """Date and time of its beginning, to the minute."""
        return text(self.receipt.get("started"))[:16].replace("T", " ")

    @property
    def data(self) -> str:
        """What it is trained on, in a word: a task, a data set, or the name of a file."""
        named = self.settings.get("data.dataset") or Path(text(self.settings.get("data.path"))).name
        source = text(self.settings.get("data.source"))
        kind = text(self.settings.get("data.kind"))
        return text(named) or (source if source not in ("", "file", "files", "hub") else kind)

    def as_json(self) -> dict[str, Any]:
        last, best = self.metrics
        return {
            "name": self.name,
            "folder": str(self.folder),
            "state": self.state,
            "started": self.receipt.get("started"),
            "parameters": self.receipt.get("parameters"),
            "data": self.data,
            "steps": self.steps,
            **{name: self.summary.get(name) for name in (*FIGURES, "stop_reason")},
            "last": last,
            "best": best,
        }


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def runs_in(runs_dir: Path) -> list[Run]:
    """The runs of a folder by their beginning, those of its studies not among them.

    Raises:
        ConfigError: if there is no such folder, or it cannot be read.
    """
    if not runs_dir.is_dir():
        raise ConfigError(f"runs_dir: there is no folder {runs_dir}; name the one that holds runs")
    try:
        found = [Run(path.name, path) for path in children(runs_dir) if run_folder.is_run(path)]
    except OSError as error:
        raise ConfigError(
            f"runs_dir: {runs_dir} cannot be read ({error.strerror}); choose another folder"
        ) from error
    return sorted(found, key=lambda run: (run.started, run.name))


def children(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_dir())


def studies_in(runs_dir: Path) -> dict[str, int]:
    """Folders there that hold runs themselves, with the number of them."""
    counts = {
        path.name: sum(map(run_folder.is_run, children(path)))
        for path in sorted(children(runs_dir))
        if not run_folder.is_run(path)
    }
    return {name: count for name, count in counts.items() if count}


def run_named(key: str, given: str, runs_dir: Path) -> Run:
    """
    Args:
        key: the setting that names it.
        given: its name in runs_dir, or its folder.
    Raises:
        ConfigError: if there is none, with the name that was meant.
    """
    for folder in (runs_dir / given, Path(given).expanduser()):
        if run_folder.is_run(folder):
            return Run(given, folder)
    names = [run.name for run in runs_in(runs_dir)] if runs_dir.is_dir() else []
    mend = near(given, names) if names else "give the folder of a run"
    raise ConfigError(f"{key}: there is no run {given} in {runs_dir}; {mend}")


def check_shown(keys: Iterable[str], runs: Iterable[Run]) -> None:
    """
    Raises:
        ConfigError: for a setting that none of the runs has, with the one that was meant.
    """
    known = {key for run in runs for key in run.settings}
    if known and (missing := [key for key in keys if key not in known]):
        raise ConfigError(*(f"show: no run has a setting {x}; {near(x, known)}" for x in missing))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Both values, None for what is not there, of each key whose values differ."""
    keys = [*a, *(key for key in b if key not in a)]
    return {key: [a.get(key), b.get(key)] for key in keys if a.get(key) != b.get(key)}
