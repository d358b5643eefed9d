"""Planning: what a training will take, before it begins."""

from dataclasses import dataclass
from enum import Enum

from gpt2lab.config.settings.fields import ranged
from gpt2lab.config.settings.train import TrainConfig

Hardware = Enum(
    "Hardware",
    [
        "this",
        "h100",
        "h100-pcie",  # a name with a hyphen cannot stand in a class body
        "h100-nvl",
        "h200",
        "gh200",
        "b200",
        "gb200",
        "a100-40gb",
        "a100-80gb",
        "a10",
        "a40",
        "a6000",
        "l4",
        "l40",
        "l40s",
        "rtx3090",
        "rtx4090",
        "t4",
        "v100-16gb",
        "v100-32gb",
    ],
)
"""What trains; `this` is the GPU of this machine, or else its CPU."""


@dataclass
class PlanConfig(TrainConfig):
    """All settings of `python -m gpt2lab.plan`: those of train, and these."""

    hardware: Hardware = Hardware.this
    """this (a block and the head are timed here), or the name of a GPU: h100, h100-pcie, h100-nvl,
    h200, gh200, b200, gb200, a100-40gb, a100-80gb, a10, a40, a6000, l4, l40, l40s, rtx3090,
    rtx4090, t4, v100-16gb, v100-32gb."""
    efficiency: float | None = ranged(None, gt=0, le=1)
    """Share of the peak that the products reach; null: 0.4 of a GPU by name, timed for this."""
    link_gigabytes_per_second: float | None = ranged(None, gt=0)
    """What a device sends to the others, one way; null: by its name, 50 between nodes."""
    price_per_hour: float | None = ranged(None, ge=0)
    """Money that a device costs in an hour, in any currency; null for no sum."""
    json: bool = False
    """The last line is one JSON object: every number of the plan."""
