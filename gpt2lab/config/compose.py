"""Hydra: from overrides such as `model=small optim.lr=1e-3` to checked settings.

Everything is looked at before anything is done: Hydra's job never begins here, so that no folder
appears for a typo. Its errors become lines of ours.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from gpt2lab.config import plugins
from gpt2lab.config.changes import leaves
from gpt2lab.config.check.targets import OWNED_TRAINER_ARGUMENTS, owned_argument
from gpt2lab.config.check.train import run_problems
from gpt2lab.config.commands import COMMAND_LINES, LIGHTNING_GROUPS
from gpt2lab.config.conf_dir import conf_dir, groups
from gpt2lab.config.parse import convert, field_types, near, parse, shape_of, unknown_key
from gpt2lab.config.redact import REDACTED, is_secret, printable, redacted, remember
from gpt2lab.config.settings import SHAPES, TrainConfig
from gpt2lab.errors import ConfigError

WHERE = ("name", "runs_dir", "resume", "allow_nonfinite")
"""The settings by which a checkpoint is found and loaded."""
NEVER_FROM_CHECKPOINTS = (*LIGHTNING_GROUPS, *WHERE, "profile", "debug")
MANY_AT_ONCE = ("logger", "callbacks", "experiment")


@dataclass
class Composed:
    """Checked settings, and the same as plain values that may be shown and stored.

    The settings are of the command line's own class, such as TrainConfig.
    """

    settings: Any
    printable: dict[str, Any]


@lru_cache(maxsize=1)  # known until another command line is composed
def register_schemas(config_name: str = "train") -> None:
    """Make the dataclasses known to Hydra, and the one computed link of conf/data/sort.yaml.

    Args:
        config_name: the command line that is composed; one that extends another is the schema of
            that one's yaml file too.
    """
    store = ConfigStore.instance()
    for name, command in COMMAND_LINES.items():
        # Bases stand where a group's option brings its own shape: Hydra merges subclasses only.
        declared = field_types(command.root).items()
        # A setting of the same name, such as the data of evaluate, is none of them.
        bases = {k: base() for k, base in declared if k in SHAPES and isinstance(base, type)}
        node = command.root(**bases)
        store.store(name=f"schema_{name}", node=node)
        if name == config_name and command.extends is not None:
            store.store(name=f"schema_{command.extends}", node=node)
    for group, shapes in SHAPES.items():
        for kind, shape in shapes.items():
            store.store(group=group, name=f"schema_{kind}", node=shape, package=group)
    # The model reads all but the last of 2 * length tokens.
    OmegaConf.register_new_resolver("sort_context", lambda n: 2 * int(n) - 1, replace=True)


def compose(
    config_name: str,
    overrides: Sequence[str] = (),
    config_dirs: Iterable[str] = (),
    texts: Mapping[str, str | None] = MappingProxyType({}),
) -> DictConfig:
    """Hydra's composition of conf/<config_name>.yaml with overrides; not yet parsed.

    Args:
        config_dirs: further folders laid out as conf/, in which groups and options are looked for.
        texts: values that Hydra does not see, as in `verbatim`.
    Raises:
        ConfigError: one line for each override that cannot be.
    """
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"{folder}: is not a folder; give one that is laid out as conf/")
    search_path = [f"file://{Path(folder).resolve()}" for folder in config_dirs]
    extra = [f"hydra.searchpath={search_path}"] if search_path else []

    def attempt(chosen: list[Override]) -> DictConfig:
        return _hydra_compose(config_name, [o.input_line or "" for o in chosen] + extra)

    options = groups(config_name, config_dirs)
    good, found = _sifted(config_name, parse_overrides(overrides, config_name), options, attempt)
    try:
        cfg = attempt(good)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(*(found or [_translated(error)])) from error
    if found:
        with suppress(ConfigError):  # what the good ones have wrong beyond names and types
            parse({**resolved(cfg), **texts}, found, root=COMMAND_LINES[config_name].root)
        raise ConfigError(*found)
    return cfg


def _sifted(
    config_name: str,
    parsed: list[Override],
    options: dict[str, list[str]],
    attempt: Callable[[list[Override]], DictConfig],
) -> tuple[list[Override], list[str]]:
    """The overrides that can be, and a line for each that cannot.

    Hydra stops at its first problem and speaks of itself, so each override is looked at alone.
    """
    good, found = [], []
    choices = [o for o in parsed if is_choice(o, options)]
    for choice in choices:
        problems = _choice_problems(config_name, choice, options[choice.key_or_group])
        found += problems
        if not problems:
            good.append(choice)
    try:
        bare = attempt(good)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(*found, _translated(error)) from error
    for override in parsed:
        if not is_choice(override, options):
            problem = _value_problem(config_name, override, bare)
            if problem is None:
                good.append(override)
            else:
                found.append(problem)
    return good, found


def settings_from(
    config_name: str,
    overrides: Sequence[str] = (),
    config_dirs: Iterable[str] = (),
    saved: Callable[[TrainConfig], dict[str, Any] | None] | None = None,
) -> Composed:
    """Compose, resolve every interpolation, parse.

    With a checkpoint to resume, its settings with overrides on top; a chosen experiment replaces
    them all.

    Args:
        saved: of train, the settings stored in the checkpoint that `resume` asks for, given
            settings of which only those of WHERE count; None for a fresh start.
    Raises:
        ConfigError: one line for each problem.
    """
    texts, others = verbatim(COMMAND_LINES[config_name].root, overrides)

    def fresh() -> Composed:
        return from_config(compose(config_name, others, config_dirs, texts), config_name, texts)

    if saved is None:
        return fresh()
    parsed = parse_overrides(others)
    place = [o.input_line or "" for o in parsed if o.key_or_group in WHERE]
    if not any(text.startswith("resume=") for text in place):
        return fresh()
    where = compose(config_name, place, config_dirs)
    if where.resume is None:
        return fresh()
    run = TrainConfig(**{key: where[key] for key in WHERE})
    if found := list(run_problems(run)):
        raise ConfigError(*found)
    stored = saved(run)
    if stored is None or any(
        o.key_or_group == "experiment" and o.type is not OverrideType.DEL for o in parsed
    ):
        return fresh()
    # The experiment found by itself is that of the default model, not of the run.
    others = [o.input_line or "" for o in parsed if o.key_or_group != "experiment"]
    shaped = [*shapes_of(stored), *others]
    bare = compose(config_name, [*shaped, "~experiment"], config_dirs, texts)
    return on_top(stored, bare, compose(config_name, shaped, config_dirs, texts), others, texts)


def shapes_of(stored: dict[str, Any]) -> list[str]:
    """Overrides that choose the shapes of stored settings, by which others are judged."""
    kinds = {group: (stored.get(group) or {}).get("kind") for group in SHAPES}
    return [f"{group}={kind}" for group, kind in kinds.items() if kind in SHAPES[group]]


def from_config(
    cfg: DictConfig,
    config_name: str = "train",
    texts: Mapping[str, str | None] = MappingProxyType({}),
) -> Composed:
    """Resolve and parse what Hydra composed; `texts` as in `compose`."""
    values, shown = resolved(cfg), printable(cfg)  # both first: by them secrets are known
    settings: Any = parse({**values, **texts}, root=COMMAND_LINES[config_name].root)
    return Composed(settings, {**shown, **texts})


def verbatim(root: type, overrides: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Values of the settings that are `verbatim`, and all other overrides.

    A prompt may hold commas, colons, quotes, brackets, `=` and `${`, all of which mean something
    in Hydra's grammar, and its 007 is no 7. So Hydra does not get to see it.
    """
    keys = {field.name for field in fields(root) if field.metadata.get("verbatim")}
    texts: dict[str, str | None] = {}
    others = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if key in keys and equals:
            texts[key] = {"null": None, "'null'": "null", '"null"': "null"}.get(text, text)
        else:
            others.append(override)
    return texts, others


