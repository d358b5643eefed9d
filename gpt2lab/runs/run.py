"""One run, as its folder tells of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
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
RESULTS = ("state", "stop_reason", "steps", *FIGURES)
"""What two runs came to, before their metrics."""
MADE_WITH = (
    *("data", "init_from", "parameters", "precision", "world_size"),
    *("git_revision", "versions", "machine"),
)
"""Of a receipt: what may explain that two runs differ."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C is ten times as fast."""
MOST = 10_000
"""Settings beyond which a file is none of ours: yaml's aliases can make any number of them."""
EPOCH = datetime.fromtimestamp(0, UTC)


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
        """Each setting by its dotted key, but for where the run is."""
        try:
            path = self.folder / run_folder.CONFIG
            found = LOADER(path.read_text("utf-8")).get_single_data() if path.is_file() else {}
            every = dict(islice(leaves(found), MOST)) if isinstance(found, dict) else {}
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return {}
        return {key: value for key, value in every.items() if key not in WHERE}

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

    @cached_property
    def state(self) -> str:
        """Running, or how it ended: without a word, if it was killed."""
        if (process := at_work(self.folder)) is not None:
            return "running" if is_here(process) else f"running on {process.get('host')}"
        return STATES.get(str(self.summary.get("ended_by")), "killed")

    @property
    def started(self) -> datetime | None:
        """When it was begun, with the offset from UTC there."""
        try:
            found = datetime.fromisoformat(text(self.receipt.get("started")))
        except ValueError:
            return None
        return found if found.tzinfo is not None else None

    @property
    def data(self) -> str:
        """What it is trained on, in a word: a task, a data set, or the name of a file."""
        named = self.settings.get("data.dataset") or Path(text(self.settings.get("data.path"))).name
        source = text(self.settings.get("data.source"))
        kind = text(self.settings.get("data.kind"))
        return text(named) or (source if source not in ("", "file", "files", "hub") else kind)

    @property
    def made_with(self) -> dict[str, Any]:
        """What its receipt says of code, machine and data, as it was when it last went on."""
        resumed = self.receipt.get("resumed")
        leg = resumed[-1] if isinstance(resumed, list) and resumed else {}
        facts = self.receipt | (leg if isinstance(leg, dict) else {})
        found = {key: facts.get(key) for key in MADE_WITH}
        return dict(leaves(found | {"resumed_at_step": facts.get("step")}))

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
    found = [Run(path.name, path) for path in children(runs_dir) if is_run(path)]
    if not found and is_run(runs_dir):
        raise ConfigError(f"runs_dir: {runs_dir} is a run; name the folder that holds it")
    return sorted(found, key=lambda run: (run.started or EPOCH, run.name))


def studies_in(runs_dir: Path) -> dict[str, int]:
    """Folders there that hold runs themselves, with the number of them.

    Raises:
        ConfigError: as `runs_in` does.
    """
    counts = {}
    for folder in children(runs_dir):
        if not is_run(folder):
            try:
                counts[folder.name] = sum(is_run(path) for path in folder.iterdir())
            except OSError:  # a file, or closed to us
                continue
    return {name: count for name, count in sorted(counts.items()) if count}


def children(runs_dir: Path) -> list[Path]:
    try:
        return list(runs_dir.iterdir())
    except FileNotFoundError as error:
        raise ConfigError(
            f"runs_dir: there is no folder {runs_dir}; name the one that holds runs"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name that can be none
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"runs_dir: {runs_dir} cannot be read ({why}); choose another folder"
        ) from error


def is_run(folder: Path) -> bool:
    try:
        return run_folder.is_run(folder)
    except (OSError, ValueError):
        return False


def run_named(key: str, given: str, runs_dir: Path) -> Run:
    """
    Args:
        key: the setting that names it.
        given: its name in runs_dir, or its folder.
    Raises:
        ConfigError: if there is none, with the name that was meant.
    """
    for folder in (runs_dir / given, Path(given)):
        if is_run(folder):
            return Run(given, folder)
    names = [run.name for run in runs_in(runs_dir)]
    mend = near(given, names) if names else "give the folder of a run"
    raise ConfigError(f"{key}: there is no run {given} in {runs_dir}; {mend}")


def check_shown(keys: Iterable[str], runs: Iterable[Run]) -> None:
    """
    Raises:
        ConfigError: for a setting that none of the runs has, with the one that was meant.
    """
    known = {key for run in runs for key in run.settings}
    missing = [key for key in keys if key not in known]
    if known and missing:
        raise ConfigError(*(f"show: {x} is no setting of these; {near(x, known)}" for x in missing))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Both values, None for what is not there, of each key whose values differ."""
    keys = [*a, *(key for key in b if key not in a)]
    return {key: [a.get(key), b.get(key)] for key in keys if a.get(key) != b.get(key)}


def compared(a: Run, b: Run) -> dict[str, dict[str, list[Any]]]:
    """What differs of settings and circumstances, and all results; of each key both values."""
    results = a.as_json() | flat(a), b.as_json() | flat(b)
    keys = [*RESULTS, *sorted(flat(a) | flat(b), key=lambda key: key.startswith("last."))]
    return {
        "settings": differences(a.settings, b.settings),
        "made_with": differences(a.made_with, b.made_with),
        "results": {key: [found.get(key) for found in results] for key in keys},
    }


def flat(run: Run) -> dict[str, float]:
    """best.val/loss and the like."""
    last, best = run.metrics
    return {f"best.{k}": v for k, v in best.items()} | {f"last.{k}": v for k, v in last.items()}
