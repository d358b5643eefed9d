"""A checkpoint that is evaluated: its model, and what of it decides numbers."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab import __version__
from gpt2lab.checkpoint.folder import file_of, is_checkpoint
from gpt2lab.checkpoint.verify import sha256
from gpt2lab.config import EvaluateConfig
from gpt2lab.loading import load
from gpt2lab.weights import find_weights
from gpt2lab.weights.layout import CONFIG

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


def model_of(path: Path, config: EvaluateConfig) -> "GPT2":
    """
    Raises:
        CheckpointError, ConfigError: as `load` does.
    """
    return load(
        path,
        precision=config.precision,
        device=config.device,
        allow_nonfinite=config.allow_nonfinite,
    )


def decided_by(path: Path, model: "GPT2") -> dict[str, Any]:
    """All that numbers depend on but for the items: the model, and the code that reads it."""
    return {
        "version": __version__,
        "checkpoint_sha256": content_of(path),
        "tokenizer": None if model.speech is None else model.speech.tokenizer.fingerprint,
        "parameters": num_parameters(model),
        "precision": str(model.transformer.wte.weight.dtype).removeprefix("torch."),
        "device": model.device.type,
    }


def key_of(deciding: Mapping[str, Any]) -> str:
    """A short name for all that decides numbers, in the names of files that belong to it."""
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def content_of(path: Path) -> str:
    """A name for the bytes of a checkpoint's files."""
    files = [file_of(path)] if is_checkpoint(path) else [path / CONFIG, *find_weights(path)]
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def num_parameters(model: "GPT2") -> int:
    """Of the model as it was trained: one packed for its precision keeps weights elsewhere."""
    from gpt2lab.meta import meta_model

    return meta_model(model.config).num_parameters()
