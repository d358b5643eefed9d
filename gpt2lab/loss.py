"""The tied head and its cross-entropy in one: no more than a chunk of large logits exists at once.

Sums and counts are kept apart, so that a batch may be split over micro-batches and devices without
changing its gradient: each part's sum is divided by the count of the whole step.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt2lab.batch import IGNORE

# One chunk's logits are the only ones in memory. 256 rows and fewer made the matrix products
# measurably slower; more only cost memory.
CHUNK_ROWS = 512
# The head's gradient is added up in the products' format for so many chunks, and their sums in
# fp32: a longer sum in bf16 would round each addition by an ever larger total.
CHUNKS_A_SUM = 4
# On a CPU the softmax of 32 rows of 50,257 classes stays in the cache.
CPU_TILE_ROWS = 32
# Below this many logits the plain path is as fast and shorter.
DENSE_LOGITS = 2**22


def prefix_masked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    vocab_size: int | None = None,
    num_counted: Tensor | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """Mean negative log-likelihood of the targets that are not IGNORE, in nats per token.

    Args:
        hidden: (..., C), the backbone's output.
        weight: (rows, C), the token embedding; rows from vocab_size on are padding.
        targets: (...) next-token ids or IGNORE. Rows that are ignored cost nothing.
        vocab_size: classes; all rows if None.
        num_counted: the divisor; the number of targets that count here if None. With the count of
            a whole optimizer step, the gradients of its parts add up to the gradient of the whole.
        counted: where in the flattened targets those are that count, as in Batch; looked for if
            None, for which the host waits.
    Returns:
        A scalar, fp32 or wider; 0 with zero gradients if nothing counts.
    """
    vocab_size = vocab_size or weight.shape[0]
    hidden, targets = _counted_rows(hidden, targets, counted)
    if num_counted is None:
        num_counted = torch.full((), targets.numel(), device=targets.device)
    scale = 1 / num_counted.clamp(min=1).to(_wide(hidden.dtype))
    if targets.numel() * vocab_size <= DENSE_LOGITS:
        logits = F.linear(hidden, weight[:vocab_size])
        total = F.cross_entropy(logits.to(_wide(logits.dtype)), targets, reduction="sum")
        return total * scale
    dtype = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, vocab_size, scale, dtype)


@torch.no_grad()
def score_targets(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    vocab_size: int | None = None,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Each target's negative log-likelihood, and whether it was the likeliest token.

    Args:
        counted: as in prefix_masked_cross_entropy.
    Returns:
        (...) in nats, 0 where ignored; (...) bool, True where ignored.
    """
    vocab_size = vocab_size or weight.shape[0]
    if counted is None:
        (counted,) = (targets.flatten() != IGNORE).nonzero(as_tuple=True)
    rows, wanted = _counted_rows(hidden, targets, counted)
    nll = torch.zeros(targets.shape, dtype=_wide(hidden.dtype), device=hidden.device)
    right = torch.ones(targets.shape, dtype=torch.bool, device=hidden.device)
    if not len(rows):
        return nll, right
    dtype = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    rows, head = rows.to(dtype), weight.to(dtype)
    # Reused: the system clears the pages of a new one, which takes a tenth of the product's time.
    buffer = head.new_empty(min(CHUNK_ROWS, len(rows)), len(head))
    parts = []
    for chunk, target in zip(rows.split(CHUNK_ROWS), wanted.split(CHUNK_ROWS), strict=True):
        logits = torch.mm(chunk, head.t(), out=buffer[: len(chunk)])[:, :vocab_size]
        is_small = logits.numel() <= DENSE_LOGITS
        tiles = [(logits, target)] if is_small else _tiles(logits, target)
        parts += [_scores(*tile) for tile in tiles]
    nll.view(-1)[counted] = torch.cat([loss for loss, _ in parts]).to(nll.dtype)
    right.view(-1)[counted] = torch.cat([likeliest for _, likeliest in parts])
    return nll, right


