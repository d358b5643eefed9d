"""Overrides as they are typed, each looked at alone, and what Hydra says of them in our words."""

import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import is_dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpt2lab.config import plugins
from gpt2lab.config.check.targets import OWNED_TRAINER_ARGUMENTS, owned_argument
from gpt2lab.config.commands import COMMAND_LINES, LIGHTNING_GROUPS
from gpt2lab.config.parse import convert, field_types, near, shape_of, unknown_key
from gpt2lab.config.redact import REDACTED, is_secret, redacted
from gpt2lab.errors import ConfigError

MANY_AT_ONCE = ("logger", "callbacks", "experiment")
# Hydra's words of a group that is its own, and the options of it, a line each.
_NO_OPTION = re.compile(r"Could not find '(.+)/(.+)'\s+Available options in .+:\n((?:\t.+\n)+)")


def parse_overrides(overrides: Sequence[str], config_name: str = "train") -> list[Override]:
    """Hydra's reading of each override.

    Raises:
        ConfigError: for each that is not of the form key=value.
    """
    parser = OverridesParser.create()
    parsed, found = [], []
    for text in overrides:
        try:
            one = parser.parse_override(text)
        except HydraException:
            one = None
        if one is not None and one.key_or_group:
            parsed.append(one)
        else:
            found.append(
                f"{redacted(text)}: cannot be read as key=value; "
                f"quote values with spaces or signs, as in {COMMAND_LINES[config_name].quoted}"
            )
    if found:
        raise ConfigError(*found)
    return parsed


def is_choice(override: Override, options: Container[str]) -> bool:
    """Whether an override picks an option of one of these groups, such as model=small."""
    return override.key_or_group in options and not isinstance(override.value(), dict)


def sifted(
    config_name: str,
    parsed: list[Override],
    options: dict[str, list[str]],
    attempt: Callable[[*tuple[str, ...]], DictConfig],
) -> tuple[list[str], list[str]]:
    """The overrides that can be, and a line for each that cannot.

    Hydra stops at its first problem and speaks of itself, so each override is looked at alone.

    Args:
        options: of each group, by its name.
        attempt: composes overrides as they were typed.
    """
    good: list[str] = []
    found: list[str] = []
    choices = [o for o in parsed if is_choice(o, options)]
    for choice in choices:
        problems = _choice_problems(config_name, choice, options[choice.key_or_group])
        found += problems
        if not problems:
            good.append(choice.input_line or "")
    try:
        bare = attempt(*good)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(*found, translated(error)) from error
    for override in parsed:
        if not is_choice(override, options):
            problem = _value_problem(config_name, override, bare)
            if problem is None:
                good.append(override.input_line or "")
            else:
                found.append(problem)
    return good, found


def _choice_problems(config_name: str, choice: Override, options: list[str]) -> list[str]:
    group, known = choice.key_or_group, ", ".join(options)
    if choice.type is OverrideType.DEL:
        if group in MANY_AT_ONCE:
            return []
        return [f"{group}: cannot be left out; choose one of {known}"]
    if choice.is_sweep_override():
        text = (choice.input_line or "").partition("=")[2]
        return [f"{group}: {text} is several options; choose one{_or_a_grid(config_name)}"]
    value = choice.value()
    if isinstance(value, list) and group not in MANY_AT_ONCE:
        return [f"{group}: takes one option, not a list; choose one of {known}"]
    return [
        f"{group}: there is no option {_text(name)}; choose one of {known}"
        for name in (value if isinstance(value, list) else [value])
        if str(name) not in options
    ]


def _or_a_grid(config_name: str) -> str:
    return ", or add --multirun" if COMMAND_LINES[config_name].is_grid else ""


