"""What the ranks of a run tell each other: sums, maxima and words, the same on all of them.

A rank is one process with one device; all are at the same step. A run on one device is its own only
rank, for which nothing here does anything.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def several() -> bool:
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    return not several() or dist.get_rank() == 0


def total(value: Tensor) -> Tensor:
    """The sum over the ranks; on one rank, the value itself."""
    if not several():
        return value
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return summed


def count() -> int:
    return dist.get_world_size() if several() else 1


def largest(values: list[float], device: torch.device) -> list[float]:
    """Each value's maximum over the ranks; the host waits for it.

    Args:
        device: that of this rank, by which it can reach the others.
    """
    if not several():
        return values
    numbers = torch.tensor(values, dtype=torch.float32, device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()


def joined(values: list[Any]) -> list[Any]:
    """The lists of all ranks, one after another."""
    if not several():
        return values
    parts: list[list[Any]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def of_first(value: Any) -> Any:
    """The first rank's value."""
    box = [value]
    if several():
        dist.broadcast_object_list(box)
    return box[0]
