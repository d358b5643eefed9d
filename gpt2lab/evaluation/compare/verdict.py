"""What a comparison says: a winner where there is one, and a table."""

from collections.abc import Sequence
from typing import Any

from gpt2lab.statistics import FEWEST_UNITS, Paired


def verdict(found: Paired, effect: str, count: int, units: str, *, lower_wins: bool = True) -> Any:
    """
    Args:
        found: its difference is b's value less a's.
        effect: by how much the better one is better, in words.
        count: of units, which are called `units`.
    Returns:
        p, winner (a, b or None) and verdict, one line.
    """
    winner, line = None, f"no difference shown at p = {found.p:.2g}"
    if count < FEWEST_UNITS:
        few = f"too few {units} ({count}, {FEWEST_UNITS} at least are needed)"
        line = f"cannot tell: {few}; give more data"
    elif found.is_shown:
        winner = "b" if (found.difference.value < 0) == lower_wins else "a"
        line = f"{winner} is better at p = {found.p:.2g}: {effect}"
    return {"verdict": line, "winner": winner, "p": found.p}


def span(found: Paired) -> str:
    """The difference without its sign, and its interval: `0.021 (0.012 to 0.03)`."""
    value, low, high = found.difference
    if low is None or high is None:
        return f"{abs(value):.3g}"
    ends = sorted((low, high)) if value >= 0 else sorted((-low, -high))
    return f"{abs(value):.3g} ({ends[0]:.3g} to {ends[1]:.3g})"


def as_metric(values: Sequence[float], found: Paired) -> dict[str, float | None]:
    """In JSON's types; values of a and b, and of b less a with its interval."""
    difference, low, high = found.difference
    return {"a": values[0], "b": values[1], "difference": difference, "low": low, "high": high}


def show(results: dict[str, Any]) -> None:
    """The table, and what follows from it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("compare", no_wrap=True)
    for column in ("a", "b", "b - a", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in results["metrics"].items():
        ends = [f"{end:+.3g}" for end in (found["low"], found["high"]) if end is not None]
        table.add_row(
            name,
            f"{found['a']:.4f}",
            f"{found['b']:.4f}",
            f"{found['difference']:+.3g}",
            " to ".join(ends),
        )
    console = Console()
    console.print(table)
    console.print(f"  {results['verdict']}", highlight=False, soft_wrap=True)
    units = results["units"]
    joined = f", joined into {units['count']}" if units["count"] < units["before_joining"] else ""
    line = f"  paired over {units['kind']}: {units['before_joining']:,}{joined}"
    console.print(line, highlight=False)
