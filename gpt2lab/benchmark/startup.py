"""How long one waits: for the help, and for the first training step of `model=nano`."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from lightning import Callback

from gpt2lab.errors import ConfigError

PROCESSES = 5
FIRST_STEP = "+callbacks.first_step._target_=gpt2lab.benchmark.startup.LeaveAfterFirstStep"


class LeaveAfterFirstStep(Callback):
    """Ends the process there and then, so that nothing but the way to the first step is timed."""

    def on_train_batch_end(self, *_: Any) -> None:
        os._exit(0)


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Medians of whole processes, each kind in turn."""
    if overrides:
        raise ConfigError(f"benchmark startup: {overrides[0]} is a setting; leave it out")
    ways = {"help": ["--help"], "first_step": ["model=nano", "data=sort", FIRST_STEP]}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(PROCESSES):
        for name, words in ways.items():
            seconds[name].append(seconds_of(words))
    result: dict[str, Any] = {"processes": PROCESSES}
    for name, times in seconds.items():
        result[f"{name}_seconds"] = statistics.median(times)
        result[f"{name}_seconds_lowest"] = min(times)
        result[f"{name}_seconds_highest"] = max(times)
    return result


def seconds_of(words: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "gpt2lab.train", *words],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - start
