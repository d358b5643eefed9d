"""Weights in the Hugging Face layout: which files a folder has, and what a model takes from them.

Importing this loads no torch; each name loads its home on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lab.weights.hub import fetch as fetch
    from gpt2lab.weights.hub import fetch_config as fetch_config
    from gpt2lab.weights.hub import hub_name as hub_name
    from gpt2lab.weights.hub import pretrained_folder as pretrained_folder
    from gpt2lab.weights.layout import find_weights as find_weights
    from gpt2lab.weights.layout import read_config as read_config
    from gpt2lab.weights.pretrained import read_pretrained as read_pretrained

_HOME = {
    "fetch": "hub",
    "fetch_config": "hub",
    "find_weights": "layout",
    "hub_name": "hub",
    "pretrained_folder": "hub",
    "read_config": "layout",
    "read_pretrained": "pretrained",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gpt2lab.weights' has no attribute {name!r}")
    return getattr(import_module(f"gpt2lab.weights.{_HOME[name]}"), name)
