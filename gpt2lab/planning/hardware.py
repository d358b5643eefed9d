"""What a training would run on: GPUs by name, and this machine."""

import os
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

import torch

from gpt2lab.checkpoint.background import free_memory
from gpt2lab.config import PlanConfig, Precision
from gpt2lab.peak import Peak, named_rate, peak_of
from gpt2lab.precision import chosen_precision, device_type

GIB = 2**30
GPU_RUNTIME = GIB
GPU_SPARE = 0.05
"""What a process takes on a GPU for CUDA and its libraries, and what the allocator cannot use as a
share of the tensors: assumed, not measured."""
CPU_FIRST_STEP = 45 * 2**20
"""What a process on a CPU takes for its first step besides tensors: kernels, threads, batches.
As the next two, measured at six shapes with torch 2.13 and glibc."""
CPU_SPARE = 0.06
"""Memory that is free but not where the next tensor fits, as a share of the tensors' (heap.py)."""
CPU_SPARE_OF_SMALL = 64 * 2**20, 0.25
"""The same of small trainings: up to so many bytes, a larger share."""
CPU_LINK = 1e9
"""Bytes a second between two processes of one machine, by gloo through the loopback."""
NODE_LINK = 50e9
"""Bytes a second between nodes, one way, a GPU: a network card of 400 Gb/s each."""
GPU_EFFICIENCY = 0.4
"""Share of the peak, where nothing is measured: between what plain PyTorch reaches on an H100 and
what nanoGPT and llm.c (50 to 60 %) report of A100s."""


class Card(NamedTuple):
    """A GPU as it is sold.

    Args:
        driver_name: by which `peak.GPUS` knows its rates.
        memory_gib: what torch reports as its capacity, which is less than its name says.
        memory_rate: of its memory, in 1e9 bytes a second.
        link_rate: to another GPU of the same machine, one way, in 1e9 bytes a second.
    """

    driver_name: str
    memory_gib: float
    memory_rate: float
    link_rate: float


CARDS = {
    "h100": Card("H100 80GB HBM3", 79.1, 3350, 450),
    "h100-pcie": Card("H100 PCIe", 79.1, 2000, 64),
    "h100-nvl": Card("H100 NVL", 93.1, 3900, 300),
    "h200": Card("H200", 139.8, 4800, 450),
    "gh200": Card("GH200 480GB", 94.5, 4000, 450),
    "b200": Card("B200", 178.3, 8000, 900),
    "gb200": Card("GB200", 184.0, 8000, 900),
    "a100-40gb": Card("A100-SXM4-40GB", 39.4, 1555, 300),
    "a100-80gb": Card("A100-SXM4-80GB", 79.2, 2039, 300),
    "a10": Card("A10", 22.0, 600, 32),
    "a40": Card("A40", 44.3, 696, 32),
    "a6000": Card("RTX A6000", 47.4, 768, 32),
    "l4": Card("L4", 22.0, 300, 32),
    "l40": Card("L40", 44.4, 864, 32),
    "l40s": Card("L40S", 44.4, 864, 32),
    "rtx3090": Card("GeForce RTX 3090", 23.6, 936, 32),
    "rtx4090": Card("GeForce RTX 4090", 23.6, 1008, 32),
    "t4": Card("T4", 14.6, 320, 16),
    "v100-16gb": Card("V100-SXM2-16GB", 15.8, 900, 150),
    "v100-32gb": Card("V100-SXM2-32GB", 31.7, 900, 150),
}
"""Memory and link rates: NVIDIA's data sheets; NVLink where a board has it, else PCIe of its
generation. Capacities: torch's messages of GPUs that ran out of memory."""


