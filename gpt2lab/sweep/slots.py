"""Where trials run side by side: each slot has its GPUs, or its share of the cores."""

import os
import shutil
import subprocess
from dataclasses import dataclass

from gpt2lab.errors import ConfigError


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time.

    Args:
        environment: what its processes see besides ours.
    """

    environment: dict[str, str]


def slots(jobs: int | None, devices: int, accelerator: str) -> list[Slot]:
    """
    Args:
        jobs: trials at a time; None for as many as the GPUs serve, or 1 on a CPU.
        devices: that each trial uses.
        accelerator: trainer.accelerator.
    Raises:
        ConfigError: if one trial alone needs more GPUs than there are.
    """
    gpus = [] if accelerator == "cpu" else visible_gpus()
    if gpus and devices > len(gpus):
        raise ConfigError(
            f"devices: {devices} were asked for, {len(gpus)} GPUs were found; "
            f"choose at most {len(gpus)}"
        )
    groups = len(gpus) // devices
    jobs = jobs or max(1, groups)
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": _share(jobs * devices)}
    if not gpus:
        return [Slot(threads) for _ in range(jobs)]
    found = []
    for i in range(jobs):
        first = i % groups * devices  # more jobs than GPUs share them
        shown = ",".join(gpus[first : first + devices])
        found.append(Slot({**threads, "CUDA_VISIBLE_DEVICES": shown}))
    return found


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in told.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.split() if asked.returncode == 0 else []


def _share(processes: int) -> str:
    """Threads of each, so that all together are as many as the cores."""
    from gpt2lab.launch import cpus

    return str(max(1, cpus() // processes))
