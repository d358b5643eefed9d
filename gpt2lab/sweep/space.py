"""The space of a study: what Optuna draws from it, and what train is told of a point."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from gpt2lab.config.changes import shown
from gpt2lab.config.check.study import Parameter

_PLAIN = re.compile(r"[A-Za-z_/][\w./:-]*")
"""Texts that Hydra reads as they are, if they are no word of its own."""
_WORDS = ("null", "true", "false", "inf", "nan")


def distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choice:
        return CategoricalDistribution(parameter.choice)
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.is_whole:
        return IntDistribution(int(low), int(high), log=parameter.is_log, step=int(step or 1))
    return FloatDistribution(low, high, log=parameter.is_log, step=step)


def draw(trial: optuna.Trial, space: Sequence[Parameter]) -> None:
    """Give a trial of Optuna's a value of each parameter that has none yet.

    What a process was killed over in the middle is so completed by another.
    """
    for parameter in space:
        found = distribution(parameter)
        if isinstance(found, CategoricalDistribution):
            trial.suggest_categorical(parameter.name, found.choices)
        elif isinstance(found, IntDistribution):
            whole = found.low, found.high
            trial.suggest_int(parameter.name, *whole, step=found.step, log=found.log)
        elif isinstance(found, FloatDistribution):
            ends = found.low, found.high
            trial.suggest_float(parameter.name, *ends, step=found.step, log=found.log)


def grid(space: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Every point of the grid; the last parameter varies fastest."""
    for values in product(*(parameter.values() for parameter in space)):
        yield {p.name: value for p, value in zip(space, values, strict=True)}


def overrides(point: Mapping[str, Any], space: Sequence[Parameter]) -> list[str]:
    """What train is told of a point."""
    told: list[str] = []
    for parameter in space:
        value = point[parameter.name]
        if parameter.named is not None:
            told += parameter.named[value]
        else:
            told.append(f"{parameter.name}={quoted(value)}")
    return told


def quoted(value: Any) -> str:
    """A value as an override has it; texts that mean something to Hydra stand in quotes."""
    if not isinstance(value, str):
        return shown(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    text = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def merged(*lists: Sequence[str]) -> list[str]:
    """Overrides, one after another; of those of one setting, the last."""
    last: dict[str, str] = {}
    for override in (override for some in lists for override in some):
        key = override.partition("=")[0].lstrip("+~")
        last.pop(key, None)
        last[key] = override
    return list(last.values())


def probes(space: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Points that show whether train takes the space: each end and each choice is in one of them.

    As few as that can be, for composing settings takes a tenth of a second.
    """
    ends = {p.name: list(p.choice) or [p.low, p.high] for p in space}
    for i in range(max(map(len, ends.values()))):
        yield {name: values[i % len(values)] for name, values in ends.items()}
