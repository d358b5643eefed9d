"""Settings that may be shown: secrets never reach a file or a log.

Two things count as secret: whatever is read from the environment (`${oc.env:...}`), and whatever
stands under a key that is called like one. What was seen to be secret is also masked in messages,
which may quote a value that was refused.
"""

import os
import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

REDACTED = "<redacted>"

_SECRET_NAME = re.compile(
    r"(api_?key|secret|password|passwd|passphrase|credentials?|auth|(^|_)(token|key))$", re.I
)
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*([^,{}\s]+)")
# A name before = or :, as in key=value, {key: value} and {"key": "value"}. Looked for from where a
# word begins alone: from each of its letters, a long prompt would take minutes.
_NAMED = re.compile(r"""(?<![\w.])([\w.]+)["']?\s*[=:]\s*""")

_seen: set[str] = set()


def printable(cfg: DictConfig) -> dict[str, Any]:
    """Resolved plain values; what comes from the environment stays an interpolation.

    A text that contains a value read from the environment by way of another key is masked too.
    """
    secrets: set[str] = set()
    _collect(cfg, secrets)
    _seen.update(secrets)
    shown = _show(cfg, secrets)
    assert isinstance(shown, dict)
    return shown


def remember(cfg: DictConfig | ListConfig) -> None:
    """Know what is read from the environment before it is resolved: a refusal may quote it."""
    for _, child in _children(cfg):
        if isinstance(child, DictConfig | ListConfig):
            remember(child)
        if isinstance(raw := child._value(), str):
            _seen.update(os.environ.get(name, "") for name in _ENVIRONMENT.findall(raw))


def redacted_arguments(arguments: list[str]) -> list[str]:
    """A command line with whatever follows a secret-looking key masked."""
    return [redacted(argument) for argument in arguments]


def redacted(argument: str) -> str:
    """One argument, such as `a.api_key=x` or `a={api_key:x}`, without its secret."""
    for found in _NAMED.finditer(argument):
        if is_secret(found[1]):
            secret = argument[found.end() :]
            _seen.add(secret.strip("\"'}]) "))
            return argument[: found.end()] + REDACTED
    return argument


def masked(text: str) -> str:
    """A message without any secret that these settings, or this command line, brought."""
    return _masked(text, _seen)


def seen() -> set[str]:
    """The secrets that this process knows, for another one to `learn`."""
    return set(_seen)


def learn(secrets: set[str]) -> None:
    _seen.update(secrets)


def is_secret(key: str) -> bool:
    """Whether a dotted key is called like a secret."""
    return _SECRET_NAME.search(key.split(".")[-1]) is not None


def _hides(key: Any, value: Any) -> bool:
    """Whether a value is a secret: true, as add_start_token has it, is none."""
    return is_secret(str(key)) and value is not None and not isinstance(value, bool)


def mask(cfg: DictConfig | ListConfig) -> None:
    """Replace secret-looking values where they stand; interpolations are left as they are."""
    for key, node in _children(cfg):
        if _hides(key, node._value()) and "${" not in str(node):
            cfg[key] = REDACTED
        elif isinstance(node, DictConfig | ListConfig) and _children(node):
            mask(node)


def _children(node: DictConfig | ListConfig) -> list[tuple[Any, Any]]:
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return []
    if isinstance(node, ListConfig):
        return [(i, node._get_node(i)) for i in range(len(node))]
    return [(key, node._get_node(key)) for key in node]


def _collect(node: DictConfig | ListConfig, secrets: set[str]) -> None:
    for key, child in _children(node):
        raw = child._value()
        from_environment = isinstance(raw, str) and _ENVIRONMENT.search(raw)
        if from_environment or _hides(key, raw):
            _add_texts(node[key], secrets)
        elif isinstance(child, DictConfig | ListConfig):
            _collect(child, secrets)


def _add_texts(value: Any, secrets: set[str]) -> None:
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _add_texts(inner, secrets)
    elif value is not None:
        secrets.add(str(value))


def _show(node: DictConfig | ListConfig, secrets: set[str]) -> Any:
    shown: dict[Any, Any] = {}
    for key, child in _children(node):
        raw = child._value()
        if isinstance(raw, str) and _ENVIRONMENT.search(raw):
            shown[key] = raw
        elif _hides(key, raw):
            shown[key] = REDACTED  # a number, a list or a mapping as well
        elif isinstance(child, DictConfig | ListConfig) and _children(child):
            shown[key] = _show(child, secrets)
        else:
            value = node[key]
            if isinstance(value, DictConfig | ListConfig):  # a link to another node
                shown[key] = _show(value, secrets)
            elif child._is_interpolation() and str(value) in secrets:
                shown[key] = REDACTED
            else:
                shown[key] = _masked(getattr(value, "name", value), secrets)
    return list(shown.values()) if isinstance(node, ListConfig) else shown


def _masked(value: Any, secrets: set[str]) -> Any:
    """A text without what was read from the environment; anything else as it is."""
    if isinstance(value, str):
        for secret in sorted(secrets, key=len, reverse=True):
            # Shorter values (a job's number, a user's name) are no secrets and occur everywhere.
            if len(secret) >= 8:
                value = value.replace(secret, REDACTED)
    return value
