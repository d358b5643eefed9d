"""Optimizers, and schedules of their learning rate."""

from dataclasses import dataclass

from gpt2lab.config.settings.fields import ranged


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
    base_width: int | None = ranged(None, ge=1)
    """Width that lr is for: the blocks' matrices learn at lr * base_width / n_embd; null: at lr."""


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
