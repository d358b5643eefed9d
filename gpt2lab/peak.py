"""How fast the hardware can multiply matrices at most: of known GPUs, and measured on a CPU."""

import re
import time
from typing import Any, NamedTuple

import torch

from gpt2lab.config import Precision

LARGEST = 2048
"""Side of the square matrices whose product tells the rate of a CPU."""
AT_MOST_S = 0.5
"""What measuring may take."""
REPEATS = 4


class Rates(NamedTuple):
    """Dense products, in 1e12 operations a second; None where the GPU has no such unit."""

    bf16: float | None
    """With sums in fp32."""
    tf32: float | None
    fp32: float


GPUS = {
    r"GB200": Rates(2500, 1250, 90),
    r"B200": Rates(2250, 1100, 80),
    r"H200|H100( 80GB)? HBM3|H100 SXM.*|GH200.*": Rates(989.4, 494.7, 66.9),
    r"H[12]00 NVL": Rates(835.5, 417.5, 60),
    r"H100 PCIe": Rates(756, 378, 51.2),
    r"A100.*": Rates(312, 156, 19.5),
    r"A10": Rates(125, 62.5, 31.2),
    r"A40": Rates(149.7, 74.8, 37.4),
    r"RTX A6000": Rates(154.8, 77.4, 38.7),
    r"L40S": Rates(362.05, 183, 91.6),
    r"L40": Rates(181.05, 90.5, 90.5),
    r"L4": Rates(121, 60, 30.3),
    r"GeForce RTX 4090": Rates(165.2, 82.6, 82.6),
    r"GeForce RTX 3090 Ti": Rates(80, 40, 40),
    r"GeForce RTX 3090": Rates(71, 35.6, 35.6),
    r"V100S-PCIE.*": Rates(None, None, 16.4),
    r"V100-SXM.*": Rates(None, None, 15.7),
    r"V100-PCIE.*": Rates(None, None, 14),
    r"T4": Rates(None, None, 8.1),
}
"""By the name that the driver gives, less its maker. NVIDIA's data sheets of each (B200: the HGX
module at 1,000 W; GB200: 1,200 W) and, of GeForce, the appendices of the Ada and GA102 white
papers. Figures that sheets give with sparsity are halved. Laptop GPUs and slices (MIG) are other
hardware, of which nothing is known."""


class Peak(NamedTuple):
    """The most that a device, or several of them, can do."""

    flops_per_second: float
    source: str
    """Where the number is from, in words."""

    def of(self, devices: int) -> "Peak":
        return Peak(devices * self.flops_per_second, self.source)


def peak_facts(device: torch.device, precision: Precision) -> dict[str, Any]:
    """For the receipt, before training: one device's peak, and where it comes from."""
    if device.type == "cpu":
        return {
            "flops_per_second": None,
            "source": f"a product of {precision.name} matrices, measured when the first record "
            "of training is due; see summary.json",
        }
    found = known_peak(device, precision)
    if found is None:
        return {"flops_per_second": None, "source": "n/a: nothing is known of this hardware"}
    return {"flops_per_second": found.flops_per_second, "source": found.source}


def peak_of(device: torch.device, precision: Precision) -> Peak | None:
    """The peak of one device; None where nothing is known of it. A CPU's is measured."""
    if device.type == "cpu":
        rate, side = matrix_rate(precision)
        return Peak(rate, f"measured: square {precision.name} matrices of {side} rows")
    return known_peak(device, precision)


def known_peak(device: torch.device, precision: Precision) -> Peak | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    rate = named_rate(name, precision.name)
    return None if rate is None else Peak(rate, f"data sheet of {name}: dense {precision.name}")


def named_rate(name: str, unit: str) -> float | None:
    """Operations a second of a GPU by its name, such as `NVIDIA A100-SXM4-80GB`."""
    bare = re.sub(r"^(NVIDIA|Tesla) ", "", name)
    if "MIG" in bare:
        return None
    for pattern, rates in GPUS.items():
        if re.fullmatch(pattern, bare):
            rate = getattr(rates, unit)
            return None if rate is None else rate * 1e12
    return None


@torch.no_grad()
def matrix_rate(precision: Precision) -> tuple[float, int]:
    """Operations a second of the best of a few products on the CPU, and the matrices' rows.

    They are smaller than 2,048 where those would take too long.
    """
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    begun = time.perf_counter()
    rate, side = best_rate(LARGEST // 4, dtype), LARGEST // 4
    while side < LARGEST:
        expected = (REPEATS + 1) * 2 * (2 * side) ** 3 / rate
        if time.perf_counter() - begun + expected > AT_MOST_S:
            break
        side *= 2
        rate = best_rate(side, dtype)
    return rate, side


def best_rate(side: int, dtype: torch.dtype) -> float:
    matrix = torch.ones(side, side, dtype=dtype)  # not random: that would change a training
    product = torch.empty_like(matrix)
    seconds = []
    for _ in range(REPEATS + 1):  # the first picks a kernel
        start = time.perf_counter()
        torch.mm(matrix, matrix, out=product)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])
