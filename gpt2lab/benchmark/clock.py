"""The one clock of all benchmarks."""

import time
from typing import Any


def now(device: Any) -> float:
    """Seconds, read when the device has done what it was given."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)
    return time.perf_counter()
