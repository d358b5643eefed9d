"""Whether two runs came to the same, to the last bit."""

import csv
import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

CLOCKS = ("train/tokens_per_second", "train/mfu")
COMPARED = ("state_dict", "optimizer_states", "global_step")


def last_checkpoint(run: Path) -> Path:
    """The newest file by name, whatever the manifest says."""
    return max((run / "checkpoints").glob("step-*.ckpt"), default=run / "no checkpoint")


def content(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_same_end(run: Path, straight: Path, *, records: bool = True) -> None:
    """Weights, optimizer state and step of the last checkpoint, and the recorded losses.

    Args:
        records: also compare metrics.csv, but for what depends on the clock.
    """
    found, wanted = content(last_checkpoint(run)), content(last_checkpoint(straight))
    for name in COMPARED:
        difference = first_difference(found[name], wanted[name], name)
        assert difference is None, difference
    if records:
        rows = [recorded(folder) for folder in (run, straight)]
        assert rows[0] == rows[1], f"metrics.csv differs: {first_other_row(*rows)}"


def assert_same_words(run: Path, straight: Path) -> None:
    """How it ended, and the metrics in summary.json; the samples."""
    runs = run, straight
    found, wanted = (json.loads((folder / "summary.json").read_text()) for folder in runs)
    for name in ("steps", "tokens", "stop_reason", "ended_by", "last", "best"):
        for part in (found[name], wanted[name]):
            for clock in CLOCKS if isinstance(part, dict) else ():
                part.pop(clock, None)
        assert found[name] == wanted[name], f"{name}: {found[name]} in place of {wanted[name]}"
    if (straight / "samples.md").exists():
        samples = [(folder / "samples.md").read_text() for folder in runs]
        assert samples[0] == samples[1], "samples.md differs"


def first_other_row(found: list[dict[str, str]], wanted: list[dict[str, str]]) -> str:
    for a, b in zip_longest(found, wanted, fillvalue={}):
        if a != b:
            return f"{a} in place of {b}"
    return "nowhere"


def first_difference(found: Any, wanted: Any, name: str) -> str | None:
    """Where two nests of plain types and tensors differ in one bit or more."""
    if type(found) is not type(wanted):
        return f"{name}: {type(found).__name__} in place of {type(wanted).__name__}"
    if isinstance(wanted, torch.Tensor):
        same = found.dtype == wanted.dtype and torch.equal(found, wanted)
        return None if same else f"{name}: the tensors differ"
    if isinstance(wanted, dict):
        if list(found) != list(wanted):
            return f"{name}: {list(found)} in place of {list(wanted)}"
        pairs = [(f"{name}.{key}", found[key], wanted[key]) for key in wanted]
    elif isinstance(wanted, list | tuple):
        if len(found) != len(wanted):
            return f"{name}: {len(found)} in place of {len(wanted)}"
        pairs = [(f"{name}[{i}]", *both) for i, both in enumerate(zip(found, wanted, strict=True))]
    else:
        return None if found == wanted else f"{name}: {found} in place of {wanted}"
    differences = (first_difference(a, b, key) for key, a, b in pairs)
    return next((d for d in differences if d), None)


def recorded(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the clock's columns."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for one in rows:
        for column in CLOCKS:
            one.pop(column, None)
    return [one for one in rows if any(value for name, value in one.items() if name != "step")]


def assert_whole(run: Path, *, is_killed: bool = False, has_lock: bool = False) -> None:
    """Every checkpoint under its name can be read, and nothing temporary is left in the run.

    Args:
        is_killed: whoever was killed may leave what the next start takes away.
        has_lock: whoever left from within a step may leave its lock, for the next to take over.
    """
    for path in (run / "checkpoints").glob("step-*.ckpt"):
        content(path)
    left = [str(p.relative_to(run)) for p in run.rglob("*") if "tmp" in p.name]
    left += ["lock"] if (run / "lock").exists() and not has_lock else []
    assert is_killed or not left, f"left behind: {left}"
