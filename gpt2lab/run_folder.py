"""A run's folder, and what it says about the run besides metrics and checkpoints."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gpt2lab import __version__
from gpt2lab.checkpoint import is_checkpoint
from gpt2lab.config import TrainConfig
from gpt2lab.config.check.train import RESUME
from gpt2lab.config.parse import near
from gpt2lab.config.redact import redacted_arguments
from gpt2lab.durable import as_json, write_whole
from gpt2lab.errors import ConfigError
from gpt2lab.guard import Guard
from gpt2lab.lock import LOCK, check_unlocked, lock

RECEIPT = "receipt.json"
CONFIG = "config.yaml"
SUMMARY = "summary.json"
"""The last that a run writes: only by it a run is known to be at its end."""
# What a start that was killed may leave in an otherwise empty folder.
LEFTOVERS = {LOCK, f".{RECEIPT}.tmp"}
PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "tiktoken")


def new_name() -> str:
    """Date, time and a short id, such as 20260131-154500-3fa9c1."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def folder_of(settings: TrainConfig) -> Path:
    """The folder of the run that these settings start or go on with."""
    if settings.resume not in (None, *RESUME):
        return Path(str(settings.resume)).absolute().parent.parent
    return Path(settings.runs_dir) / (settings.name or new_name())


def check_resume(settings: TrainConfig) -> None:
    """Whether there is what is to be gone on with: before torch is loaded.

    Raises:
        ConfigError: saying which words there are, or which runs.
    """
    resume = settings.resume
    if resume in ("last", "best") and not (folder := folder_of(settings)).is_dir():
        place = folder.parent
        names = [run.name for run in place.iterdir() if is_run(run)] if place.is_dir() else []
        mend = near(folder.name, names) if names else "check name= and runs_dir="
        raise ConfigError(f"resume: there is no run {folder}; {mend}")
    if resume in (None, *RESUME):
        return
    path = Path(str(resume))
    if not os.path.exists(path):  # noqa: PTH110  Path's own raises for a name that is too long
        words = ", ".join(RESUME)
        is_word = path.name == resume and not path.suffix
        mend = near(path.name, RESUME) if is_word else f"give a checkpoint's path, or {words}"
        raise ConfigError(f"resume: there is no {resume}; {mend}")
    if not is_checkpoint(path):
        what = "a folder, not a checkpoint" if path.is_dir() else "no checkpoint"
        raise ConfigError(
            f"resume: {resume} is {what}; give name=<run> resume=last, or what is in its "
            "checkpoints/"
        )


def is_run(folder: Path) -> bool:
    """Whether a run was begun in this folder."""
    return (folder / RECEIPT).exists() or (folder / "checkpoints").is_dir()


def check_free(folder: Path) -> None:
    """Refuse a folder that holds a run already.

    Raises:
        ConfigError: so that nothing is ever overwritten by a name used twice.
    """
    check_unlocked(folder)
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - LEFTOVERS):
        raise ConfigError(
            f"name: {folder} is there already; choose another name, or go on with resume=auto"
        )


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """The folder of a new run, locked; whatever of it is still empty in the end is removed again.

    Raises:
        ConfigError: if the file system will not have it after all, or somebody was quicker.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"runs_dir: {folder} cannot be made ({error.strerror}); choose another folder"
            ) from error
        with lock(folder):
            check_free(folder)
            yield
    finally:
        with suppress(OSError):
            for path in new:
                path.rmdir()


def begin(folder: Path, receipt: dict[str, Any], printable: dict[str, Any]) -> None:
    """What a new run says of itself before its first step: receipt.json, then config.yaml.

    Raises:
        ConfigError: if there is no room for it; nothing is left then.
    """
    # The receipt first: by it a start that is killed here is known to be a run.
    for path, content in describing(folder, receipt, printable).items():
        try:
            write_whole(path, content)
        except OSError as error:
            for name in (RECEIPT, CONFIG):
                (folder / name).unlink(missing_ok=True)
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}), {len(content):,} bytes are "
                f"needed, {shutil.disk_usage(folder).free:,} are free; "
                "make room, or choose another runs_dir"
            ) from error


def go_on(folder: Path, receipt: dict[str, Any], printable: dict[str, Any]) -> None:
    """The same for a resumed run, which can do without; it is not at its end any more."""
    for path, content in describing(folder, receipt, printable).items():
        Guard(path.name)(write_whole, path, content)
    Guard(SUMMARY)((folder / SUMMARY).unlink, missing_ok=True)


def describing(
    folder: Path, receipt: dict[str, Any], printable: dict[str, Any]
) -> dict[Path, bytes]:
    return {
        folder / RECEIPT: as_json(receipt),
        folder / CONFIG: OmegaConf.to_yaml(printable).encode(),
    }


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():  # a FIFO would be waited for
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_finished(folder: Path) -> bool:
    """Whether a run came to its own end, and could say so: not by a signal, a fault or a kill."""
    return read_json(folder / SUMMARY).get("ended_by") == "itself"


def receipt(**facts: Any) -> dict[str, Any]:
    """Everything needed to repeat the run, as far as a program can know it."""
    return {
        "id": uuid.uuid4().hex[:12],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command(),
        "git_revision": git_revision(),
        "versions": {
            "gpt2lab": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
        },
        **facts,
    }


def resumption(step: int, **facts: Any) -> dict[str, Any]:
    """What a resume adds to the receipt."""
    return {
        "step": step,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command(),
        "git_revision": git_revision(),
        **facts,
    }


def command() -> list[str]:
    """What was typed, without secrets."""
    return redacted_arguments([Path(sys.executable).name, *sys.orig_argv[1:]])


def git_revision() -> str | None:
    """The commit of the code that runs, with -dirty when files differ from it."""
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None  # installed from a wheel: the version says which code it is
    try:
        described = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
