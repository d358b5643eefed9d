"""Settings that may be shown: secrets never reach a file or a log.

Two things count as secret: whatever is read from the environment (`${oc.env:...}`), and whatever
stands under a key that is called like one.
"""

import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

REDACTED = "<redacted>"

_SECRET_NAME = re.compile(
    r"(api_?key|secret|password|passwd|credential|auth|(^|_)(token|key))$", re.I
)
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:")


def printable(cfg: DictConfig) -> dict[str, Any]:
    """Resolved plain values; what comes from the environment stays an interpolation.

    A text that contains a value read from the environment by way of another key is masked too.
    """
    secrets: set[str] = set()
    _collect(cfg, secrets)
    shown = _show(cfg, secrets)
    assert isinstance(shown, dict)
    return shown


def redacted_arguments(arguments: list[str]) -> list[str]:
    """A command line with the values of secret-looking keys masked."""
    shown = []
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        shown.append(f"{key}={REDACTED}" if equals and is_secret(key) else argument)
    return shown


def is_secret(key: str) -> bool:
    """Whether a dotted key is called like a secret."""
    return _SECRET_NAME.search(key.split(".")[-1]) is not None


def mask(cfg: DictConfig) -> None:
    """Replace secret-looking values where they stand; interpolations are left as they are."""
    for key in list(cfg):
        node = cfg._get_node(key)
        if is_secret(str(key)) and "${" not in str(node):
            cfg[key] = REDACTED
        elif isinstance(node, DictConfig) and _children(node):
            mask(node)


def _children(node: DictConfig | ListConfig) -> list[tuple[Any, Any]]:
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return []
    if isinstance(node, ListConfig):
        return [(i, node._get_node(i)) for i in range(len(node))]
    return [(key, node._get_node(key)) for key in node]


def _collect(node: DictConfig | ListConfig, secrets: set[str]) -> None:
    for key, child in _children(node):
        if isinstance(child, DictConfig | ListConfig):
            _collect(child, secrets)
        elif isinstance(raw := child._value(), str) and _ENVIRONMENT.search(raw):
            secrets.add(str(node[key]))


def _show(node: DictConfig | ListConfig, secrets: set[str]) -> Any:
    shown: dict[Any, Any] = {}
    for key, child in _children(node):
        raw = child._value()
        if isinstance(raw, str) and _ENVIRONMENT.search(raw):
            shown[key] = raw
        elif is_secret(str(key)) and raw is not None:
            shown[key] = REDACTED  # a number, a list or a mapping as well
        elif isinstance(child, DictConfig | ListConfig) and _children(child):
            shown[key] = _show(child, secrets)
        else:
            value = node[key]
            if isinstance(value, DictConfig | ListConfig):
                value = OmegaConf.to_container(value, resolve=True)
            shown[key] = _masked(getattr(value, "name", value), secrets)
    return list(shown.values()) if isinstance(node, ListConfig) else shown


def _masked(value: Any, secrets: set[str]) -> Any:
    """A text without what was read from the environment; anything else as it is."""
    if isinstance(value, str):
        for secret in secrets:
            # Shorter values (a job's number, a user's name) are no secrets and occur everywhere.
            if len(secret) >= 8:
                value = value.replace(secret, REDACTED)
    return value
