"""Every setting of ours: its type, default, range and reason. No values of experiments live here.

Lightning's own arguments (`trainer`, `logger`, `callbacks`) are plain mappings with a `_target_`.
A dataclass whose group has several shapes (`data`, `optim`, `schedule`) names its shape in `kind`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Range:
    """Bounds of one number; None leaves that side open."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def holds(self, value: float) -> bool:
        # Written so that NaN, for which every comparison is false, never holds.
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and abs(value) < float("inf")
        )

    def __str__(self) -> str:
        low = (
            f"{self.ge} <= "
            if self.ge is not None
            else f"{self.gt} < "
            if self.gt is not None
            else ""
        )
        high = (
            f" <= {self.le}"
            if self.le is not None
            else f" < {self.lt}"
            if self.lt is not None
            else ""
        )
        return f"{low}value{high}"


def ranged(
    default: float | None,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with bounds, checked by `parse`; None, where allowed, is in every range."""
    return field(default=default, metadata={"range": Range(ge, gt, le, lt)})


class Precision(Enum):
    """The number format of the matrix products; weights and optimizer state stay fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


@dataclass
class GPT2Config:
    """The shape of a GPT-2; the defaults are the released 124M model."""

    n_layer: int = ranged(12, ge=1, le=1024)
    """Transformer blocks."""
    n_head: int = ranged(12, ge=1)
    """Attention heads a block; must divide n_embd."""
    n_embd: int = ranged(768, ge=1, le=65_536)
    """Width of the residual stream."""
    block_size: int = ranged(1024, ge=1)
    """Longest context in tokens: rows of the position embedding. The sorting task sets its own."""
    vocab_size: int = ranged(50257, ge=2)
    """Token ids the model knows. Set by the data."""
    dropout: float = ranged(0.1, ge=0, lt=1)
    """Probability of zeroing an activation. Released GPT-2 configs: 0.1; pretraining recipes: 0."""
    bias: bool = True
    """Biases in linear layers and layer norms, as released."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass: a third more time, far less memory."""


@dataclass
class DataConfig:
    """What every kind of data has."""

    kind: str = "none"
    num_workers: int = ranged(0, ge=0)
    """Loader processes; 0 makes batches in the training process, right where that is cheap."""


@dataclass
class SortConfig(DataConfig):
    """Digits, then the same digits sorted, as in minGPT's demo."""

    kind: str = "sort"
    length: int = ranged(6, ge=1, le=4096)
    """Digits to sort; the model sees 2 * length - 1 tokens."""
    num_digits: int = ranged(3, ge=2, le=65_536)
    """Digits are 0 .. num_digits - 1."""
    eval_examples: int = ranged(4096, ge=1, le=1_000_000)
    """Held-out inputs that are evaluated: all there are, or a fixed sample of this many."""


@dataclass
class OptimConfig:
    """What every optimizer has."""

    kind: str = "none"
    lr: float = ranged(3e-4, gt=0)
    """Highest learning rate, reached after warm-up."""
    beta1: float = ranged(0.9, ge=0, lt=1)
    """AdamW's decay of the gradient average."""
    beta2: float = ranged(0.95, ge=0, lt=1)
    """AdamW's decay of the squared-gradient average."""
    weight_decay: float = ranged(0.1, ge=0)
    """Decoupled decay of matrices and embeddings; never of biases and norms."""
    grad_clip: float | None = ranged(1.0, gt=0)
    """Largest 2-norm of all gradients together; null for no clipping."""


@dataclass
class AdamWConfig(OptimConfig):
    """AdamW for every parameter."""

    kind: str = "adamw"


@dataclass
class MuonConfig(OptimConfig):
    """Muon for the hidden matrices, AdamW for embeddings, norms and biases."""

    kind: str = "muon"
    momentum: float = ranged(0.95, ge=0, lt=1)
    """Muon's momentum, with Nesterov's look-ahead."""


@dataclass
class ScheduleConfig:
    """What every schedule of the learning rate has."""

    kind: str = "none"
    warmup_steps: int = ranged(0, ge=0)
    """Steps of linear increase from near zero to optim.lr."""


@dataclass
class CosineConfig(ScheduleConfig):
    """Half a cosine from the highest rate to the final one."""

    kind: str = "cosine"
    decay_steps: int | None = ranged(None, ge=1)
    """Step at which the final rate is reached; null for max_steps."""
    final_lr_ratio: float = ranged(0.1, ge=0, le=1)
    """Final rate as a share of the highest."""


@dataclass
class WSDConfig(ScheduleConfig):
    """Warm-up, a stable stretch, then a linear decay that ends with the training."""

    kind: str = "wsd"
    decay_ratio: float = ranged(0.2, gt=0, le=1)
    """Share of max_steps, at the end, over which the rate falls."""
    final_lr_ratio: float = ranged(0.0, ge=0, le=1)
    """Final rate as a share of the highest."""


@dataclass
class ConstantConfig(ScheduleConfig):
    """The highest rate from the end of the warm-up on."""

    kind: str = "constant"


SHAPES: dict[str, dict[str, type]] = {
    "data": {"sort": SortConfig},
    "optim": {"adamw": AdamWConfig, "muon": MuonConfig},
    "schedule": {"cosine": CosineConfig, "wsd": WSDConfig, "constant": ConstantConfig},
}
"""The dataclass of each kind of a group whose options differ in their fields."""


@dataclass
class TrainConfig:
    """All settings of `python -m gpt2lab.train`."""

    model: GPT2Config = field(default_factory=GPT2Config)
    data: DataConfig = field(default_factory=SortConfig)
    optim: OptimConfig = field(default_factory=AdamWConfig)
    schedule: ScheduleConfig = field(default_factory=CosineConfig)
    trainer: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "lightning.pytorch.Trainer"}
    )
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)

    name: str | None = None
    """Name of the run and of its folder; null makes one from the date, the time and a short id."""
    runs_dir: str = "runs"
    """Folder that holds the run folders."""
    seed: int = ranged(0, ge=0, lt=2**63)
    """Decides the initial weights, the data order and the dropout."""
    resume: str | None = None
    """last or best (of `name`), auto (last, or a fresh start), or a checkpoint file."""
    max_steps: int = ranged(1000, ge=1)
    """Optimizer steps to train."""
    max_minutes: float | None = ranged(None, gt=0)
    """Wall-clock minutes after which training ends, evaluated and saved; null for no limit."""
    eval_every: int = ranged(100, ge=1)
    """Steps between evaluations of the whole validation set; the last step is always evaluated."""
    checkpoint_every: int = ranged(500, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    batch_size: int = ranged(64, ge=1, le=2**24)
    """Sequences in one optimizer step, over all micro-batches."""
    micro_batch_size: int | None = ranged(None, ge=1)
    """Sequences the device holds at once; must divide batch_size. Null for the whole batch."""
    precision: Precision = Precision.auto
    """auto takes bf16 where the processor or GPU has it, else fp32."""
    stop_at: str | None = None
    """A target at which training ends, such as val/loss:1.5; null for none."""
    profile: bool = False
    """Write a trace and a table of torch's profiler into the run folder."""
    debug: bool = False
    """Show a traceback with every error."""
