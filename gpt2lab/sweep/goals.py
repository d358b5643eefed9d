"""What a trial has reached, read off the summary.json that it leaves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2lab.config import HIGHER_IS_BETTER, Direction, StudyConfig, TrainConfig, parse_stop_at
from gpt2lab.config.check.study import BEST, FROM_SUMMARY, TO_TARGET, direction_of


def directions(config: StudyConfig) -> list[Direction]:
    """One for each goal: as it is said, or as it follows."""
    if config.direction:
        return list(config.direction)
    return [direction_of(goal) or Direction.minimize for goal in config.goal]


def values(
    goals: Sequence[str], summary: Mapping[str, Any], stop_at: str | None = None
) -> tuple[float, ...]:
    """
    Args:
        summary: the content of summary.json.
        stop_at: the target of the run.
    Raises:
        ValueError: if there is no such number; it says which.
    """
    return tuple(value(goal, summary, stop_at) for goal in goals)


def value(goal: str, summary: Mapping[str, Any], stop_at: str | None) -> float:
    if goal in TO_TARGET and stop_at is not None and not reached(stop_at, summary):
        return math.inf
    if goal in FROM_SUMMARY:
        found = summary.get(goal)
    else:
        which = "best" if goal.startswith(BEST) else "last"
        found = summary.get(which, {}).get(goal.removeprefix(BEST))
    if found is None:
        raise ValueError(f"{goal} was not measured")
    if not math.isfinite(found):
        raise ValueError(f"{goal} is {found}")
    return float(found)


def reached(stop_at: str, summary: Mapping[str, Any]) -> bool:
    """Whether a run has ended at its target, or at its last step and there."""
    metric, target = parse_stop_at(stop_at)
    found = summary.get("last", {}).get(metric)
    if found is None:
        return False
    return found >= target if HIGHER_IS_BETTER[metric] else found <= target


def curve(goal: str, settings: TrainConfig) -> str:
    """The column of metrics.csv by which a trial is judged while it runs.

    That of the goal; where the goal is how long it takes to reach a target, that of the target.
    """
    metric = goal.removeprefix(BEST)
    if "/" in metric:
        return metric
    return parse_stop_at(settings.stop_at)[0] if settings.stop_at else "val/loss"


def is_turned(goal: str, direction: Direction, metric: str) -> bool:
    """Whether the curve is better where the goal's own numbers are worse."""
    if "/" in goal:
        return False
    return HIGHER_IS_BETTER.get(metric, False) != (direction is Direction.maximize)