def on_top(
    stored: dict[str, Any],
    bare: DictConfig,
    suited: DictConfig,
    overrides: Sequence[str],
    texts: Mapping[str, str | None],
) -> Composed:
    """The settings of a checkpoint with overrides on top; `_target_` nodes from conf only.

    An override of a value replaces that value, a chosen option (`schedule=wsd`) its whole group.
    The option's values are those of its file, but where it had others in the checkpoint only
    because of the experiment that suits the chosen model and data, it keeps them: the same
    command line, given again, changes nothing.

    Args:
        bare: composed from the overrides without that experiment.
        suited: composed with it.
        texts: overrides that Hydra has not seen, as in `compose`.
    """
    now, shown, again = resolved(bare), printable(bare), resolved(suited)
    kept = {key: value for key, value in stored.items() if key not in NEVER_FROM_CHECKPOINTS}
    if isinstance(kept.get("data"), dict):
        # What the data must be now is what it was in the checkpoint, or what is given now.
        kept["data"] = {**kept["data"], "fingerprint": None}
    mixed, mixed_shown = {**now, **kept}, {**shown, **kept}
    for override in parse_overrides(overrides):
        path = override.key_or_group.split(".")
        for result, source in ((mixed, now), (mixed_shown, shown)):
            _copy_at(path, source, result)
        group = path[0]
        if len(path) == 1 and isinstance(kept.get(group), dict):
            for key, value in kept[group].items():
                if key in mixed[group] and again[group].get(key) == value:
                    mixed[group] |= {key: value}
                    mixed_shown[group] |= {key: value}
    for result in (mixed, mixed_shown):  # null is for as many ids as there are, which is known now
        model = result["model"]
        if model.get("vocab_size") is None:
            result["model"] = {**model, "vocab_size": (kept.get("model") or {}).get("vocab_size")}
    unknown = [
        f"{key}: is {value} in the checkpoint, which holds no secrets; give {key}=<value> again"
        for key, value in leaves({key: mixed[key] for key in kept if key in mixed})
        if isinstance(value, str) and ("${" in value or REDACTED in value)
    ]
    if unknown:
        raise ConfigError(*unknown)
    return Composed(parse({**mixed, **texts}), {**mixed_shown, **texts})