@dataclass(frozen=True)
class Device:
    """One device of a plan.

    Args:
        name: as it is shown.
        device: of this machine, to be timed; None for one that is not here.
        precision: of the products.
        peak: of the products; None where nothing is known.
        memory_bytes: what there is.
        memory_is_shared: all devices take from the same memory, as processes on a CPU do.
        runtime_bytes: what a process takes before it has tensors.
        bytes_per_second: of the memory; None where it is not known.
        link_bytes_per_second: to the other devices.
    """

    name: str
    device: torch.device | None
    precision: Precision
    peak: Peak | None
    memory_bytes: int
    memory_is_shared: bool
    runtime_bytes: int
    bytes_per_second: float | None
    link_bytes_per_second: float

    @property
    def on_gpu(self) -> bool:
        return self.device is None or self.device.type != "cpu"

    def beyond(self, tensors: int) -> int:
        """Bytes that a process takes besides so many of tensors."""
        if self.on_gpu:
            return self.runtime_bytes + round(GPU_SPARE * tensors)
        most, share = CPU_SPARE_OF_SMALL
        spare = round(CPU_SPARE * tensors) + min(most, round(share * tensors))
        return self.runtime_bytes + spare


def device_of(settings: PlanConfig) -> Device:
    """The device that the settings name."""
    name = settings.hardware.name
    if name != "this":
        return card_of(name, settings.precision, link_of(settings, CARDS[name].link_rate * 1e9))
    device = torch.device(device_type(settings.trainer.get("accelerator")))
    precision = chosen_precision(settings.precision, device.type, settings.model.n_embd)
    peak = peak_of(device, precision)
    if device.type == "cpu":
        return Device(
            f"the CPU of this machine, {torch.get_num_threads()} threads",
            device,
            precision,
            peak,
            memory_bytes=machine_memory(),
            memory_is_shared=True,
            runtime_bytes=imported_bytes() + CPU_FIRST_STEP,
            bytes_per_second=None,
            link_bytes_per_second=link_of(settings, CPU_LINK),
        )
    return Device(
        f"{gpu_name(device)} of this machine",
        device,
        precision,
        peak,
        memory_bytes=gpu_memory(device),
        memory_is_shared=False,
        runtime_bytes=GPU_RUNTIME,
        bytes_per_second=None,
        link_bytes_per_second=link_of(settings, link_by_driver(gpu_name(device))),
    )


def card_of(name: str, precision: Precision, link: float) -> Device:
    """A GPU by its name; bf16 where it has a unit for that, and else fp32."""
    card = CARDS[name]
    if precision is Precision.auto:
        has_bf16 = named_rate(card.driver_name, "bf16") is not None
        precision = Precision.bf16 if has_bf16 else Precision.fp32
    unit = precision.name
    rate = named_rate(card.driver_name, unit)
    return Device(
        name,
        None,
        precision,
        None if rate is None else Peak(rate, f"data sheet of {card.driver_name}: dense {unit}"),
        memory_bytes=int(card.memory_gib * GIB),
        memory_is_shared=False,
        runtime_bytes=GPU_RUNTIME,
        bytes_per_second=card.memory_rate * 1e9,
        link_bytes_per_second=link,
    )


def link_of(settings: PlanConfig, known: float) -> float:
    if settings.link_gigabytes_per_second is not None:
        return settings.link_gigabytes_per_second * 1e9
    return min(known, NODE_LINK) if settings.num_nodes > 1 else known


def link_by_driver(name: str) -> float:
    """Of a GPU that the table knows; PCIe 4 for others."""
    bare = name.removeprefix("NVIDIA ").removeprefix("Tesla ")
    return next((card.link_rate for card in CARDS.values() if card.driver_name == bare), 32) * 1e9


def gpu_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the GPU"


def gpu_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine_memory()


def machine_memory() -> int:
    """Bytes that a training could take now: what is free, and what this process has."""
    return (free_memory() or physical_memory()) + resident_bytes()


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def imported_bytes() -> int:
    """Memory of a process that has loaded what `train` loads."""
    import_module("gpt2lab.experiment")
    return resident_bytes()


def resident_bytes() -> int:
    """Memory of this process now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
