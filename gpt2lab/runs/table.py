"""Runs as they are read: a line each, or two of them side by side."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.config.changes import leaves, shown
from gpt2lab.errors import one_line
from gpt2lab.runs.run import FIGURES, Run, differences

MADE_WITH = (
    *("data", "init_from", "parameters", "precision", "world_size"),
    *("git_revision", "versions", "machine"),
)
"""Of a receipt, what may explain that two runs differ."""
WIDE = 10_000
"""Columns where nobody's window cuts lines off: in a file or a pipe."""


def show_list(runs: Sequence[Run], settings: Sequence[str], studies: Mapping[str, int]) -> None:
    """
    Args:
        settings: those that have a column each.
        studies: how many runs each of the folders has that are not listed.
    """
    metrics = [name for name in HIGHER_IS_BETTER if any(name in run.metrics[1] for run in runs)]
    # What follows from another metric by itself is no column.
    metrics = [name for name in metrics if name != "val/perplexity"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "started", "state", "data"):
        table.add_column(name)
    for name in settings:
        table.add_column(Text(name))
    for name in ("parameters", "steps", "time", *(f"best {name}" for name in metrics)):
        table.add_column(name, justify="right")
    for run in runs:
        best = run.metrics[1]
        cells = [run.name, run.started, run.state, run.data]
        cells += [value_of(run.settings, name) for name in settings]
        cells += [number(run.receipt.get("parameters")), number(run.steps)]
        cells += [duration(run.summary.get("seconds")), *(number(best.get(m)) for m in metrics)]
        table.add_row(*map(as_text, cells))
    console = on_paper()
    if runs:
        console.print(table)
    for name, count in studies.items():
        console.print(
            as_text(f"{name}/ holds {count} run{'s' * (count > 1)}; runs_dir= lists them")
        )
    if not runs and not studies:
        console.print("no runs")


def show_difference(a: Run, b: Run) -> None:
    """Settings, circumstances and results of two runs, a column each."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", a.name, b.name):
        table.add_column(as_text(name))
    found = compared(a, b)
    for title in ("settings", "made with"):
        for key, values in found[title].items():
            table.add_row(as_text(key), *(as_text(value(each)) for each in values))
        if found[title]:
            table.add_section()
    for key, values in found["results"].items():
        show = duration if key == "seconds" else number
        table.add_row(as_text(key), *(as_text(show(each)) for each in values))
    console = on_paper()
    if not found["settings"]:
        console.print("all settings are the same")
    console.print(table)


def compared(a: Run, b: Run) -> dict[str, dict[str, list[Any]]]:
    """What differs of settings and circumstances, and all results; of each key both values."""
    made = ({k: run.receipt.get(k) for k in MADE_WITH} for run in (a, b))
    results = [dict(results_of(run)) for run in (a, b)]
    keys = dict.fromkeys([*results[0], *results[1]])
    return {
        "settings": differences(a.settings, b.settings),
        "made with": differences(*(dict(leaves(each)) for each in made)),
        "results": {key: [each.get(key) for each in results] for key in keys},
    }


def results_of(run: Run) -> Iterable[tuple[str, Any]]:
    last, best = run.metrics
    yield "state", run.state
    if reason := run.summary.get("stop_reason"):
        yield "stopped by", reason
    yield "steps", run.steps
    for name in FIGURES:
        if run.summary.get(name) is not None:
            yield name, run.summary[name]
    for name in HIGHER_IS_BETTER:
        if name in best:
            yield f"best {name}", best[name]
    for name in ("train/loss", *HIGHER_IS_BETTER):
        if name in last:
            yield f"last {name}", last[name]


def value_of(settings: Mapping[str, Any], key: str) -> str:
    return value(settings[key]) if key in settings else ""


def value(found: Any) -> str:
    return "" if found is None else shown(found)


def number(found: Any) -> str:
    """1,234, or a fraction with four digits that count; text as it is."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return "" if found is None else str(found)
    return f"{found:,}" if isinstance(found, int) else f"{found:,.4g}"


def duration(seconds: Any) -> str:
    """Hours, minutes and seconds: 0:01:05."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return ""
    return str(timedelta(seconds=round(seconds)))


def as_text(found: str) -> Text:
    """For rich would take [brackets] of a name for its own, and a terminal escapes."""
    return Text(one_line(found))


def on_paper() -> Console:
    """Tables are as wide as they are, where no window cuts them off."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)
