"""What a device does in a step, as far as memory and time depend on it.

Legend: n = B * T tokens at once, C = n_embd, H heads, V vocabulary.
"""

from dataclasses import dataclass, replace

from gpt2lab.config import (
    GPT2Config,
    MuonConfig,
    PairsConfig,
    Precision,
    SortConfig,
    TextConfig,
    TrainConfig,
)
from gpt2lab.flops import sequence_flops
from gpt2lab.meta import meta_model
from gpt2lab.model import GPT2


@dataclass(frozen=True)
class Parameters:
    """How many numbers there are, surplus rows of the vocabulary with them: they take memory too.

    Args:
        block: of one block.
        block_matrices: those of a block that are matrices.
        block_products: those of a block that multiply, biases with them: what autocast copies.
        embedding: rows of the vocabulary times C, which are the head too.
        rest: positions and the last norm.
        named: what the model is said to have, without surplus rows.
    """

    block: int
    block_matrices: int
    block_products: int
    embedding: int
    rest: int
    named: int
    n_layer: int

    @property
    def all(self) -> int:
        return self.n_layer * self.block + self.embedding + self.rest


@dataclass(frozen=True)
class Work:
    """
    Args:
        model: its vocabulary is known.
        rows: sequences that a device holds at once, B.
        tokens: positions of each, T.
        micro_batches: of a step, on each device.
        devices: of all nodes together.
        nodes: machines.
        is_sharded: weights, gradients and optimizer are divided among the devices (fsdp).
        keeps_blocks: fsdp has the weights of all blocks whole from one pass to the other.
        uses_muon: for the matrices of the blocks.
        is_masked: attention stays within a document, by a mask (B, 1, T, T).
        counted: share of the positions that have a target.
        width: bytes of a number in a matrix product.
        on_gpu: else on a CPU, whose kernels keep other things.
    """

    model: GPT2Config
    parameters: Parameters
    flops_per_sequence: int
    rows: int
    tokens: int
    micro_batches: int
    devices: int
    nodes: int
    is_sharded: bool
    keeps_blocks: bool
    uses_muon: bool
    is_masked: bool
    counted: float
    width: int
    on_gpu: bool

    @property
    def devices_a_node(self) -> int:
        return self.devices // self.nodes

    @property
    def sequences(self) -> int:
        """Of a step, on all devices."""
        return self.rows * self.micro_batches * self.devices

    @property
    def tokens_per_step(self) -> int:
        return self.sequences * self.tokens

    @property
    def flops(self) -> int:
        """Of a step, on all devices."""
        return self.sequences * self.flops_per_sequence

    def with_rows(self, rows: int) -> "Work":
        """The same step in other micro-batches."""
        return replace(self, rows=rows, micro_batches=self.rows * self.micro_batches // rows)

    def sharded_over(self, devices: int) -> "Work":
        """The same step by fsdp on so many devices, each of which does its share at once."""
        share = self.sequences // devices
        return replace(self, devices=devices, rows=share, micro_batches=1, is_sharded=True)

    def on_one_device(self) -> "Work":
        """The same step by a single device at once."""
        rows = self.sequences
        return replace(self, devices=1, nodes=1, is_sharded=False, rows=rows, micro_batches=1)

    def again(self) -> "Work":
        """The same step with each block computed again for the backward pass."""
        return replace(self, model=replace(self.model, activation_checkpointing=True))


def work_of(settings: TrainConfig, precision: Precision, on_gpu: bool) -> Work:
    """
    Args:
        settings: with a vocabulary.
        precision: not auto.
    """
    model = meta_model(settings.model)
    devices = settings.world_size
    share = settings.batch_size // devices
    # With auto, the largest that fits is found once memory is known.
    rows = settings.micro_batch_size if isinstance(settings.micro_batch_size, int) else share
    tokens = sequence_tokens(settings)
    return Work(
        model=settings.model,
        parameters=parameters_of(model),
        flops_per_sequence=sequence_flops(model, tokens),
        rows=rows,
        tokens=tokens,
        micro_batches=share // rows,
        devices=devices,
        nodes=settings.num_nodes,
        is_sharded=settings.is_sharded,
        keeps_blocks=not settings.strategy.get("reshard_after_forward", True),
        uses_muon=isinstance(settings.optim, MuonConfig),
        is_masked=is_masked(settings),
        counted=counted_share(settings),
        width=2 if precision is Precision.bf16 else 4,
        on_gpu=on_gpu,
    )


def parameters_of(model: GPT2) -> Parameters:
    block, embedding = model.transformer.h[0], model.transformer.wte.weight.numel()
    matrices = sum(p.numel() for p in block.parameters() if p.dim() == 2)
    norms = sum(p.numel() for name, p in block.named_parameters() if name.startswith("ln_"))
    whole = sum(p.numel() for p in block.parameters())
    n_layer = model.config.n_layer
    return Parameters(
        block=whole,
        block_matrices=matrices,
        block_products=whole - norms,
        embedding=embedding,
        rest=sum(p.numel() for p in model.parameters()) - n_layer * whole - embedding,
        named=model.num_parameters(),
        n_layer=n_layer,
    )


def sequence_tokens(settings: TrainConfig) -> int:
    """Positions of a training sequence, which need not be all that the model has."""
    data = settings.data
    if isinstance(data, SortConfig):
        return 2 * data.length - 1
    return data.context if isinstance(data, PairsConfig) else settings.model.block_size


def counted_share(settings: TrainConfig) -> float:
    """Share of the positions that have a target; of pairs it is not known, and counts as all."""
    data = settings.data
    return data.length / (2 * data.length - 1) if isinstance(data, SortConfig) else 1.0


def is_masked(settings: TrainConfig) -> bool:
    data = settings.data
    if isinstance(data, TextConfig):
        return data.document_mask
    return isinstance(data, PairsConfig) and data.packed
