"""What points say together: which cannot be bettered, the best of each choice, what matters."""

from collections.abc import Sequence
from itertools import islice, product
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from gpt2lab.config import Direction
from gpt2lab.config.changes import shown
from gpt2lab.config.check.study import Parameter
from gpt2lab.sweep.goals import directions
from gpt2lab.sweep.results import best, ranked, row
from gpt2lab.sweep.space import distribution
from gpt2lab.sweep.study import Study
from gpt2lab.sweep.trials import Point

FEWEST_POINTS = 10
"""Of fewer, the best tenth is one point, and chance alone says what matters."""
MOST_CHOICES = 8
"""So many combinations of choices have a colour each, and a row in the table of the best."""


def front(points: Sequence[Point], wanted: Sequence[Direction]) -> list[Point]:
    """The complete points than which no other is better in one goal and as good in all (Pareto)."""
    signs = [-1.0 if direction is Direction.maximize else 1.0 for direction in wanted]
    costs = {
        point.number: tuple(sign * value for sign, value in zip(signs, point.values, strict=True))
        for point in points
        if point.values
    }

    def is_beaten(cost: tuple[float, ...]) -> bool:
        return any(
            other != cost and all(a <= b for a, b in zip(other, cost, strict=True))
            for other in costs.values()
        )

    found = [p for p in points if p.number in costs and not is_beaten(costs[p.number])]
    return sorted(found, key=lambda point: (costs[point.number], point.number))


def by_choice(study: Study, points: Sequence[Point], but: str = "") -> dict[str, list[Point]]:
    """Points by what they have of all choices together, such as `n_embd=24, optimizer=muon`.

    All under "" where there are no choices, or too many to be told apart; left out is a point that
    was killed while it was chosen.

    Args:
        but: the parameter that is left out of account.
    """
    choices = [p for p in study.space if p.choice and p.name != but]
    order = [_told(dict(zip([p.name for p in choices], c, strict=True))) for c in _all(choices)]
    found: dict[str, list[Point]] = {name: [] for name in order}
    if not choices or len(order) > MOST_CHOICES:
        return {"": list(points)}
    for point in points:
        if all(p.name in point.params for p in choices):
            found[_told({p.name: point.params[p.name] for p in choices})].append(point)
    return {name: some for name, some in found.items() if some}


def best_of_choices(study: Study, points: Sequence[Point]) -> dict[str, Point | None]:
    """The best point of each, where a range is varied beside choices; else nothing new is said.

    None stands where no point of a choice has reached its target.
    """
    if all(p.choice for p in study.space) or not any(p.choice for p in study.space):
        return {}
    complete = [point for point in points if point.values]
    return {name: best(study, some) for name, some in by_choice(study, complete).items() if name}


def table_of_choices(study: Study, points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """Words of a table's head and rows that say the best of each choice; no rows for nothing."""
    names = [p.name for p in study.space if not p.choice]
    goals = len(study.config.goal)
    none = [*[""] * len(names), "none reached", *[""] * (goals - 1), ""]
    rows = [
        [name, *(none if point is None else [*row(point, names, goals), str(point.number)])]
        for name, point in best_of_choices(study, points).items()
    ]
    return ["the best of", *names, *study.config.goal, "point"], rows


def importance(study: Study, points: Sequence[Point], goal: int = 0) -> dict[str, float]:
    """How much each parameter has to do with being among the best tenth, as shares of 1.

    PED-ANOVA (Watanabe et al. 2023) compares where the best lie with where all do. It sees ranks
    alone: how far off a training is that diverged, or never reached its target, does not count.
    Nothing where points are too few, all alike, or differ in one parameter only.
    """
    order = ranked(points, directions(study.config)[goal], goal)
    places = {
        value: place for place, value in enumerate(dict.fromkeys(p.values[goal] for p in order))
    }
    if len(order) < FEWEST_POINTS or len(places) < 2 or len(study.space) < 2:
        return {}
    space = {parameter.name: distribution(parameter) for parameter in study.space}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = optuna.create_study()
    for point in order:
        params, place = dict(point.params), float(places[point.values[goal]])
        kept.add_trial(create_trial(params=params, distributions=space, value=place))
    found = get_param_importances(kept, evaluator=PedAnovaImportanceEvaluator())
    return {name: float(share) for name, share in found.items()}


def short(name: str) -> str:
    """The last part of a setting's name."""
    return name.rpartition(".")[2]


def _told(params: dict[str, Any]) -> str:
    return ", ".join(f"{short(name)}={shown(value)}" for name, value in params.items())


def _all(choices: Sequence[Parameter]) -> list[tuple[Any, ...]]:
    return list(islice(product(*(p.choice for p in choices)), MOST_CHOICES + 1))
