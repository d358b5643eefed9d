"""What the ranks of a run tell each other: sums, maxima and words, the same on all of them.

A rank is one process with one device; all are at the same step. A run on one device is its own only
rank, for which nothing here does anything.
"""

import itertools
import json
import math
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

POLL_S = 0.01


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


def on_device(values: list[float], device: torch.device) -> Tensor:
    """These numbers on a device; the host does not wait for the copy."""
    numbers = torch.tensor(values, dtype=torch.float32)
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=True)


def largest(values: list[float], device: torch.device) -> list[float]:
    """Each value's maximum over the ranks; the host waits for it.

    Args:
        device: that of this rank, by which it can reach the others.
    """
    if not several():
        return values
    numbers = on_device(values, device)
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


def own(tensor: Tensor) -> Tensor:
    """This rank's rows of a tensor that is sharded over the ranks; any other as it is.

    What is done to them in place is done to that tensor.
    """
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()  # type: ignore[attr-defined]


def own_rows(n: int) -> slice:
    """Which of n rows this rank has of a tensor that is sharded."""
    return rows_of(n, dist.get_rank(), dist.get_world_size())


def rows_of(n: int, rank: int, count: int) -> slice:
    """As torch.chunk deals out n rows: 11 to 4 ranks as 3 3 3 2, 5 as 2 2 1 0."""
    each = -(-n // count)
    return slice(min(rank * each, n), min((rank + 1) * each, n))


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, whose module takes long to import where there is none."""
    return hasattr(tensor, "to_local")


class Board:
    """Notes that ranks leave for each other, from any thread and in any order.

    Unlike a collective, any thread can so speak to another rank while its main thread does
    something else. Kept by the store that the ranks found each other by. All of them make as many
    boards, and in the same order.
    """

    def __init__(self) -> None:
        name = f"gpt2lab-{next(_numbers)}"
        self.store = dist.PrefixStore(name, distributed_c10d._get_default_store())
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def post(self, name: str, note: Any) -> None:
        """
        Args:
            name: used once.
            note: in JSON's types.
        """
        self.store.set(name, json.dumps(note))

    def read(self, name: str, timeout_s: float = math.inf) -> Any:
        """The note of this name, once it is there.

        Raises:
            TimeoutError: if it is not, in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.store.check([name]):
            if time.monotonic() > deadline:
                raise TimeoutError(name)
            time.sleep(POLL_S)
        return json.loads(self.store.get(name))


_numbers = itertools.count()
