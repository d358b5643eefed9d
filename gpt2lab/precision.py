"""What `auto` stands for: of number formats, and of devices."""

from typing import Any

import torch

from gpt2lab.config import Precision
from gpt2lab.errors import ConfigError

FIRST_WITH_TF32 = (8, 0)
"""Compute capability of NVIDIA's Ampere."""


NARROW = 192
"""Models of this width and below train slower in bf16 on a CPU, for what casting takes. Measured:
1.03 of fp32's time at a width of 128, 0.75 at 256 (2 cores with avx512_bf16, context 64, batch 12).
"""


def chosen_precision(
    precision: Precision, device_type: str, trained_width: int | None = None
) -> Precision:
    """bf16 for `auto` where the processor or GPU has it, else fp32; any other as it is.

    Args:
        trained_width: n_embd of a model that is to be trained.
    Raises:
        ConfigError: for tf32 where there is none.
    """
    if precision is Precision.tf32:
        if device_type != "cuda" or torch.cuda.get_device_capability() < FIRST_WITH_TF32:
            raise ConfigError(
                f"precision: tf32 needs an NVIDIA GPU since Ampere, this is {device_type}; "
                "choose auto, bf16 or fp32"
            )
        return precision
    if precision is not Precision.auto:
        return precision
    is_narrow = device_type == "cpu" and trained_width is not None and trained_width <= NARROW
    return Precision.bf16 if has_bf16(device_type) and not is_narrow else Precision.fp32


def has_bf16(device_type: str) -> bool:
    """Whether products in bf16 are the hardware's own, and not made of others."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def device_type(accelerator: str | None) -> str:
    """Where Lightning trains with this accelerator: `cuda`, `mps` or `cpu`."""
    if accelerator != "cpu":
        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
    return "cpu"
