"""From a plain mapping, wherever it came from, to checked settings."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, overload

from gpt2lab.config.check import problems
from gpt2lab.config.check.ranges import range_problems
from gpt2lab.config.check.train import model_problems
from gpt2lab.config.settings.model import GPT2Config
from gpt2lab.config.settings.train import SHAPES, TrainConfig
from gpt2lab.durable import at_home
from gpt2lab.errors import ConfigError

T = TypeVar("T")

MOST_SHOWN = 30
"""Choices that a line lists."""

_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@overload
def parse(plain: Mapping[str, Any], found: list[str] | None = None) -> TrainConfig: ...


@overload
def parse(plain: Mapping[str, Any], found: list[str] | None = None, *, root: type[T]) -> T: ...


def parse(
    plain: Mapping[str, Any], found: list[str] | None = None, *, root: type[Any] = TrainConfig
) -> Any:
    """Checked settings from a mapping of plain values, as read from yaml or a checkpoint.

    Args:
        root: the dataclass of all of them.
        found: problems found before, to which the new ones are added.
    Raises:
        ConfigError: with one line for every unknown key, wrong type, value out of range and
            contradiction. A value of the wrong type counts as its default in the rest.
    """
    found = [] if found is None else found
    config = _build(root, plain, "", found)
    told = {problem.partition(":")[0] for problem in found}
    # Of the default that stands in for a wrong value there is nothing to say.
    found += [problem for problem in problems(config) if problem.partition(":")[0] not in told]
    if found:
        raise ConfigError(*found)
    return config


def parse_group(cls: type[T], plain: Mapping[str, Any], path: str) -> T:
    """The same for one group alone, such as the model of a checkpoint, whatever the others are.

    Args:
        path: stands before its keys in messages, such as `model.`
    """
    found: list[str] = []
    config = _build(cls, plain, path, found)
    found += range_problems(config, path)
    if isinstance(config, GPT2Config):
        found += model_problems(config)
    if found:
        raise ConfigError(*found)
    return config


def plain(config: Any) -> dict[str, Any]:
    """The inverse of `parse`: dicts, lists, numbers, texts, booleans and None only."""
    result: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            value = plain(value)
        elif isinstance(value, Enum):
            value = value.name
        elif isinstance(value, list):
            value = [v.name if isinstance(v, Enum) else v for v in value]
        result[field.name] = value
    return result


def field_types(cls: type) -> dict[str, Any]:
    return {field.name: get_type_hints(cls)[field.name] for field in fields(cls)}


def near(word: str, choices: Any) -> str:
    """A hint at the likeliest intended word, or at all there are.

    A name that is the first part of some choices, as a100 of a100-40gb and a100-80gb, means those.
    """
    word = word.lower()
    longer = [] if word in choices else [name for name in choices if name.startswith(f"{word}-")]
    matches = longer or get_close_matches(word, list(choices), n=1, cutoff=0.6)
    if matches:
        return f"did you mean {' or '.join(matches)}?"
    shown = sorted(choices)
    more = f" and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    return f"choose one of {', '.join(shown[:MOST_SHOWN])}{more}"


def unknown_key(path: str, key: str, cls: type) -> str:
    if key == "_target_":
        return f"{path}{key}: is not allowed; only trainer, loggers and callbacks have one"
    return f"{path}{key}: there is no such setting; {near(key, field_types(cls))}"


def shape_of(key: str, kind: Any, declared: Any) -> Any:
    """The dataclass of a group, by its `kind` where the group has several shapes."""
    return SHAPES.get(key, {}).get(kind, declared)


def _build(cls: type[T], values: Mapping[str, Any], path: str, found: list[str]) -> T:
    hints = field_types(cls)
    found += [unknown_key(path, str(key), cls) for key in values if key not in hints]
    arguments: dict[str, Any] = {}
    for key, hint in hints.items():
        if key not in values:
            continue
        value = values[key]
        if is_dataclass(hint):
            if not isinstance(value, Mapping):
                found.append(
                    f"{path}{key}: {value!r} is not a group of settings; give {key}=<option>"
                )
                continue
            kind = value.get("kind")
            if key in SHAPES and not (isinstance(kind, str) and kind in SHAPES[key]):
                found.append(
                    f"{path}{key}.kind: {kind!r} is unknown; {near(str(kind), SHAPES[key])}"
                )
                continue
            arguments[key] = _build(shape_of(key, kind, hint), value, f"{path}{key}.", found)
        else:
            try:
                arguments[key] = placed(convert(value, hint), cls, key)
            except ValueError as error:
                found.append(f"{path}{key}: {error}")
    return cls(**arguments)


def placed(value: Any, cls: type, key: str) -> Any:
    """The value, with a home for ~ where the setting names a file or folder."""
    is_path = any(field.name == key and field.metadata.get("path") for field in fields(cls))
    return at_home(value) if is_path and isinstance(value, str) else value


def convert(value: Any, hint: Any) -> Any:
    """The value as the hinted type, where nothing is lost by it.

    Raises:
        ValueError: saying what the value is and what it should be.
    """
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r} is not a mapping; see the yaml files of this group")
        return dict(value)
    if get_origin(hint) is list:  # one value stands for a list of it
        return [
            convert(v, *get_args(hint)) for v in (value if isinstance(value, list) else [value])
        ]
    options = [t for t in get_args(hint) if t is not NoneType] or [hint]
    wanted = options[0]
    if value is None and NoneType in get_args(hint):
        return None
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        if isinstance(value, wanted):
            return value
        if isinstance(value, str) and value in wanted.__members__:
            return wanted[value]
        raise ValueError(
            f"{_shown(value)} is not an option; {near(str(value), wanted.__members__)}"
        )
    if str in options[1:]:  # a number, or a word that its rule knows
        if isinstance(value, str):
            return value
        options.remove(str)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a run may be called 7
    if type(value) is not wanted:
        also = " or null" if NoneType in get_args(hint) else ""
        raise ValueError(
            f"{_shown(value)} is not {_EXPECTED[wanted]}; give {_EXPECTED[wanted]}{also}"
        )
    return value


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)
