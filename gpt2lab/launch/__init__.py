"""Several devices: one process a rank, started, told of signals and ended by this one."""

from gpt2lab.launch.devices import check_devices, cpus
from gpt2lab.launch.elastic import on_ranks

__all__ = ["check_devices", "cpus", "on_ranks"]
