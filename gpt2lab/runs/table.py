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

JUDGED = [name for name in HIGHER_IS_BETTER if name != "val/perplexity"]
"""Metrics of which the list has the best value; perplexity is the loss told otherwise."""
DROPPED = ("val/token_accuracy", "val/bits_per_byte", "parameters", "time", "started", "data")
"""The columns that go first, in this order."""
WIDE = 10_000
"""Columns where nobody's window cuts lines off: in a file or a pipe."""


def show_list(runs: Sequence[Run], settings: Sequence[str], studies: Mapping[str, int]) -> None:
    """
    Args:
        settings: those that have a column each.
        studies: of each folder that has runs of its own, how many those are.
    """
    console = on_paper()
    columns = columns_of(runs, settings)
    table = as_table(columns)
    for name in DROPPED:  # those that a narrow terminal has no room for
        if name in columns and width_of(table) > console.width:
            del columns[name]
            table = as_table(columns)
    if runs:
        console.print(table)
    for name, count in studies.items():
        its_own = f"{count} run{'s' * (count > 1)}"
        console.print(as_text(f"{name} holds {its_own}; runs_dir={name} lists them"))
    if not runs and not studies:
        console.print("no runs")


def columns_of(runs: Sequence[Run], settings: Sequence[str]) -> dict[str, list[str]]:
    """The cells under each title; without those in which no run has anything to say."""
    best = [run.metrics[1] for run in runs]
    columns = {
        "run": [run.name for run in runs],
        "started": [f"{run.started:%Y-%m-%d %H:%M}" if run.started else "" for run in runs],
        "state": [run.state for run in runs],
        "data": [run.data for run in runs],
        **{key: [value(run.settings.get(key)) for run in runs] for key in settings},
        "parameters": [number(run.receipt.get("parameters")) for run in runs],
        "steps": [number(run.steps) for run in runs],
        "time": [duration(run.summary.get("seconds")) for run in runs],
        **{name: [number(values.get(name)) for values in best] for name in JUDGED},
    }
    return {title: cells for title, cells in columns.items() if any(cells) or title in settings}


def as_table(columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in columns:
        is_number = title in (*JUDGED, "parameters", "steps", "time")
        table.add_column(as_text(title), justify="right" if is_number else "left", overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(as_text, row))
    return table


def width_of(table: Table) -> int:
    """Characters of its lines where nothing is wrapped."""
    return Console(width=WIDE).measure(table).maximum


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
        table.add_column(as_text(name), overflow="fold")
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
