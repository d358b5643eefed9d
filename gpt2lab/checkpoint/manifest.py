"""manifest.json: which checkpoints a run has, with the size and checksum of each."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.durable import write_json

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-([0-9]{6,18})\.ckpt")


@dataclass(frozen=True)
class Entry:
    """One checkpoint as it was saved."""

    file: str
    step: int
    bytes: int
    sha256: str
    metric: float | None
    """The evaluation at that step, by what the manifest monitors; None if there was none."""

    def __post_init__(self) -> None:
        if step_of(self.file) != self.step:
            raise ValueError(f"{self.file} is not the name of step {self.step}")
        if not isinstance(self.bytes, int) or not isinstance(self.sha256, str):
            raise TypeError(f"{self.file}: {self.bytes!r}, {self.sha256!r}")
        if not isinstance(self.metric, int | float | None):
            raise TypeError(f"{self.file}: metric {self.metric!r}")


@dataclass(frozen=True)
class Manifest:
    """What stands in manifest.json, besides the checksum of it all."""

    run: dict[str, str]
    """The id in the run's receipt, and its name."""
    monitor: str
    """The metric that makes a checkpoint the best."""
    checkpoints: list[Entry]
    """Newest first."""

    @property
    def best(self) -> Entry | None:
        """The best evaluated one, the earliest of equals."""
        sign = -1 if HIGHER_IS_BETTER[self.monitor] else 1
        rank = {e: (sign * e.metric, e.step) for e in self.checkpoints if e.metric is not None}
        return min(rank, key=lambda entry: rank[entry], default=None)


def name_of(step: int) -> str:
    return f"step-{step:06d}.ckpt"


def step_of(file: str) -> int | None:
    """The step in a checkpoint's name; None if it is no such name."""
    match = _NAME.fullmatch(file)
    return int(match[1]) if match else None


def temporary_of(path: Path) -> Path:
    """Where a file is written before it gets its name: in the same folder, so on the same disk."""
    return path.with_name(f".{path.name}.tmp")


def step_files(folder: Path) -> list[Path]:
    """The files that are called like checkpoints, newest first."""
    steps = {path: step_of(path.name) for path in folder.glob("step-*.ckpt")}
    named = {path: step for path, step in steps.items() if step is not None}
    return sorted(named, key=lambda path: named[path], reverse=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    content = {
        "run": manifest.run,
        "monitor": manifest.monitor,
        "checkpoints": [asdict(entry) for entry in manifest.checkpoints],
        "best": manifest.best.file if manifest.best else None,
    }
    write_json(folder / MANIFEST, {"sha256": _checksum(content), **content})


def read_manifest(folder: Path) -> Manifest | None:
    """None if there is none, or a damaged one."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if content.pop("sha256") != _checksum(content):
            return None
        entries = [Entry(**entry) for entry in content["checkpoints"]]
        manifest = Manifest(dict(content["run"]), content["monitor"], _newest_first(entries))
        return manifest if manifest.monitor in HIGHER_IS_BETTER else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _newest_first(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.step, reverse=True)


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def known_best(content: dict[str, Any]) -> tuple[Entry | None, str]:
    """The best one that a checkpoint's content knows of, and by which metric."""
    try:
        best = content["best"]
        return Entry(best["file"], best["step"], 0, "", best["metric"]), str(best["monitor"])
    except (LookupError, TypeError, ValueError):
        return None, ""


def kept(manifest: Manifest, keep: int, keep_every: int | None) -> list[Entry]:
    """The newest `keep`, the best, and each at a multiple of `keep_every` steps."""
    return [
        entry
        for place, entry in enumerate(manifest.checkpoints)
        if place < keep
        or entry == manifest.best
        or (keep_every is not None and entry.step % keep_every == 0)
    ]
