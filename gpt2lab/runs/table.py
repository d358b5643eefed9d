"""Runs as they are read: a line each, or two of them side by side."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.config.changes import shown
from gpt2lab.errors import one_line
from gpt2lab.runs.run import Run

FOLLOWING = ("val/perplexity",)
"""What is known with another metric is no column of the list."""
WIDE = 10_000
"""Columns where nobody's window cuts lines off: in a file or a pipe."""


def show_list(runs: Sequence[Run], settings: Sequence[str], studies: Mapping[str, int]) -> None:
    """
    Args:
        settings: those that have a column each.
        studies: how many runs each of the folders has that are not listed.
    """
    judged = [name for name in HIGHER_IS_BETTER if name not in FOLLOWING]
    metrics = [name for name in judged if any(name in run.metrics[1] for run in runs)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "started", "state", "data", *settings):
        table.add_column(as_text(name))
    for name in ("parameters", "steps", "time", *(f"best {name}" for name in metrics)):
        table.add_column(name, justify="right")
    for run in runs:
        started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else ""
        best = run.metrics[1]
        cells = [run.name, started, run.state, run.data]
        cells += [value(run.settings[key]) if key in run.settings else "" for key in settings]
        cells += [number(run.receipt.get("parameters")), number(run.steps)]
        cells += [duration(run.summary.get("seconds")), *(number(best.get(m)) for m in metrics)]
        table.add_row(*map(as_text, cells))
    console = on_paper()
    if runs:
        console.print(table)
    for name, count in studies.items():
        its_own = f"{count} run{'s' * (count > 1)}"
        console.print(as_text(f"{name}/ holds {its_own}; runs_dir= lists them"))
    if not runs and not studies:
        console.print("no runs")


def show_difference(a: Run, b: Run, found: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """
    Args:
        found: as `compared` gives it.
    """
    console = on_paper()
    unread = [run.name for run in (a, b) if not run.settings]
    if unread:
        console.print(as_text(f"the settings of {' and '.join(unread)} cannot be read"))
    elif not found["settings"]:
        console.print("all settings are the same")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", a.name, b.name):
        table.add_column(as_text(name))
    for part in ("settings", "made_with"):
        for key, values in found[part].items():
            table.add_row(as_text(key), *(as_text(value(each)) for each in values))
        if found[part]:
            table.add_section()
    for key, values in found["results"].items():
        show = duration if key == "seconds" else number
        table.add_row(as_text(key.replace(".", " ", 1)), *(as_text(show(x)) for x in values))
    console.print(table)


def value(found: Any) -> str:
    return "" if found is None else shown(found)


def number(found: Any) -> str:
    """1,234, or a fraction with four digits that count; text as it is."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return "" if found is None else str(found)
    return f"{found:,}" if isinstance(found, int) else f"{found:,.4g}"


def duration(seconds: Any) -> str:
    """Hours, minutes and seconds: 0:01:05."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return ""
    return str(timedelta(seconds=round(seconds)))


def as_text(found: str) -> Text:
    """For rich would take [brackets] of a name for its own, and a terminal escapes."""
    return Text(one_line(found))


def on_paper() -> Console:
    """Tables are as wide as they are, where no window cuts them off."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)
