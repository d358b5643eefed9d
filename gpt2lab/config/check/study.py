"""Rules of studies: their goals and their space."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpt2lab.config.check.metrics import HIGHER_IS_BETTER
from gpt2lab.config.settings.study import Direction, Pruner, Sampler, StudyConfig, SweepConfig

FROM_SUMMARY = {
    "steps": Direction.minimize,
    "tokens": Direction.minimize,
    "seconds": Direction.minimize,
    "tokens_per_second": Direction.maximize,
    "mfu": Direction.maximize,
    "peak_memory_bytes": Direction.minimize,
}
"""Goals that stand in summary.json by themselves; the others are metrics."""
TO_TARGET = ("steps", "tokens", "seconds")
"""Goals that say how long it took to reach stop_at, where there is one."""
BEST = "best."
"""Before a metric: its best value instead of its last."""
OF_EACH_TRIAL = ("name", "runs_dir", "resume")
"""Settings of train that a study gives to its trials itself."""
NOT_VARIED = {
    **dict.fromkeys(OF_EACH_TRIAL, "which the study gives to each trial"),
    "seed": "which the study gives to each trial by study.seeds",
    **dict.fromkeys(("devices", "trainer.accelerator"), "by which the study divides the machine"),
}
"""Settings of train that are no part of a space, and why."""
SEVERAL_GOALS = (Sampler.nsga2, Sampler.tpe, Sampler.random, Sampler.grid)


def direction_of(goal: str) -> Direction | None:
    """Which way a goal is better, where that is known."""
    metric = goal.removeprefix(BEST)
    if metric in HIGHER_IS_BETTER:
        return Direction.maximize if HIGHER_IS_BETTER[metric] else Direction.minimize
    return Direction.minimize if goal == "train/loss" else FROM_SUMMARY.get(goal)


@dataclass(frozen=True)
class Parameter:
    """One thing that is varied.

    Args:
        name: the setting of train, or any word where the choices are named.
        choice: the values, or the names of them; empty for a range.
        named: the overrides that each name stands for.
        low, high: the ends of a range, both part of it.
        step: between neighbours of a range of numbers; None for any number.
        num: how many values of the range a grid takes.
    """

    name: str
    choice: tuple[Any, ...] = ()
    named: Mapping[str, list[str]] | None = None
    low: float = 0
    high: float = 0
    is_log: bool = False
    step: float | None = None
    num: int | None = None

    @property
    def settings(self) -> set[str]:
        """What it decides, of train's settings."""
        if self.named is None:
            return {self.name}
        return {self.name, *(setting_of(told) for some in self.named.values() for told in some)}

    @property
    def is_whole(self) -> bool:
        """Whether all of the range are whole numbers."""
        return all(isinstance(x, int) for x in (self.low, self.high, self.step or 0))

    def values(self) -> list[Any]:
        """What a grid takes, in order; a choice has all of its values."""
        if self.choice:
            return list(self.choice)
        if self.num is None:
            step = self.step or 1
            count = math.floor((self.high - self.low) / step + 1e-9) + 1
            return [_rounded(self.low + i * step) for i in range(count)]
        return list(dict.fromkeys(self._between(i / max(1, self.num - 1)) for i in range(self.num)))

    def has_grid(self) -> bool:
        return bool(self.choice) or self.num is not None or self.step is not None

    def _between(self, share: float) -> float:
        """The number that lies there between low (0) and high (1)."""
        if share in (0, 1):
            return self.high if share else self.low
        if self.is_log:
            value = self.low ** (1 - share) * self.high**share
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.is_whole else _rounded(value)


def setting_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _rounded(value: float) -> float:
    """Without the last digits, which differ between 0.3 and 0.1 + 0.2."""
    return value if isinstance(value, int) else float(f"{value:.10g}")


def parameter(name: str, told: Any) -> Parameter:
    """One entry of a study's space, as yaml has it.

    Raises:
        ValueError: saying what is wrong with it, and what to do.
    """
    kinds = [k for k in ("choice", "range", "log_range") if isinstance(told, Mapping) and k in told]
    if len(kinds) != 1:
        raise ValueError(
            f"{told!r} is not a choice, range or log_range; give one, as in {{choice: [1, 2]}}"
        )
    (kind,) = kinds
    extra = sorted(set(told) - {kind, *(() if kind == "choice" else ("step", "num"))})
    if extra:
        raise ValueError(f"{', '.join(extra)} is no part of a {kind}; leave it out")
    if kind == "choice":
        return _choice(name, told[kind])
    return _range(name, kind, told)


