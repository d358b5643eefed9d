"""Where data and model meet: inputs, targets, and which targets count."""

from typing import NamedTuple

import torch
from torch import Tensor

IGNORE = -100
"""A target that does not count; torch's own convention for cross-entropy."""


class Batch(NamedTuple):
    """Sequences of one step, already shifted by one: targets[:, t] follows inputs[:, t]."""

    inputs: Tensor
    """Token ids, (B, T) int64."""
    targets: Tensor
    """Next-token ids, (B, T) int64; IGNORE where the next token does not count."""
    documents: Tensor | None = None
    """The number of each token's document, (B, T) int64, never falling along a row; None for one
    document a row. Attention does not cross documents, and positions restart at 0 in each. A
    document's own <|endoftext|> belongs to it."""
    counted: Tensor | None = None
    """Where in the flattened targets those that count are, (n,) int64, rising; None where nobody
    has looked yet, as `with_counted` does."""

    def with_counted(self) -> "Batch":
        """The same with `counted`. To be called before `to`: for a GPU the host would wait."""
        (counted,) = (self.targets.flatten() != IGNORE).nonzero(as_tuple=True)
        if self.targets.is_pinned():  # a copy from other memory makes the host wait
            counted = counted.pin_memory()
        return self._replace(counted=counted)

    def num_counted(self) -> Tensor:
        """How many targets count, as an int64 scalar on the batch's device."""
        return (self.targets != IGNORE).sum()

    def split(self, rows: int) -> list["Batch"]:
        """Micro-batches of so many rows, not looked at; the last may be smaller."""
        parts = [tensor.split(rows) for tensor in self[:3] if tensor is not None]
        return [Batch(*part) for part in zip(*parts, strict=True)]

    def to(self, device: torch.device) -> "Batch":
        """This batch on a device; of pinned memory, the host does not wait for the copy."""
        documents, counted = (
            None if tensor is None else tensor.to(device, non_blocking=True)
            for tensor in (self.documents, self.counted)
        )
        inputs = self.inputs.to(device, non_blocking=True)
        return Batch(inputs, self.targets.to(device, non_blocking=True), documents, counted)


def mask_prefix(targets: Tensor, prefix: Tensor) -> Tensor:
    """Targets with IGNORE where the next token was given, not to be predicted.

    Position t predicts token t + 1, so a prefix of p tokens hides the first p - 1 targets: the
    last prefix token is the first that is trained to predict. p=3, T=5 hides
    [yes, yes, no, no, no].

    Args:
        targets: next-token ids, (B, T).
        prefix: tokens of each row that are given, (B,), each 0..T; 0 and 1 hide none.
    Raises:
        ValueError: if a prefix is negative or longer than T, or there is not one for each row.
    """
    B, T = targets.shape
    if prefix.shape != (B,):
        raise ValueError(f"prefix has shape {tuple(prefix.shape)}; {B} rows need ({B},)")
    if B and (int(prefix.min()) < 0 or int(prefix.max()) > T):
        raise ValueError(
            f"prefix ranges from {int(prefix.min())} to {int(prefix.max())}; "
            f"targets of {T} positions allow 0 to {T}"
        )
    positions = torch.arange(T, device=targets.device)
    given = positions < prefix.to(targets.device)[:, None] - 1  # (B, T)
    return targets.masked_fill(given, IGNORE)
