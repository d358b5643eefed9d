"""Hydra: from overrides such as `model=small optim.lr=1e-3` to checked settings.

Everything is looked at before anything is done: Hydra's job never begins here, so that no folder
appears for a typo.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from gpt2lab.config import plugins
from gpt2lab.config.changes import leaves
from gpt2lab.config.check.train import run_problems
from gpt2lab.config.commands import COMMAND_LINES, LIGHTNING_GROUPS
from gpt2lab.config.conf_dir import conf_dir, groups
from gpt2lab.config.overrides import parse_overrides, sifted, translated
from gpt2lab.config.parse import field_types, parse
from gpt2lab.config.redact import REDACTED, printable, remember
from gpt2lab.config.settings.train import SHAPES, TrainConfig
from gpt2lab.errors import ConfigError

WHERE = ("name", "runs_dir", "resume", "allow_nonfinite")
"""The settings by which a checkpoint is found and loaded."""
NEVER_FROM_CHECKPOINTS = (*LIGHTNING_GROUPS, *WHERE, "profile", "debug")


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
    known: dict[tuple[str, ...], DictConfig] | None = None,
) -> DictConfig:
    """Hydra's composition of conf/<config_name>.yaml with overrides; not yet parsed.

    Args:
        config_dirs: further folders laid out as conf/, in which groups and options are looked for.
        texts: values that Hydra does not see, as in `verbatim`.
        known: what Hydra has composed by its overrides, kept for further calls with the same name
            and folders; the choices, alone, are composed to judge the rest by.
    Raises:
        ConfigError: one line for each override that cannot be.
    """
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"{folder}: is not a folder; give one that is laid out as conf/")
    search_path = [f"file://{Path(folder).resolve()}" for folder in config_dirs]
    extra = [f"hydra.searchpath={search_path}"] if search_path else []

    composed = {} if known is None else known

    def attempt(*chosen: str) -> DictConfig:
        if chosen not in composed:
            composed[chosen] = _hydra_compose(config_name, [*chosen, *extra])
        return composed[chosen]

    options = groups(config_name, config_dirs)
    good, found = sifted(config_name, parse_overrides(overrides, config_name), options, attempt)
    try:
        cfg = attempt(*good)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(*(found or [translated(error)])) from error
    if found:
        with suppress(ConfigError):  # what the good ones have wrong beyond names and types
            parse({**resolved(cfg), **texts}, found, root=COMMAND_LINES[config_name].root)
        raise ConfigError(*found)
    return cfg


def settings_from(
    config_name: str,
    overrides: Sequence[str] = (),
    config_dirs: Iterable[str] = (),
    saved: Callable[[TrainConfig], dict[str, Any] | None] | None = None,
    known: dict[tuple[str, ...], DictConfig] | None = None,
) -> Composed:
    """Compose, resolve every interpolation, parse.

    With a checkpoint to resume, its settings with overrides on top; a chosen experiment replaces
    them all.

    Args:
        saved: of train, the settings stored in the checkpoint that `resume` asks for, given
            settings of which only those of WHERE count; None for a fresh start.
        known: as in `compose`.
    Raises:
        ConfigError: one line for each problem.
    """
    texts, others = verbatim(COMMAND_LINES[config_name].root, overrides)

    def fresh() -> Composed:
        cfg = compose(config_name, others, config_dirs, texts, known)
        return from_config(cfg, config_name, texts)

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
        elif text.startswith("~") and "'" not in text:
            others.append(f"{key}='{text}'")  # a home, which Hydra's grammar does not know
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
        raise ConfigError(translated(error)) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


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
