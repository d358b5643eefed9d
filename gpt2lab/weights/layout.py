"""A folder in the Hugging Face layout: its config.json as our settings, its files of weights."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2lab.config import GPT2Config
from gpt2lab.config.parse import parse_group
from gpt2lab.errors import CheckpointError, ConfigError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Names the file of each tensor, where there are several."""
OLD_WEIGHTS = "pytorch_model.bin"
SPEECH = "gpt2lab.json"
"""Of our exports: how the model is spoken to, for which the layout has no words."""

ANOTHER = "take a GPT-2 of another folder"

FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}
"""What our model does in one way only: the values that say so. Absent is GPT-2's own way too."""


def read_config(folder: Path) -> GPT2Config:
    """The shape of a folder's model.

    Raises:
        CheckpointError: if config.json is missing, damaged, or of another model than GPT-2.
    """
    path = folder / CONFIG
    found = read_json(path)
    if problems := list(differences(found)):
        raise CheckpointError(*(f"{path}: {problem}; {ANOTHER}" for problem in problems))
    plain = {name: found[name] for name in ("n_layer", "n_head", "n_embd", "vocab_size")}
    plain |= {"block_size": positions(found), "dropout": found.get("resid_pdrop", 0.1)}
    try:
        config = parse_group(GPT2Config, plain, "model.")
    except ConfigError as error:
        raise CheckpointError(*(f"{path}: {problem}" for problem in error.problems)) from error
    inner = found.get("n_inner")
    if inner not in (None, 4 * config.n_embd):
        raise CheckpointError(f"{path}: n_inner is {inner!r}, not 4 * n_embd; {ANOTHER}")
    return config


def differences(found: dict[str, Any]) -> Iterator[str]:
    """What keeps a config.json from being one of our model."""
    for name in ("n_layer", "n_head", "n_embd", "vocab_size"):
        if found.get(name) is None:
            yield f"{name} is missing"
    if positions(found) is None:
        yield "n_positions is missing"
    for name, allowed in FIXED.items():
        if name in found and found[name] not in allowed:
            yield f"{name} is {found[name]!r}, our model has {' or '.join(map(repr, allowed))}"


def positions(found: dict[str, Any]) -> Any:
    """Rows of the position embedding; the oldest folders call them n_ctx."""
    return found.get("n_positions", found.get("n_ctx"))


def find_weights(folder: Path) -> list[Path]:
    """The files that hold a folder's weights.

    Raises:
        CheckpointError: if there are none, or an index names what is not there.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return shards(folder / INDEX)
    if (folder / OLD_WEIGHTS).is_file():
        return [folder / OLD_WEIGHTS]
    raise CheckpointError(
        f"{folder}: has neither {WEIGHTS} nor {OLD_WEIGHTS}; give a folder with the weights"
    )


def shards(index: Path) -> list[Path]:
    """The files that an index names, each in its own folder."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{index}: has no weight_map; copy or download it again")
    names = list(dict.fromkeys(map(str, files.values())))
    for name in names:
        # is_file of a Path raises for what no path can be
        if Path(name).name != name or not os.path.isfile(index.parent / name):  # noqa: PTH113
            raise CheckpointError(
                f"{index}: names {name[:200]!r}, which is no file beside it; "
                "copy or download it again"
            )
    return [index.parent / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        CheckpointError: if there is no such file, or no JSON object in it.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give a folder in the Hugging Face layout"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not JSON; copy or download it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: is no JSON object; copy or download it again")
    return found
