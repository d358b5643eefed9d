"""What Hydra's own settings may name: plugins for launching and sweeping, and nothing that runs.

Hydra builds `hydra.launcher`, `hydra.sweeper` and `hydra.callbacks` of a multirun by their
`_target_`, and configures logging, which can call anything too.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gpt2lab.config.check.targets import special_keys

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
"""Where launchers and sweepers live; Hydra itself sees to it that they are such."""

CALLBACKS = (
    "gpt2lab.config.multirun.RedactMultirun",
    "hydra.experimental.callbacks.LogJobReturnCallback",
    "hydra.experimental.callbacks.PickleJobInfoCallback",
)
_NO_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}


def override_problem(key: str) -> str | None:
    """A line for an override of Hydra's settings that must not even be composed."""
    if key == "hydra.searchpath":  # it may name a package, which is then imported
        return "hydra.searchpath: is not allowed; give folders by --config-dir"
    return None


def problems(node: Any) -> Iterator[str]:
    """One line for whatever in the composed, unresolved `hydra` node could run code."""
    allowed: dict[str, tuple[str, ...]] = {
        f"hydra.{name}._target_": PLUGINS for name in ("launcher", "sweeper")
    }
    allowed |= {f"hydra.callbacks.{n}._target_": CALLBACKS for n in node.get("callbacks") or {}}
    for name in ("launcher", "sweeper", "callbacks"):
        for key, _ in special_keys(node.get(name), f"hydra.{name}"):
            value = _at(node, key)
            if not isinstance(value, str) or not _is_one_of(value, allowed.get(key, ())):
                yield f"{key}: {value} is not allowed; name a plugin of Hydra's, or leave it out"
    for name in ("job_logging", "hydra_logging"):
        if node.get(name) not in (None, _NO_LOGGING):
            yield f"hydra.{name}: is not allowed, train.log is the run's log; leave it out"
    if (node.get("job") or {}).get("env_set"):
        yield "hydra.job.env_set: is not allowed; set the variables where the command is started"
    for key in (node.get("sweeper") or {}).get("params") or {}:
        if str(key).lstrip("+~").startswith("hydra"):
            yield f"hydra.sweeper.params: {key} is not allowed; sweep over settings"


def _is_one_of(value: str, allowed: tuple[str, ...]) -> bool:
    """Whether it is one of the names, or lies within one that ends with a dot."""
    return any(value == name or (name[-1] == "." and value.startswith(name)) for name in allowed)


def _at(node: Mapping[str, Any], key: str) -> Any:
    """What stands at `hydra.a.b`, as special_keys names it; None within lists."""
    value: Any = node
    for part in key.split(".")[1:]:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
