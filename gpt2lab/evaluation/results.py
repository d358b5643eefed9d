"""What an evaluation found: a file of JSON, and a table beside published numbers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2lab.checkpoint import is_checkpoint
from gpt2lab.durable import write_json
from gpt2lab.errors import ConfigError, RunError
from gpt2lab.evaluation.published import SIZES, nearest
from gpt2lab.evaluation.task import Metric
from gpt2lab.run_folder import is_run

EVALUATIONS = "evaluations"


def folder_of(checkpoint: Path, to: str | None) -> Path:
    """Where results go: as asked; else into the run's folder; else here, by the checkpoint's name.

    A checkpoint belongs to a run if it is the run's folder, or lies in its `checkpoints`.
    """
    if to is not None:
        return Path(to)
    if is_run(checkpoint):
        return checkpoint / EVALUATIONS
    if is_checkpoint(checkpoint) and checkpoint.parent.name == "checkpoints":
        return checkpoint.absolute().parent.parent / EVALUATIONS
    return Path(EVALUATIONS) / named(checkpoint)


def named(checkpoint: Path) -> str:
    """The name of its file or folder, as far as it can be part of another's."""
    return re.sub(r"[^\w.-]+", "-", checkpoint.resolve().name) or "model"


def make(folder: Path) -> None:
    """
    Raises:
        ConfigError: if the file system will not have it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"to: {folder} cannot be made ({error.strerror}); choose another folder"
        ) from error


def write(target: Path, results: dict[str, Any]) -> None:
    """
    Raises:
        RunError: if the system cannot.
    """
    try:
        write_json(target, results)
    except OSError as error:
        raise RunError(
            f"{target}: cannot be written ({error.strerror}); choose another folder with to="
        ) from error


def as_results(task: str, metrics: Sequence[Metric], parameters: int) -> dict[str, Any]:
    """Each metric with its interval and what was published of the nearest size, in JSON's types."""
    found: dict[str, Any] = {}
    for metric in metrics:
        value, low, high = metric.interval
        found[metric.name] = {"value": value, "low": low, "high": high, "over": metric.over}
        if published := nearest(task, metric.name, parameters):
            found[metric.name]["published"] = {
                "value": published.value,
                "size": SIZES[published.parameters],
                "source": published.source,
            }
    return found


def show(results: dict[str, Any]) -> None:
    """The table, and whose the published numbers are."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column(results["task"], no_wrap=True)
    has_published = any("published" in found for found in results["metrics"].values())
    for column in ("ours", "95 % interval", *["published"] * has_published):
        table.add_column(column, justify="right", no_wrap=True)
    sources: dict[str, list[str]] = {}
    for name, found in results["metrics"].items():
        ends = [shown(end) for end in (found["low"], found["high"]) if end is not None]
        row = [name, shown(found["value"]), " to ".join(ends)]
        if published := found.get("published"):
            row.append(f"{shown(published['value'])} ({published['size']})")
            sources.setdefault(published["source"], []).append(name)
        table.add_row(*row)
    console = Console()
    console.print(table)
    for source, names in sources.items():
        console.print(f"  published: {', '.join(names)} by {source}", highlight=False)


def shown(value: float) -> str:
    """As many places as are read: 0.3256, 29.41, 1,234, 1.19e+08."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    places = 4 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
    return f"{value:,.{places}f}"