def _copy_at(path: list[str], source: dict[str, Any], result: dict[str, Any]) -> None:
    for key in path[:-1]:
        if key not in source or key not in result:
            return
        source = source[key]
        result[key] = dict(result[key])
        result = result[key]
    if path[-1] in source:
        result[path[-1]] = source[path[-1]]


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Plain values with every interpolation replaced by what it stands for.

    Raises:
        ConfigError: naming the key whose environment variable or other value is missing.
    """
    try:
        container = OmegaConf.to_container(
            cfg, resolve=True, throw_on_missing=True, enum_to_str=True
        )
    except OmegaConfBaseException as error:
        raise ConfigError(_translated(error)) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def parse_overrides(overrides: Sequence[str], config_name: str = "train") -> list[Override]:
    """Hydra's reading of each override.

    Raises:
        ConfigError: for each that is not of the form key=value.
    """
    parser = OverridesParser.create()
    parsed, found = [], []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
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


def _hydra_compose(config_name: str, overrides: list[str]) -> DictConfig:
    register_schemas(config_name)
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        try:
            cfg = hydra_compose(config_name, overrides=overrides, return_hydra_config=True)
        except AttributeError as error:  # of OmegaConf's, over a mapping where there was none
            raise HydraException(str(error)) from error
    if found := list(plugins.problems(OmegaConf.to_container(cfg.hydra, enum_to_str=True))):
        raise ConfigError(*found)
    with flag_override(cfg, ["struct", "readonly"], [False, False]):
        del cfg["hydra"]
    remember(cfg)
    return cfg


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


def _translated(error: Exception) -> str:
    """Hydra's or OmegaConf's complaint as one line of ours."""
    text = str(error)
    key = getattr(error, "full_key", None) or "settings"
    first, *more = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if first.endswith(":") and more:  # Hydra names the file, OmegaConf on the next line the mistake
        first = f"{first} {more[0]}"
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
