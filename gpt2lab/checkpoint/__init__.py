"""Checkpoints: written whole or not at all, checked before they are believed, found again.

Importing this loads no torch; each name loads its home on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lab.checkpoint.callback import Checkpoints as Checkpoints
    from gpt2lab.checkpoint.find import clean as clean
    from gpt2lab.checkpoint.find import find_checkpoint as find_checkpoint
    from gpt2lab.checkpoint.folder import is_checkpoint as is_checkpoint
    from gpt2lab.checkpoint.io import AtomicCheckpointIO as AtomicCheckpointIO
    from gpt2lab.checkpoint.manifest import read_manifest as read_manifest
    from gpt2lab.checkpoint.model import read_model as read_model
    from gpt2lab.checkpoint.reading import check_fits as check_fits
    from gpt2lab.checkpoint.reading import load_checkpoint as load_checkpoint
    from gpt2lab.checkpoint.reading import load_facts as load_facts
    from gpt2lab.checkpoint.reading import load_shapes as load_shapes
    from gpt2lab.checkpoint.reading import load_weights as load_weights
    from gpt2lab.checkpoint.verify import check_whole as check_whole

_HOME = {
    "AtomicCheckpointIO": "io",
    "Checkpoints": "callback",
    "check_fits": "reading",
    "check_whole": "verify",
    "clean": "find",
    "find_checkpoint": "find",
    "is_checkpoint": "folder",
    "load_checkpoint": "reading",
    "load_facts": "reading",
    "load_shapes": "reading",
    "load_weights": "reading",
    "read_manifest": "manifest",
    "read_model": "model",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gpt2lab.checkpoint' has no attribute {name!r}")
    return getattr(import_module(f"gpt2lab.checkpoint.{_HOME[name]}"), name)
