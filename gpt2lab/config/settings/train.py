"""Training."""

from dataclasses import dataclass, field
from typing import Any

from gpt2lab.config.settings.data import DataConfig, PairsConfig, SortConfig, TextConfig
from gpt2lab.config.settings.fields import path_or_name, ranged, verbatim
from gpt2lab.config.settings.machine import Precision
from gpt2lab.config.settings.model import GPT2Config
from gpt2lab.config.settings.optim import (
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    MuonConfig,
    OptimConfig,
    ScheduleConfig,
    WSDConfig,
)

SHAPES: dict[str, dict[str, type]] = {
    "data": {"sort": SortConfig, "text": TextConfig, "pairs": PairsConfig},
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
    strategy: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)

    name: str | None = None
    """Name of the run and of its folder; null makes one from the date, the time and a short id."""
    runs_dir: str = path_or_name("runs")
    """Folder that holds the run folders."""
    data_dir: str = path_or_name("data")
    """Folder that holds prepared corpora."""
    seed: int = ranged(0, ge=0, lt=2**63)
    """Decides the initial weights, the data order and the dropout."""
    resume: str | None = path_or_name()
    """last or best (of `name`), auto (last, or a fresh start), or a checkpoint file."""
    init_from: str | None = verbatim(path=True)
    """Weights to begin with: a run, checkpoint file, Hugging Face folder or hub name; or null."""
    init_extend: bool = False
    """Add the positions and token ids that init_from lacks; otherwise they are refused."""
    max_steps: int = ranged(1000, ge=1)
    """Optimizer steps to train."""
    max_minutes: float | None = ranged(None, gt=0)
    """Wall-clock minutes after which training ends, evaluated and saved; each resume counts
    anew. Null for no limit."""
    eval_every: int = ranged(100, ge=1)
    """Steps between evaluations; the last step is always evaluated."""
    checkpoint_every: int = ranged(500, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    checkpoint_keep: int = ranged(2, ge=1)
    """Newest checkpoints kept, besides the best: 2, so that a damaged one has a predecessor."""
    checkpoint_keep_every: int | None = ranged(None, ge=1)
    """Steps between checkpoints that are kept for good, a multiple of checkpoint_every."""
    batch_size: int = ranged(64, ge=1, le=2**24)
    """Sequences in one optimizer step, over all micro-batches of all devices."""
    micro_batch_size: int | str | None = ranged(None, ge=1)
    """Sequences a device holds at once; must divide its share of batch_size. Null for all of it,
    auto for as many as a GPU has memory for."""
    devices: int = ranged(1, ge=1)
    """GPUs, or processes on a CPU (at most one a core), of each node that share each step."""
    num_nodes: int = ranged(1, ge=1)
    """Machines with so many devices each, on which torchrun or SLURM has started the ranks."""
    max_restarts: int = ranged(0, ge=0)
    """Times that several devices start again from the last checkpoint when one of them is lost."""
    precision: Precision = Precision.auto
    """auto takes bf16 where the hardware has it and, on a CPU, the model is wide enough to gain by
    it, else fp32; tf32 is fp32 but for the products of matrices, on NVIDIA GPUs since 2020."""
    compile: bool | None = None
    """Compile each block by torch.compile; null does so on NVIDIA GPUs that it works on."""
    skip_nonfinite: int = ranged(0, ge=0)
    """Steps whose loss or gradient is NaN or infinite that are left out before training ends."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    stop_at: str | None = None
    """A target at which training ends, such as val/loss:1.5; null for none."""
    profile: bool = False
    """Write a trace and a table of torch's profiler into the run folder."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""

    @property
    def world_size(self) -> int:
        """Devices of all nodes: the number of ranks."""
        return self.devices * self.num_nodes

    @property
    def is_sharded(self) -> bool:
        """Whether each device has some rows of weights, gradients and optimizer state only."""
        return self.world_size > 1 and str(self.strategy.get("_target_")).startswith("gpt2lab.")
