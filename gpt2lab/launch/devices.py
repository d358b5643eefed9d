"""What this machine has to compute with, and each process's share of it."""

import os

from gpt2lab.config import TrainConfig
from gpt2lab.errors import ConfigError
from gpt2lab.launch.started import check_started, started

SHARE = "GPT2LAB_CORES"
"""The variable that tells a job of several at once how many cores its ranks have together."""


def check_devices(settings: TrainConfig) -> None:
    """
    Raises:
        ConfigError: if there are fewer devices than the settings ask for, or other ranks than they
            ask for were started.
    """
    check_started(settings)
    is_joined = started() is not None
    accelerator = settings.trainer.get("accelerator", "auto")
    if settings.devices == 1 and accelerator not in ("gpu", "cuda"):
        return
    # A task of SLURM's may be bound to its share of the cores: whoever started it has counted.
    kind, found = "CPU cores", settings.devices if is_joined else cpus()
    if accelerator != "cpu":
        import torch

        gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
        if gpus or accelerator != "auto":
            kind, found = "GPUs", gpus
    if found >= settings.devices:
        return
    if found == 0:
        raise ConfigError(
            f"trainer.accelerator: {accelerator} was asked for, 0 GPUs were found; use trainer=auto"
        )
    mend = "let each task see all of its node's" if is_joined else f"choose at most {found}"
    raise ConfigError(
        f"devices: {settings.devices} were asked for, {found} {kind} were found; {mend}"
    )


def cpus() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def divide_threads(count: int) -> None:
    """Each rank computes with its share of the cores, unless OMP_NUM_THREADS says with how many."""
    import torch

    if SHARE in os.environ:
        torch.set_num_threads(max(1, int(os.environ[SHARE]) // count))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cpus() // count))


def share_cores(jobs: int) -> None:
    """Each of so many jobs at once computes with its share, unless OMP_NUM_THREADS is set."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ[SHARE] = os.environ["OMP_NUM_THREADS"] = str(max(1, cpus() // jobs))