def _scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows (n, V), which may be overwritten: each target's loss, and whether it is likeliest."""
    wide = logits.to(_wide(logits.dtype))
    largest, likeliest = wide.max(-1)
    target_logit = wide.gather(1, targets[:, None]).squeeze(1)
    sums = wide.sub_(largest[:, None]).exp_().sum(-1)
    return sums.log() + (largest - target_logit), likeliest == targets


def _counted_rows(
    hidden: Tensor, targets: Tensor, counted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The rows (n, C) and targets (n,) that count."""
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if counted is None:
        (counted,) = (targets != IGNORE).nonzero(as_tuple=True)
    if len(counted) == len(targets):
        return hidden, targets
    return hidden.index_select(0, counted), targets.index_select(0, counted)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """fp32, or float64 as it is: bf16 keeps 8 significant bits, too few for a sum of 50,257."""
    return torch.promote_types(dtype, torch.float32)


def is_summed_wide(rows: int, dtype: torch.dtype) -> bool:
    """Whether the head's gradient is added up in a wider format than the products'."""
    return rows > CHUNKS_A_SUM * CHUNK_ROWS and dtype != _wide(dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of losses times a scale, its gradient computed in the forward pass.

    The gradient of a chunk's logits, softmax minus one-hot, is at hand when its loss is: multiplied
    out at once, it needs neither the logits to be kept nor a second product with the head.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        vocab_size: int,
        scale: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        rows, head = hidden.detach().to(dtype), weight.detach().to(dtype)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        ctx.input_dtypes = hidden.dtype, weight.dtype
        grad_hidden = torch.empty_like(rows) if wants_hidden else None
        grad_weight = torch.zeros_like(head) if wants_weight else None
        sums = None
        if wants_weight and is_summed_wide(len(rows), dtype):
            sums = torch.zeros_like(head, dtype=_wide(dtype))
        buffer = head.new_empty(min(CHUNK_ROWS, len(rows)), len(head))
        total = torch.zeros((), dtype=_wide(dtype), device=hidden.device)
        for number, start in enumerate(range(0, len(rows), CHUNK_ROWS), 1):
            chunk = rows[start : start + CHUNK_ROWS]
            logits = torch.mm(chunk, head.t(), out=buffer[: len(chunk)])
            target = targets[start : start + CHUNK_ROWS]
            # Afterwards `logits` holds the scaled gradient of the loss by the logits.
            total += _loss_and_gradient(logits, target, vocab_size, scale)
            if grad_hidden is not None:
                torch.mm(logits, head, out=grad_hidden[start : start + CHUNK_ROWS])
            if grad_weight is not None:
                grad_weight.addmm_(logits.t(), chunk)
                if sums is not None and number % CHUNKS_A_SUM == 0:
                    sums += grad_weight
                    grad_weight.zero_()
        if sums is not None and grad_weight is not None:
            grad_weight = sums.add_(grad_weight)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            # mul_ on the copy that the cast makes: a third copy of the head would be the peak.
            None if saved is None else saved.to(dtype, copy=True).mul_(grad_loss)
            for saved, dtype in zip(ctx.saved_tensors, ctx.input_dtypes, strict=True)
        )
        return *gradients, None, None, None, None


def _loss_and_gradient(logits: Tensor, targets: Tensor, vocab_size: int, scale: Tensor) -> Tensor:
    """Sum of the losses of these rows; overwrites logits (n, rows) with their scaled gradient."""
    logits[:, vocab_size:] = 0  # padding gets no gradient
    total = torch.zeros((), dtype=_wide(logits.dtype), device=logits.device)
    for tile, target in _tiles(logits[:, :vocab_size], targets):
        wide = tile.to(_wide(tile.dtype), copy=True)
        wide -= wide.amax(-1, keepdim=True)
        target_logit = wide.gather(1, target[:, None])
        sums = wide.exp_().sum(-1, keepdim=True)
        total += (sums.log() - target_logit).sum()
        wide *= scale / sums  # softmax, scaled
        wide.scatter_add_(1, target[:, None], (-scale).expand(len(tile), 1))
        tile.copy_(wide)
    return total


def _tiles(logits: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    rows = CPU_TILE_ROWS if logits.device.type == "cpu" else max(1, len(logits))
    return zip(logits.split(rows), targets.split(rows), strict=True)
