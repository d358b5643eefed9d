"""A clock that waits for the device."""

import time

import torch


def now(device: torch.device) -> float:
    """Seconds, read when the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
