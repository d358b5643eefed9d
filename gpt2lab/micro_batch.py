"""How many sequences a device has memory for: found by trying, on a GPU.

What does not fit raises there, at once and harmlessly; on a CPU the system would swap, or kill.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from gpt2lab import ranks
from gpt2lab.batch import Batch
from gpt2lab.errors import RunError
from gpt2lab.model import GPT2

SPARE = 0.05
"""Share of the device's memory that is left: for evaluations, and for gaps between tensors."""
CUBLAS_HAS_NO_ROOM = ("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")


def largest_that_fits(rows: int, fits: Callable[[int], bool], device: torch.device) -> int:
    """The largest divisor of `rows` that fits on all ranks.

    Args:
        rows: of a rank's share of a step.
        fits: tries a micro-batch of so many rows.
        device: that of this rank, by which it can reach the others.
    Raises:
        RunError: if not even one row does.
    """

    def fits_all(count: int) -> bool:
        # A rank may have less memory than the others, so that all say for all what does not fit.
        (is_too_much,) = ranks.largest([float(not fits(count))], device)
        return not is_too_much

    # One first: what is loaded with the first step is then there, and leaves less for all others.
    if not fits_all(1):
        raise RunError(
            "micro_batch_size: not one sequence fits into the memory; choose a smaller model or "
            "model.block_size, model.activation_checkpointing=true, or strategy=fsdp"
        )
    divisors = (count for count in range(rows, 1, -1) if rows % count == 0)
    return next((count for count in divisors if fits_all(count)), 1)


def fits(
    model: GPT2, share: Batch, rows: int, held_later: Iterable[Tensor], spare: int = 0
) -> bool:
    """Whether two micro-batches of so many rows can be computed, the second beside the gradients
    of the first. Weights and gradients are left as they were: no gradients.

    Args:
        share: a rank's share of a step, on the host.
        held_later: tensors like those that are not there yet, but will be when it trains.
        spare: bytes that must be left.
    """
    try:
        reserved = [torch.empty_like(tensor) for tensor in held_later]
        reserved.append(torch.empty(spare, dtype=torch.uint8, device=model.device))
        for part in share.split(rows)[:2]:
            model.loss(part.with_counted().to(model.device)).backward()
        del reserved
    except torch.OutOfMemoryError:
        return False
    except RuntimeError as error:
        # Of one row, cuBLAS says by these that it does not work at all.
        if rows == 1 or not any(status in str(error) for status in CUBLAS_HAS_NO_ROOM):
            raise
        return False
    finally:
        model.zero_grad()
        torch.accelerator.empty_cache()
    return True


def spare_bytes(device: torch.device) -> int:
    _, capacity = torch.accelerator.get_memory_info(device)
    return round(SPARE * capacity)
