"""A run's folder, and what it says about the run besides metrics and checkpoints."""

import json
import os
import platform
import subprocess
import sys
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gpt2lab import __version__
from gpt2lab.config.redact import redacted_arguments
from gpt2lab.errors import ConfigError

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "tiktoken")


def new_name() -> str:
    """Date, time and a short id, such as 20260131-154500-3fa9c1."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def check_free(folder: Path) -> None:
    """Refuse a folder that holds a run already.

    Raises:
        ConfigError: so that nothing is ever overwritten by a name used twice.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"name: {folder} is there already; choose another name, or go on with resume=last"
        )


def check_writable(runs_dir: Path) -> None:
    """Find out before anything heavy whether a folder can be made here.

    Raises:
        ConfigError: naming the nearest part of the path that is in the way.
    """
    nearest = runs_dir.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ConfigError(f"runs_dir: {nearest} is a file; choose a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"runs_dir: {nearest} cannot be written to; choose another folder")


def make(folder: Path) -> None:
    """
    Raises:
        ConfigError: if the file system will not have it after all.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"runs_dir: {folder} cannot be made ({error.strerror}); choose another folder"
        ) from error


def write_config(folder: Path, printable: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(printable))


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def receipt(**facts: Any) -> dict[str, Any]:
    """Everything needed to repeat the run, as far as a program can know it."""
    return {
        "id": uuid.uuid4().hex[:12],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": redacted_arguments([Path(sys.executable).name, *sys.orig_argv[1:]]),
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
        "command": redacted_arguments([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "git_revision": git_revision(),
        **facts,
    }


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


def peak_memory_bytes() -> int | None:
    """The most memory the GPU held for us, or else this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
