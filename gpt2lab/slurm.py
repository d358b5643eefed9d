"""SLURM: which job this is, asking it to be started again, and the run that a restart goes on with.

A job that is requeued runs the same script again. Its runs are known by the job's id and the
command, both of which stand in their receipts, so that no path needs a clock.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from gpt2lab.config import TrainConfig
from gpt2lab.run_folder import command, folder_of, is_finished, read_json

TIMEOUT_S = 60.0


def job() -> str | None:
    """The id by which scontrol knows this job: 123, or 123_4 for a task of an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return "_".join(map(str, array)) if all(array) else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has started this job again."""
    text = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdigit() else 0


def facts() -> dict[str, Any]:
    """What a receipt says of the job; nothing outside of one."""
    return {"slurm": {"job": job(), "restarts": restarts()}} if job() else {}


def requeue() -> None:
    """Ask SLURM to start this job again; nothing outside of one. A failure is one warning.

    Of several tasks the first asks.
    """
    number = job()
    if number is None or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    sys.stdout.flush()  # SLURM ends this process soon after
    try:
        asked = subprocess.run(
            ["scontrol", "requeue", number],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
        problem = "" if asked.returncode == 0 else asked.stderr or f"exit code {asked.returncode}"
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        what = " ".join(problem.split())
        warnings.warn(
            f"scontrol requeue {number}: {what}; start the run again with resume=last", stacklevel=2
        )


def earlier_run(settings: TrainConfig) -> Path | None:
    """The folder that this job and command began before SLURM started the job again."""
    if job() is None or restarts() == 0 or settings.resume in ("last", "auto"):
        return None  # the last two go on by themselves
    if settings.name or settings.resume:
        folders = [folder_of(settings)]
    else:
        folders = sorted(Path(settings.runs_dir).glob("*"))
    ours = [folder for folder in folders if _is_ours(read_json(folder / "receipt.json"))]
    # one that is not finished, if there is any, and of several the last
    return max(ours, key=lambda f: (not is_finished(f), f.name), default=None)


def _is_ours(receipt: dict[str, Any]) -> bool:
    legs = receipt.get("resumed") or [receipt]
    leg = legs[-1] if isinstance(legs, list) else {}
    slurm = leg.get("slurm") if isinstance(leg, dict) else None
    known = slurm.get("job") if isinstance(slurm, dict) else None
    return known == job() and leg.get("command") == command()
