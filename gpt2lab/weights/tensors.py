"""What a file's tensors must be before a model takes them, whoever wrote the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2lab.config import GPT2Config
from gpt2lab.errors import CheckpointError
from gpt2lab.meta import meta_model
from gpt2lab.model import GPT2

Shape = tuple[int, ...]

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is as large as it says, and of numbers that everything can read."""
    return (
        tensor.layout is torch.strided
        and tensor.dtype in DTYPES
        and tensor.device.type != "meta"
        # Otherwise a billion numbers that are all the same one: nothing to copy, no end of reading.
        and tensor.nbytes <= tensor.untyped_storage().nbytes()
    )


def count_nonfinite(tensor: Tensor) -> int:
    """How many of a tensor's numbers are NaN or infinite."""
    if tensor.dtype not in FLOATS or tensor.numel() == 0:
        return 0
    extremes = torch.stack(torch.aminmax(tensor))  # NaN if any number is; 10 times faster
    return 0 if extremes.isfinite().all() else int((~tensor.isfinite()).sum())


def check_finite(
    counts: Mapping[str, tuple[int, int]], allowed: str | None, where: str | Path
) -> None:
    """
    Args:
        counts: of tensors with NaN or infinity, by name: how many numbers, of how many.
        allowed: the one that may have some.
    Raises:
        CheckpointError: naming the first that may not.
    """
    for name, (number, total) in counts.items():
        if name != allowed:
            raise CheckpointError(
                f"{where}: {name} has {number:,} of {total:,} numbers NaN or infinite; "
                f"take another one, or go on with allow_nonfinite={name}"
            )


def check_shapes(
    wanted: Mapping[str, Shape], found: Mapping[str, Shape], where: str | Path, mend: str
) -> None:
    """
    Raises:
        CheckpointError: naming the first tensor that differs, with both shapes.
    """
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{where}: {name} is {found.get(name, 'missing')} there and "
                f"{wanted.get(name, 'missing')} in the model; {mend}"
            )


def shapes(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def without_weights(config: GPT2Config, where: str | Path) -> GPT2:
    """A model of this shape that takes no memory, for weights that are assigned to it.

    Raises:
        CheckpointError: if no memory could ever hold it.
    """
    try:
        return meta_model(config)
    except (RuntimeError, TypeError) as error:  # torch's words for sizes beyond 64 bits
        raise CheckpointError(f"{where}: its model is too large; take another one") from error


def in_memory(model: GPT2) -> GPT2:
    """The same model, and nothing of it in a file any more that somebody may cut short."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    loose = [value for value in attributes if isinstance(value, Tensor)]
    for tensor in (*model.parameters(), *model.buffers(), *loose):
        # What is mapped from a file cannot be resized, everything else can.
        if tensor.layout is torch.strided and not tensor.untyped_storage().resizable():
            tensor.data = tensor.data.clone()
    return model
