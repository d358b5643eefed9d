"""The settings of a point as a file of an experiment, which train takes by its name."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import OverrideType, QuotedString
from omegaconf import OmegaConf

from gpt2lab.config.conf_dir import conf_dir, groups
from gpt2lab.config.overrides import is_choice, parse_overrides
from gpt2lab.config.redact import REDACTED, redacted_arguments
from gpt2lab.sweep.space import merged, overrides
from gpt2lab.sweep.study import Study

EXPERIMENT = Path("experiment", "best.yaml")
"""In the study's folder, which so is laid out as conf/."""


def command(study: Study) -> str:
    """What trains with that file."""
    told = [*study.config_dirs, study.folder]
    folders = " ".join(f"--config-dir {shlex.quote(str(folder))}" for folder in told)
    return f"python -m gpt2lab.train {folders} experiment=best"


def experiment(study: Study, params: Mapping[str, Any]) -> str:
    """The study's base and a point's settings; secrets among them are left out."""
    told = redacted_arguments(merged(study.overrides, overrides(params, study.space)))
    options = groups("train", study.config_dirs)
    chosen: dict[str, Any] = {}
    values = OmegaConf.create()
    for override in parse_overrides([text for text in told if REDACTED not in text]):
        value = None if override.type is OverrideType.DEL else _plain(override.value())
        if is_choice(override, options):
            chosen[override.key_or_group] = value
        else:
            OmegaConf.update(values, override.key_or_group, value, force_add=True)
    defaults: list[Any] = [*_experiments(chosen, options), "_self_"]
    defaults += [{f"override /{group}": name} for group, name in chosen.items()]
    content = {"defaults": defaults, **(OmegaConf.to_container(values) or {})}  # type: ignore[dict-item]
    return f"# @package _global_\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"


def _experiments(chosen: dict[str, Any], options: Mapping[str, list[str]]) -> list[str]:
    """Those that the study has chosen, or the one that suits its model and data by itself."""
    if "experiment" in chosen:
        found = chosen.pop("experiment")
        return [str(name) for name in (found if isinstance(found, list) else [found]) if name]
    usual = yaml.safe_load((conf_dir() / "train.yaml").read_text())["defaults"]
    taken = {k: v for entry in usual if isinstance(entry, dict) for k, v in entry.items()} | chosen
    name = f"{taken['model']}_{taken['data']}"
    return [name] if name in options["experiment"] else []


def _plain(value: Any) -> Any:
    """Of Hydra's grammar, the plain values."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    return value
