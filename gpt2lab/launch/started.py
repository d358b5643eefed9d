"""Ranks that torchrun, or SLURM's srun, has started: which of them this process is.

A batch script has SLURM's variables too, but is no task of a step: those alone have SLURM_STEP_ID.
One process that was started alone is no rank of several, and may start ranks itself.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from gpt2lab.config import TrainConfig
from gpt2lab.errors import ConfigError


@dataclass(frozen=True)
class Started:
    """One process of several, as its environment says it."""

    by: str
    """torchrun or srun."""
    rank: int
    local_rank: int
    """Among those of this node; its GPU has the same number."""
    node: int
    devices: int
    """Ranks a node."""
    nodes: int

    @property
    def world_size(self) -> int:
        return self.devices * self.nodes


_OF_A_RANK = (
    *("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "GROUP_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS"),
)


def forget_ranks() -> None:
    """From here on this process and those that it starts are no ranks of anybody's training."""
    for name in _OF_A_RANK:
        os.environ.pop(name, None)


def started() -> Started | None:
    """None for a process that was started alone.

    Raises:
        ConfigError: if the nodes have different numbers of ranks.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _started("torchrun", "RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", _groups())
    if "SLURM_STEP_ID" in os.environ:
        nodes = os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_NNODES") or "1"
        return _started(
            "srun", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", int(nodes)
        )
    return None


def _groups() -> int:
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


def _started(by: str, rank: str, local: str, node: str, total: str, nodes: int) -> Started | None:
    world_size = int(os.environ.get(total, "1"))
    if world_size == 1:
        return None
    devices, rest = divmod(world_size, nodes)
    here = int(os.environ[local])
    if rest or here >= devices:
        raise ConfigError(
            f"devices: {by} has started {world_size} ranks on {nodes} nodes, not as many on each; "
            "start one for each device, the same number on every node"
        )
    return Started(by, int(os.environ[rank]), here, int(os.environ[node]), devices, nodes)


def with_devices(overrides: Iterable[str]) -> list[str]:
    """Overrides of a training, with devices and num_nodes as they were started, unless given.

    A run that goes on with other numbers than its checkpoint's needs no word about it then.
    """
    place, given = started(), list(overrides)
    if place is None:
        return given
    keys = {override.partition("=")[0] for override in given}
    facts = {"devices": place.devices, "num_nodes": place.nodes}
    return [*given, *(f"{key}={value}" for key, value in facts.items() if key not in keys)]


def check_started(settings: TrainConfig) -> None:
    """
    Raises:
        ConfigError: if the settings ask for other ranks than were started, or for those of several
            nodes where nobody has started any.
    """
    place = started()
    asked = f"devices={settings.devices} num_nodes={settings.num_nodes}"
    if place is None:
        if settings.num_nodes > 1:
            raise ConfigError(
                f"num_nodes: {settings.num_nodes} nodes need somebody to start ranks on them; on "
                f"each of them use torchrun --nnodes={settings.num_nodes} "
                f"--nproc-per-node={settings.devices} --rdzv-backend=c10d "
                "--rdzv-endpoint=<first node>:29500 -m gpt2lab.train ..., or srun in a SLURM job"
            )
    elif (settings.devices, settings.num_nodes) != (place.devices, place.nodes):
        key = "devices" if settings.devices != place.devices else "num_nodes"
        raise ConfigError(
            f"{key}: {asked} asks for {settings.world_size} ranks, {place.by} has started "
            f"{place.world_size}, as of devices={place.devices} num_nodes={place.nodes}; "
            "leave both out, or give these"
        )
