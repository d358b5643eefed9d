"""A model's settings and weights in the Hugging Face layout, as they are written to files."""

import errno
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2lab.config import StoredPrecision
from gpt2lab.durable import write_json
from gpt2lab.errors import ConfigError
from gpt2lab.model import GPT2, INIT_STD, LAYER_NORM_EPS
from gpt2lab.weights.layout import CONFIG, INDEX, SPEECH, WEIGHTS
from gpt2lab.weights.pretrained import theirs
from gpt2lab.weights.spoken import plain_speech
from gpt2lab.weights.tensors import Shape, without_weights

GENERATION = "generation_config.json"
LARGEST_FILE = 5 * 10**9
"""Bytes of weights in a file, beyond which there are several: what the hub asks for."""

DTYPES = {
    StoredPrecision.fp32: torch.float32,
    StoredPrecision.bf16: torch.bfloat16,
    StoredPrecision.fp16: torch.float16,
}


def configuration(model: GPT2, dtype: torch.dtype) -> dict[str, Any]:
    """config.json. What a reader asks for is there even where it could be guessed.

    llama.cpp's converter asks for n_ctx, KerasHub for resid_pdrop; `torch_dtype` is read by
    transformers 4 and 5 alike.
    """
    config = model.config
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": None,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "vocab_size": model.vocab_size,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPS,
        "initializer_range": INIT_STD,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), config.dropout),
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "use_cache": True,
        **end_ids(model),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def end_ids(model: GPT2) -> dict[str, int | None]:
    """Null where there is no end of text: without these keys it would be taken for 50256."""
    end = model.speech.tokenizer.end_of_text if model.speech is not None else None
    return {"bos_token_id": end, "eos_token_id": end}


def generation_settings(model: GPT2) -> dict[str, Any]:
    """generation_config.json: what `generate` of transformers does unless it is told."""
    found: dict[str, Any] = {k: v for k, v in end_ids(model).items() if v is not None}
    if found:
        found["pad_token_id"] = found["eos_token_id"]  # or it warns, each time
    if model.speech is not None and model.speech.has_answers:
        found["do_sample"] = False
    if model.speech is not None and model.speech.answer_tokens is not None:
        found["max_new_tokens"] = model.speech.answer_tokens
    return found


def shapes_of(model: GPT2) -> dict[str, Shape]:
    """Every tensor that the layout has, by its name there, with its shape there."""
    complete = without_weights(replace(model.config, bias=True), "model")
    return {
        name: tuple(theirs(name, tensor, model.vocab_size).shape)
        for name, tensor in complete.state_dict().items()
    }


def stored(model: GPT2, name: str, shape: Shape, dtype: torch.dtype) -> Tensor:
    """One tensor as it stands in a file; a bias that the model does without is zero.

    Args:
        shape: of the tensor there.
    Raises:
        ConfigError: if a number is too large for the format.
    """
    state = model.state_dict()
    if name not in state:
        return torch.zeros(shape, dtype=dtype)
    tensor = theirs(name, state[name], model.vocab_size)
    found = tensor.to(dtype).contiguous()
    if dtype is torch.float16 and not torch.equal(found.isfinite(), tensor.isfinite()):
        largest = torch.finfo(dtype).max
        raise ConfigError(
            f"precision: fp16 ends at {largest:,.0f}, {name} has {tensor.abs().max():,.0f}; "
            "choose fp32 or bf16"
        )
    return found


OTHER_FILES = 2**23
"""Bytes, at most, of all files but the weights: the vocabulary is written twice."""


def bytes_needed(model: GPT2, precision: StoredPrecision) -> int:
    """Of a whole folder, at most a few megabytes too many."""
    return sum(bytes_of(shapes_of(model), DTYPES[precision]).values()) + OTHER_FILES


def write_model(model: GPT2, folder: Path, precision: StoredPrecision) -> None:
    """The settings, and the weights in one file or several.

    Raises:
        ConfigError: if a number is too large for the format.
        OSError: if there is no room.
    """
    dtype = DTYPES[precision]
    write_json(folder / CONFIG, configuration(model, dtype))
    write_json(folder / GENERATION, generation_settings(model))
    if model.speech is not None:
        write_json(folder / SPEECH, plain_speech(model.speech))
    shapes = shapes_of(model)
    sizes = bytes_of(shapes, dtype)
    parts = list(in_parts(sizes, LARGEST_FILE))
    files = file_names(len(parts))
    for file, names in zip(files, parts, strict=True):
        save({name: stored(model, name, shapes[name], dtype) for name in names}, folder / file)
    if len(parts) > 1:
        where = {name: file for file, names in zip(files, parts, strict=True) for name in names}
        total = {"total_size": sum(sizes.values())}
        write_json(folder / INDEX, {"metadata": total, "weight_map": where})


def bytes_of(shapes: Mapping[str, Shape], dtype: torch.dtype) -> dict[str, int]:
    """Of each tensor in a file."""
    return {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}


def in_parts(sizes: dict[str, int], largest: int) -> Iterator[list[str]]:
    """Names in their order, in parts of at most so many bytes, or of one tensor that is larger."""
    part: list[str] = []
    room = largest
    for name, size in sizes.items():
        if part and size > room:
            yield part
            part, room = [], largest
        part.append(name)
        room -= size
    yield part


def file_names(count: int) -> list[str]:
    if count == 1:
        return [WEIGHTS]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def save(tensors: dict[str, Tensor], path: Path) -> None:
    """
    Raises:
        OSError: if there is no room.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number)) from error
    # it is its owner's alone otherwise, unlike the files beside it
    path.chmod((path.parent / CONFIG).stat().st_mode)
