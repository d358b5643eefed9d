"""How many bytes a device holds at once, part by part, derived from how a step is made here.

Weights, gradients and optimizer are fp32; the products of a bf16 training are of copies that
autocast makes. What the backward pass needs of a block is counted tensor by tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gpt2lab.loss import CHUNK_ROWS, CPU_TILE_ROWS, DENSE_LOGITS, is_summed_wide
from gpt2lab.planning.work import Work

FP32, INT64 = 4, 8

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
COPIES, ACTIVATIONS, LOGITS, RUNTIME = (
    "copies for products",
    "activations",
    "logits",
    "runtime and spare",
)
PARTS = (WEIGHTS, GRADIENTS, OPTIMIZER, COPIES, ACTIVATIONS, LOGITS, RUNTIME)


@dataclass(frozen=True)
class Memory:
    """Bytes of each part at the moments of a step at which most is held."""

    moments: dict[str, dict[str, int]]

    @property
    def moment(self) -> str:
        """The one at which most is held."""
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))

    @property
    def peak(self) -> int:
        return sum(self.at_peak.values())

    @property
    def at_peak(self) -> dict[str, int]:
        return self.moments[self.moment]

    @property
    def most(self) -> dict[str, int]:
        """The most that each part takes at any moment."""
        parts = self.moments.values()
        return {name: max(part[name] for part in parts) for name in PARTS}


def memory_of(work: Work, beyond: Callable[[int], int]) -> Memory:
    """
    Args:
        beyond: bytes that a process takes besides so many of tensors.
    """
    moments = moments_of(work)
    for parts in moments.values():
        parts[RUNTIME] = beyond(sum(parts.values()))
    return Memory(moments)


def moments_of(work: Work) -> dict[str, dict[str, int]]:
    """Bytes of each part at each moment, without the runtime's."""
    shards = work.devices if work.is_sharded else 1
    numbers = work.parameters
    stored = -(-FP32 * numbers.all // shards)
    held = {
        WEIGHTS: stored + in_flight(work),
        OPTIMIZER: -(-optimizer_bytes(work) // shards),
        COPIES: copies_bytes(work),
    }
    embedding = FP32 * numbers.embedding
    before = gradients_before(work)
    # A block's are on their way while those of the next one are computed.
    summed = gradients_in_flight(work)
    # Of the embedding: what adds up or is sent, and what is added to it.
    last = 2 if work.micro_batches > 1 or work.devices > 1 else 1
    saved = activation_bytes(work)
    return {
        "the loss": {
            **held,
            GRADIENTS: before,
            ACTIVATIONS: saved,
            LOGITS: logits_bytes(work),
        },
        "the start of the backward pass": {
            **held,
            # It waits for the embedding's, which belongs to the same tensor.
            GRADIENTS: before + embedding,
            ACTIVATIONS: saved,
            LOGITS: loss_saved(work),
        },
        "the backward pass": {
            **held,
            GRADIENTS: before + summed + embedding,
            ACTIVATIONS: saved + block_workspace(work),
            LOGITS: 0,
        },
        "the end of the backward pass": {
            **held,
            GRADIENTS: max(before, stored + summed) + last * embedding,
            ACTIVATIONS: saved // max(1, work.model.n_layer),
            LOGITS: 0,
        },
        "the update": {
            **held,
            WEIGHTS: stored,
            GRADIENTS: stored,
            ACTIVATIONS: 0,
            LOGITS: 0,
        },
    }


def optimizer_bytes(work: Work) -> int:
    """AdamW's two averages of each number; Muon has one of each number in the blocks' matrices."""
    numbers = work.parameters
    averages = 2 * numbers.all
    if work.uses_muon:
        averages -= numbers.n_layer * numbers.block_matrices
    return FP32 * averages


def copies_bytes(work: Work) -> int:
    """What autocast makes of the blocks' weights, and keeps until the step is over."""
    if work.width == FP32 or work.is_sharded:
        return 0
    return work.width * work.parameters.n_layer * work.parameters.block_products


def in_flight(work: Work) -> int:
    """Of sharded weights, those that are whole: a block's and those of the one after it, or all
    blocks'; in fp32, whatever the products are in, norms, positions and the embedding."""
    if not work.is_sharded:
        return 0
    numbers = work.parameters
    blocks = numbers.n_layer if work.keeps_blocks else min(2, numbers.n_layer)
    norms = numbers.n_layer * (numbers.block - numbers.block_products)
    in_fp32 = numbers.embedding + numbers.rest + norms
    return FP32 * in_fp32 + work.width * blocks * numbers.block_products


def gradients_before(work: Work) -> int:
    """What is there when a backward pass begins: of the micro-batches before it, and ddp's buckets.

    The former are not in the buckets, to which the last backward pass alone hands them over. By
    fsdp too they are whole on each device: gradients are summed once a step.
    """
    has_buckets = work.devices > 1 and not work.is_sharded
    return FP32 * work.parameters.all * ((work.micro_batches > 1) + has_buckets)


def gradients_in_flight(work: Work) -> int:
    """Of sharded gradients, a block's, and in fp32 what is sent of it and of the one before it."""
    return (work.width + 2 * FP32) * work.parameters.block if work.is_sharded else 0


def activation_bytes(work: Work) -> int:
    """What the backward pass is going to need, when the last block has been computed."""
    layers = work.model.n_layer
    if not work.model.activation_checkpointing:
        return embedding_saved(work) + layers * block_saved(work) + final_norm_saved(work)
    inputs = layers * FP32 * work.rows * work.tokens * work.model.n_embd
    if work.is_masked:
        inputs += work.rows * work.tokens**2  # one mask for all blocks
    return embedding_saved(work) + inputs + final_norm_saved(work)


def block_saved(work: Work) -> int:
    """Of one block: every tensor that autograd keeps."""
    n, C, width = work.rows * work.tokens, work.model.n_embd, work.width
    norms = 2 * norm_saved(n, C)
    products = width * n * C * (1 + 1 + 4)  # what c_attn, c_fc and the second c_proj read
    gelu = width * n * 4 * C
    dropped = 2 * n * C * _mask_width(work, width) if work.model.dropout else 0
    return norms + products + gelu + dropped + attention_saved(work)


def attention_saved(work: Work) -> int:
    """Queries, keys, values, what comes of them, which the first c_proj reads, and in between."""
    B, T, C, H = work.rows, work.tokens, work.model.n_embd, work.model.n_head
    n, width = B * T, work.width
    output = width * n * C
    if is_attention_plain(work):
        # In fp32: the weights, the mask of their dropout, and what it leaves of them.
        return output + 3 * FP32 * n * C + 3 * FP32 * B * H * T * T
    mask = width * B * T * T if work.is_masked else 0
    return output + 3 * width * n * C + FP32 * n * H + mask


def is_attention_plain(work: Work) -> bool:
    """Whether (B, H, T, T) is computed and kept: a CPU's other kernel knows no dropout."""
    return work.model.dropout > 0 and not work.on_gpu


def norm_saved(n: int, C: int) -> int:
    """Its input, and mean and deviation of each token."""
    return FP32 * n * C + 2 * FP32 * n


def embedding_saved(work: Work) -> int:
    n, C = work.rows * work.tokens, work.model.n_embd
    positions = n if work.is_masked else work.tokens
    dropped = n * C * _mask_width(work, FP32) if work.model.dropout else 0
    return INT64 * (n + positions) + dropped


def final_norm_saved(work: Work) -> int:
    return norm_saved(work.rows * work.tokens, work.model.n_embd)


def _mask_width(work: Work, width: int) -> int:
    """Bytes of an entry of a dropout's mask; a CPU keeps it as what it multiplies."""
    return 1 if work.on_gpu else width


def block_workspace(work: Work) -> int:
    """What computing the gradients of one block takes for the moment.

    Within the MLP: the gradient of its output, of GELU's output and of GELU's input, in the
    products' format, and the stream's in fp32. A block that is recomputed has all of its own again.
    """
    n, C = work.rows * work.tokens, work.model.n_embd
    again = block_saved(work) if work.model.activation_checkpointing else 0
    return again + work.width * n * C * (1 + 4 + 4) + 2 * FP32 * n * C


def is_loss_dense(work: Work) -> bool:
    """As `prefix_masked_cross_entropy` decides."""
    return counted_tokens(work) * (work.model.vocab_size or 0) <= DENSE_LOGITS


def counted_tokens(work: Work) -> int:
    return round(work.rows * work.tokens * work.counted)


def logits_bytes(work: Work) -> int:
    """The head and its loss at their largest; see `_ChunkedCrossEntropy`."""
    n, C, width = counted_tokens(work), work.model.n_embd, work.width
    hidden = FP32 * work.rows * work.tokens * C  # what the last norm gives
    if is_loss_dense(work):
        logits = n * (work.model.vocab_size or 0)
        head = width * logits // max(n, 1) * C if width < FP32 else 0
        # In the products' format, in fp32, and its logarithms of the softmax.
        return hidden + width * n * C + head + (width + 2 * FP32) * logits
    rows = min(CHUNK_ROWS, n)
    stored = work.parameters.embedding // C
    tile = rows if work.on_gpu else CPU_TILE_ROWS
    head = 0 if width == FP32 else width * stored * C
    reads = 0 if width == FP32 else width * n * C
    gradients = width * stored * C + summed_bytes(work) + width * n * C
    return hidden + head + reads + gradients + rows * stored * width + 2 * FP32 * tile * stored


def loss_saved(work: Work) -> int:
    """What the backward pass needs of head and loss."""
    n, C, width = counted_tokens(work), work.model.n_embd, work.width
    if is_loss_dense(work):
        V = work.model.vocab_size or 0
        head = width * V * C if width < FP32 else 0
        return width * n * C + head + FP32 * n * V
    return width * n * C + (summed_bytes(work) or width * work.parameters.embedding)


def summed_bytes(work: Work) -> int:
    """Of the head's gradient where it is added up in fp32."""
    dtype = torch.bfloat16 if work.width < FP32 else torch.float32
    is_wide = is_summed_wide(counted_tokens(work), dtype)
    return FP32 * work.parameters.embedding if is_wide else 0
