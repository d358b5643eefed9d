"""What differs between the settings in a checkpoint and those that go on from it."""

from collections.abc import Iterator, Mapping
from typing import Any

# Where a run stands, and what is no part of what it computes.
NOT_COMPARED = (
    "name",
    "runs_dir",
    "data_dir",
    "resume",
    "init_from",  # judged by itself
    "init_extend",  # read at the beginning alone
    "allow_nonfinite",
    "compile",
    "debug",
    "profile",
    "trainer",
    "strategy",
    "logger",
    "callbacks",
    "data.fingerprint",  # judged by itself, against the data
)
MEMORY_ONLY = "model.activation_checkpointing"
"""The one setting of the model that changes no number."""


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each dotted key with its value."""
    for name, value in settings.items():
        key = f"{path}{name}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def changes(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Old and new value of each setting that both have and that differs."""
    old, found = dict(leaves(stored)), {}
    for key, value in leaves(now):
        if key in NOT_COMPARED or key.split(".")[0] in NOT_COMPARED or key not in old:
            continue
        # As many token ids as the data has: null before it is read, a number after.
        derived = key == "model.vocab_size" and None in (old[key], value)
        if old[key] != value and not derived:
            found[key] = [old[key], value]
    return found


def model_problems(changed: Mapping[str, list[Any]]) -> list[str]:
    """A line for each change that makes another model of it."""
    return [
        f"{key}: {shown(old)} in the checkpoint, {shown(new)} now; leave it out, or start a new run"
        for key, (old, new) in changed.items()
        if key.startswith("model.") and key != MEMORY_ONLY
    ]


def shown(value: Any) -> str:
    """A value as it stands in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if value in ("", "\n") else str(value)