def _choice(name: str, told: Any) -> Parameter:
    if isinstance(told, Mapping):
        for key, overrides in told.items():
            if not isinstance(overrides, list) or not all(isinstance(o, str) for o in overrides):
                raise ValueError(f"{key} is not a list of overrides; give some, as in [optim=muon]")
            for setting in map(setting_of, overrides):
                if setting in NOT_VARIED:
                    raise ValueError(f"{key} sets {setting}, {NOT_VARIED[setting]}; leave it out")
        named = {str(key): list(overrides) for key, overrides in told.items()}
        told = list(named)
    else:
        named = None
    if not isinstance(told, list) or not told:
        what = "empty" if told in ([], {}) else "not a list"
        raise ValueError(f"choice is {what}; give values, as in [24, 48]")
    if any(isinstance(value, list | dict) for value in told):
        raise ValueError("a choice is one value; give a name to several overrides")
    if len({repr(value) for value in told}) < len(told):
        raise ValueError("a choice is there twice; leave one out")
    return Parameter(name, choice=tuple(told), named=named)


def _range(name: str, kind: str, told: Mapping[str, Any]) -> Parameter:
    ends, step, num = told[kind], told.get("step"), told.get("num")
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(_is_number, ends)):
        raise ValueError(f"{kind} is {ends!r}; give its two ends, as in [0.1, 0.3]")
    low, high = ends
    if not low < high:
        raise ValueError(f"{low} is not below {high}; give the lower end first")
    if kind == "log_range" and low <= 0:
        raise ValueError(f"{low} has no logarithm; choose a lower end above 0")
    if step is not None and (not _is_number(step) or not 0 < step <= high - low):
        raise ValueError(f"step is {step!r}; choose 0 < step <= {high - low:g}")
    if kind == "log_range" and step is not None:
        raise ValueError("step is for a range; give num, the count of values that a grid takes")
    if num is not None and (type(num) is not int or num < 1):
        raise ValueError(f"num is {num!r}; give a whole number, 1 at least")
    if step is not None and num is not None:
        raise ValueError("step and num are both given; leave one out")
    return Parameter(name, low=low, high=high, is_log=kind == "log_range", step=step, num=num)


def _is_number(value: Any) -> bool:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return fits and math.isfinite(value)


def study_problems(config: StudyConfig) -> Iterator[str]:
    if not config.question.strip():
        yield "study.question: is empty; say in a sentence what is to be found out"
    yield from _goal_problems(config)
    yield from _space_problems(config)
    if config.trials is None and config.sampler is not Sampler.grid:
        yield "study.trials: is null; say how many points to try"
    if config.storage is not None and not any(sign in config.storage for sign in ("://", "${")):
        yield (
            f"study.storage: {config.storage!r} is not the address of a database; "
            "give one, such as postgresql://host/name, or null"
        )


def _goal_problems(config: StudyConfig) -> Iterator[str]:
    if not config.goal:
        yield f"study.goal: is empty; choose {', '.join(HIGHER_IS_BETTER)}, steps or seconds"
    if len(set(config.goal)) < len(config.goal):
        yield "study.goal: has a goal twice; leave one out"
    if config.direction and len(config.direction) != len(config.goal):
        yield (
            f"study.direction: has {len(config.direction)} for {len(config.goal)} goals; "
            "give one for each, or none"
        )
    for goal in config.goal:
        if goal.startswith(BEST) and goal.removeprefix(BEST) not in HIGHER_IS_BETTER:
            yield f"study.goal: {goal} is not kept; choose best. and {', '.join(HIGHER_IS_BETTER)}"
        elif direction_of(goal) is None and not (config.direction and goal.startswith("train/")):
            known = ", ".join([*HIGHER_IS_BETTER, *FROM_SUMMARY])
            yield f"study.goal: {goal} is unknown; choose {known}; train/... needs a direction"
    if len(config.goal) > 1 and config.sampler not in SEVERAL_GOALS:
        yield f"study.sampler: {config.sampler.name} has one goal; choose nsga2 for several"
    if len(config.goal) > 1 and config.pruner is not Pruner.none:
        yield f"study.pruner: {config.pruner.name} has one goal; choose none for several"


def _space_problems(config: StudyConfig) -> Iterator[str]:
    if not config.space:
        yield "study.space: is empty; say what is varied, as in {optim.lr: {choice: [1e-3, 2e-3]}}"
    size = 1
    for name, told in config.space.items():
        key = f"study.space.{name}"
        if name in NOT_VARIED:
            yield f"{key}: cannot be varied, {NOT_VARIED[name]}; leave it out"
            continue
        try:
            found = parameter(name, told)
        except ValueError as error:
            yield f"{key}: {error}"
            continue
        if config.sampler is Sampler.grid and not found.has_grid():
            yield f"{key}: any number of the range may be meant; give num, or step"
        elif config.sampler is Sampler.grid:
            size *= len(found.values())
        if config.sampler is Sampler.cmaes and found.choice:
            yield f"{key}: cmaes moves between numbers; give a range, or choose another sampler"
    if config.sampler is Sampler.grid and config.trials is not None and config.trials > size:
        yield f"study.trials: {config.trials} are more than the {size} points of the grid"


def sweep_problems(config: SweepConfig) -> Iterator[str]:
    from gpt2lab.config.check.train import is_file_name

    if config.name is not None and not is_file_name(config.name):
        yield f"name: {config.name!r} is no name of a folder; use letters, digits, - _ and ."
    yield from study_problems(config.study)
