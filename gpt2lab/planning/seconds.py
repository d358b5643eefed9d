"""How long a step takes: what is computed, what is updated, what is exchanged."""

from dataclasses import dataclass
from typing import Protocol

from gpt2lab.planning.memory import FP32
from gpt2lab.planning.work import Work

HOST = 1.5e-3
"""Of a step, for Lightning, the loader and the records: see `benchmark loop`."""
LINK_SHARE = 0.8
"""Of what a link could carry, what a collective of many tensors reaches."""
UPDATE_PASSES = 8
"""How often each number is read or written: gradient for its norm, then gradient, weight and two
averages read, weight and averages written."""


@dataclass(frozen=True)
class Seconds:
    """Of one step.

    Args:
        products: forward and backward, all micro-batches.
        update: gradient norm, clipping, optimizer.
        exchange: between devices, as far as nothing else is done meanwhile.
        host: between steps.
    """

    products: float
    update: float
    exchange: float
    host: float

    @property
    def step(self) -> float:
        return self.products + self.update + self.exchange + self.host


class Rates(Protocol):
    """What is known of a device's speed."""

    def products(self, work: Work) -> float:
        """Seconds of one micro-batch, forward and backward."""

    def update(self, work: Work) -> float:
        """Seconds of what follows the last backward pass of a step."""


@dataclass(frozen=True)
class Known:
    """A device of which only its data sheet is at hand.

    Args:
        flops_per_second: what the products are expected to reach.
        bytes_per_second: of its memory.
    """

    flops_per_second: float
    bytes_per_second: float

    def products(self, work: Work) -> float:
        flops = work.rows * work.flops_per_sequence
        if work.model.activation_checkpointing:
            # The blocks' forward pass, a third of what they take, is made once more.
            head = 6 * work.model.n_embd * (work.model.vocab_size or 0) * work.tokens
            flops += work.rows * (work.flops_per_sequence - head) // 3
        return flops / self.flops_per_second

    def update(self, work: Work) -> float:
        shards = work.devices if work.is_sharded else 1
        passes = FP32 * UPDATE_PASSES * work.parameters.all / shards / self.bytes_per_second
        if not work.uses_muon:
            return passes
        # A matrix is orthogonalised as a whole, on every device that has rows of it.
        return passes + work.model.n_layer * muon_flops(work.model.n_embd) / self.flops_per_second


def muon_flops(width: int) -> int:
    """Operations by which Muon orthogonalises the matrices of one block.

    Five times, X (m, n), m <= n, becomes a X + (b A + c A A) X, where A is X X^T: 4 m m n + 2 m m m
    each (Newton and Schulz, as in Jordan 2024, Muon). Matrices are C by 3 C, C, 4 C and 4 C.
    """
    return sum(5 * (4 * n * width**3 + 2 * width**3) for n in (3, 1, 4, 4))


def seconds_of(work: Work, rates: Rates, link_bytes_per_second: float) -> Seconds:
    products = work.micro_batches * rates.products(work)
    return Seconds(
        products=products,
        update=rates.update(work),
        exchange=exchange(work, products, LINK_SHARE * link_bytes_per_second),
        host=HOST,
    )


def exchange(work: Work, products: float, bytes_per_second: float) -> float:
    """Seconds of a step in which a device waits for the others' numbers.

    ddp sums gradients once a step, while the last micro-batch goes backward, which is two thirds of
    its time. fsdp gathers the weights for each pass of each micro-batch, or once for both, and sums
    gradients once a step, while anything is computed. A ring of k devices sends (k - 1) / k of the
    numbers in each such turn, twice for a sum that all of them get.
    """
    if work.devices == 1:
        return 0.0
    numbers = work.parameters
    turn = (work.devices - 1) / work.devices / bytes_per_second
    if work.is_sharded:
        passes = work.micro_batches * (1 if work.keeps_blocks else 2)
        matrices = numbers.n_layer * numbers.block_matrices
        gathered = matrices * work.width + (numbers.all - matrices) * FP32
        sent = turn * (passes * gathered + FP32 * numbers.all)
        # Muon gathers each matrix that it orthogonalises, while nothing else is computed.
        alone = turn * FP32 * matrices if work.uses_muon else 0.0
        return max(0.0, sent - products) + alone
    return max(0.0, turn * 2 * FP32 * numbers.all - products / work.micro_batches * 2 / 3)