def _value_problem(config_name: str, override: Override, cfg: DictConfig) -> str | None:
    """A line if the key does not exist or the value does not fit; None if all is well."""
    key = override.key_or_group
    if key.startswith(("hydra.", "hydra/")):
        return plugins.override_problem(key)
    if override.is_sweep_override():
        text = (override.input_line or "").partition("=")[2]
        if is_secret(key):
            text = REDACTED
        return f"{key}: {text} is several values; quote them{_or_a_grid(config_name)}"
    cls, options = COMMAND_LINES[config_name].root, COMMAND_LINES[config_name].groups
    if "." in key and key.split(".")[0] in {*LIGHTNING_GROUPS} & {*options}:
        return _argument_problem(key, override, cfg)
    *parents, last = key.split(".")
    path = ""
    for parent in parents:
        hints = field_types(cls)
        if parent not in hints:
            return unknown_key(path, parent, cls)
        path += parent
        if not is_dataclass(hints[parent]):
            return f"{path}: is one value, not a group; give {path}=<value>"
        path += "."
        cls = shape_of(parent, OmegaConf.select(cfg, f"{parent}.kind"), hints[parent])
    hints = field_types(cls)
    if last not in hints:
        if not parents and last != "_target_":
            inner = [f"{group}.{last}" for group in hints if last in _names(group, hints, cfg)]
            hint = f"did you mean {inner[0]}?" if inner else near(last, {*hints, *options})
            return f"{last}: there is no such setting; {hint}"
        return unknown_key(path, last, cls)
    value = override.value()
    if override.type is OverrideType.DEL:
        return f"{key}: cannot be deleted; give a value"
    if override.type is OverrideType.ADD:
        return f"{key}: is a setting already; leave out the +"
    if is_dataclass(hints[last]) or (isinstance(value, str) and "${" in value):
        return None
    try:
        convert(_plain_value(value), hints[last])
    except ValueError as error:
        return f"{key}: {error}"
    return None


def _names(group: str, hints: dict[str, Any], cfg: DictConfig) -> Iterable[str]:
    """The settings of a group, by the shape that it has; none of what is one value."""
    if not is_dataclass(hints[group]):
        return ()
    return field_types(shape_of(group, OmegaConf.select(cfg, f"{group}.kind"), hints[group]))


def _argument_problem(key: str, override: Override, cfg: DictConfig) -> str | None:
    """Lightning's arguments: their class is the judge of the values, we of the spelling."""
    group, _, argument = key.partition(".")
    if group == "trainer" and argument in OWNED_TRAINER_ARGUMENTS:
        return owned_argument(argument)
    if override.type is not OverrideType.CHANGE:
        return None
    node, _, last = key.rpartition(".")
    siblings = OmegaConf.select(cfg, node, default=None)
    if isinstance(siblings, DictConfig) and last in siblings:
        return None
    return f"{key}: is not set in conf; add it as +{key}=<value>"


def _text(value: Any) -> str:
    return "null" if value is None else repr(value)


def _plain_value(value: Any) -> Any:
    """The text of a quoted string; anything else as it is."""
    return getattr(value, "text", value)


def translated(error: Exception) -> str:
    """Hydra's or OmegaConf's complaint as one line of ours."""
    text = str(error)
    key = getattr(error, "full_key", None) or "settings"
    first, *more = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if first.endswith(":") and more:  # Hydra names the file, OmegaConf on the next line the mistake
        first = f"{first} {more[0]}"
    if missing := _NO_OPTION.search(text):
        group, option, known = missing.group(1, 2, 3)
        return f"{group}: there is no option {option!r}; choose one of {', '.join(known.split())}"
    if "Environment variable" in text:
        name = text.split("'")[1]
        return f"{key}: environment variable {name} is not set; set it, or give {key} a value"
    if "Key '_target_' not in" in text:
        where = text.split("'")[1] if text.startswith("In '") else key  # Hydra names the file
        return f"{where}: _target_ is not allowed; only trainer, loggers and callbacks have one"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key, first = cause.full_key, str(cause).splitlines()[0]
    return f"{key}: {first}; see --help"
