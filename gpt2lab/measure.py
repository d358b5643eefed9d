"""Time and memory of what a device does."""

import resource
import sys
import time

import torch


def now(device: torch.device) -> float:
    """Seconds, read when the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def peak_bytes(device: torch.device) -> int:
    """The most memory that a GPU has held for tensors of ours, or else this process in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
