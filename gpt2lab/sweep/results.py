"""What a study has come to: points in order, how sure the best is, and what went wrong."""

import math
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2lab.config import Direction
from gpt2lab.config.changes import shown
from gpt2lab.statistics import ALPHA_INVERSE, Interval, few_interval, unlike
from gpt2lab.sweep.goals import directions
from gpt2lab.sweep.study import Study
from gpt2lab.sweep.trials import Point, State, Trial

MOST_ROWS = 20
"""Points that the terminal shows."""
MOST_LETTERS = 80
"""Of a reason, while the study runs."""
FEWEST_SEEDS = 4
"""Of three and three trials, p is never below 0.1."""


def ranked(points: Sequence[Point], direction: Direction, goal: int = 0) -> list[Point]:
    """The complete points, the best of a goal first."""
    complete = [point for point in points if point.values]
    sign = -1.0 if direction is Direction.maximize else 1.0
    return sorted(complete, key=lambda point: (sign * point.values[goal], point.number))


def best(study: Study, points: Sequence[Point]) -> Point | None:
    """Of the first goal; None where none is complete, or none has reached its target."""
    order = ranked(points, directions(study.config)[0])
    return order[0] if order and math.isfinite(order[0].values[0]) else None


def in_order(study: Study, points: Sequence[Point]) -> list[Point]:
    """The complete ones, the best of the first goal first; then the others by number."""
    rest = [point for point in points if not point.values]
    return [*ranked(points, directions(study.config)[0]), *rest]


def of_goal(point: Point, goal: int = 0) -> list[float]:
    """What each of a point's trials reached."""
    return [one.values[goal] for one in point.trials if one.values]


def interval(point: Point, goal: int = 0) -> Interval:
    """The mean over seeds, and its 95 % interval where there are several."""
    return few_interval(of_goal(point, goal))


def best_two(points: Sequence[Point], direction: Direction) -> float | None:
    """The p-value of the difference between the best two; None where seeds are too few to tell."""
    pair = [of_goal(point) for point in ranked(points, direction)[:2]]
    values = [value for some in pair for value in some]
    if len(pair) < 2 or min(map(len, pair)) < FEWEST_SEEDS or not all(map(math.isfinite, values)):
        return None
    return unlike(*pair)


def certainty(study: Study, points: Sequence[Point]) -> str:
    """Whether the best two differ, in words; nothing where seeds are too few to tell."""
    direction = directions(study.config)[0]
    p = best_two(points, direction)
    if p is None:
        return ""
    first, second = (point.number for point in ranked(points, direction)[:2])
    said = "differ" if p <= 1 / ALPHA_INVERSE else "cannot be told apart"
    return f"The best two, points {first} and {second}, {said}: p = {p:.2g}."


def counts(points: Sequence[Point]) -> dict[str, int]:
    """How many points are in each state."""
    return {state.value: sum(point.state is state for point in points) for state in State}


def counted(n: int, word: str) -> str:
    """`1 point`, `2 points`."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def numbered(points: Sequence[Point]) -> str:
    """`point 3`, `points 0, 4`; `none` where there are none."""
    numbers = ", ".join(str(point.number) for point in points)
    return f"{'point' if len(points) == 1 else 'points'} {numbers}" if points else "none"


def failures(points: Sequence[Point]) -> list[Trial]:
    return [one for point in points for one in point.trials if one.state is State.failed]


def as_json(study: Study, points: Sequence[Point]) -> dict[str, Any]:
    """Everything in JSON's types; null stands for a target that was not reached."""
    chosen = best(study, points)
    return {
        "study": study.name,
        "folder": str(study.folder),
        "goal": study.config.goal,
        "counts": counts(points),
        "best": None if chosen is None else _plain(chosen),
        "p_best_two": best_two(points, directions(study.config)[0]),
        "points": [_plain(point) for point in points],
    }


def _plain(point: Point) -> dict[str, Any]:
    return {
        "number": point.number,
        "params": dict(point.params),
        "state": point.state.value,
        "values": [_finite(value) for value in point.values],
        "trials": [
            {
                "seed": one.seed,
                "state": one.state.value,
                "values": [_finite(value) for value in one.values],
                "reason": one.reason,
                "seconds": one.seconds,
                "steps": one.steps,
                "folder": str(one.folder),
            }
            for one in point.trials
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def number(value: float) -> str:
    return "not reached" if math.isinf(value) else f"{value:.4g}"


def line(one: Trial, ended: int, total: int) -> str:
    """A trial that has ended, in a line; a long reason is told in full by show() at the end."""
    reason = shorten(str(one.reason), MOST_LETTERS, placeholder=" ...")
    what = " ".join(map(number, one.values)) if one.values else f"{one.state.value}: {reason}"
    params = params_text(one.params)
    return f"{ended}/{total}  {one.folder.name}  {params}  {what}  {one.seconds:.1f} s"


def params_text(params: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value_text(value)}" for name, value in params.items())


def value_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def show(study: Study, points: Sequence[Point]) -> None:
    """The table in the terminal."""
    console = Console()
    console.print(Text(study.config.question))
    console.print(table(study, points))
    if (left := len(points) - MOST_ROWS) > 0:
        console.print(f"{counted(left, 'more point')} in the report")
    found = {name: n for name, n in counts(points).items() if n}
    console.print(", ".join(f"{n} {name}" for name, n in found.items()))
    for one in failures(points):
        console.print(Text(f"failed: {one.folder.name}: {one.reason}"), soft_wrap=True)
    if told := certainty(study, points):
        console.print(told)


def table(study: Study, points: Sequence[Point]) -> Table:
    """The best points of the first goal in order, then those that are not complete."""
    names, goals = [p.name for p in study.space], study.config.goal
    found = Table("point", *names, *goals)
    for point in in_order(study, points)[:MOST_ROWS]:
        found.add_row(str(point.number), *map(Text, row(point, names, len(goals))))
    return found


def row(point: Point, names: Sequence[str], goals: int) -> list[str]:
    """Its settings, and what it has reached of each goal; how far it is where that is nothing.

    Of a point that was never begun in earnest, some settings are not chosen.
    """
    cells = [value_text(point.params[n]) if n in point.params else "" for n in names]
    if not point.values:
        return [*cells, point.state.value, *[""] * (goals - 1)]
    return [*cells, *(with_interval(point, i) for i in range(goals))]


def with_interval(point: Point, goal: int = 0) -> str:
    """A point's mean, and its interval where it has several seeds."""
    found = interval(point, goal)
    if found.low is None or found.high is None:
        return number(found.value)
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"
