"""Points of studies that were never run: what a report is made of, without a training."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.sweep.study import Study
from gpt2lab.sweep.trials import Point, State, Trial, name_of

Reached = Callable[[dict[str, Any], int], Sequence[float]]


def point(
    study: Study, number: int, params: dict[str, Any], reached: Reached, seeds: int = 1
) -> Point:
    """A complete point, with a curve of val/loss and val/exact_match for each seed.

    Args:
        reached: the values of the goals, of the settings and a seed.
    """
    trials = []
    for seed in range(seeds):
        values = tuple(reached(params, seed))
        folder = study.folder / name_of(number, seed)
        folder.mkdir(parents=True)
        last = values[0] if math.isfinite(values[0]) else 3.0
        rows = [f"{s},{last + 2 / (1 + s)},{s / 100}\n" for s in range(0, 100, 10)]
        (folder / "metrics.csv").write_text("step,val/loss,val/exact_match\n" + "".join(rows))
        trials.append(Trial(number, seed, params, State.complete, values, None, 1.5, 100, folder))
    means = [sum(ends) / seeds for ends in zip(*(one.values for one in trials), strict=True)]
    return Point(number, params, State.complete, tuple(means), tuple(trials))


def other(
    study: Study, number: int, params: dict[str, Any], state: State, reason: str | None = None
) -> Point:
    """A point that is not complete."""
    folder: Path = study.folder / name_of(number, 0)
    folder.mkdir(parents=True)
    trial = Trial(number, 0, params, state, reason=reason, folder=folder)
    return Point(number, params, state, (), (trial,))
