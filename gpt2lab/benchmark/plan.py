"""What `plan` says beforehand over what training then takes: memory at its peak, time of a step."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from gpt2lab.benchmark.data import write_random
from gpt2lab.benchmark.turns import train
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.experiment import build_data, with_vocabulary
from gpt2lab.measure import now, peak_bytes
from gpt2lab.planning.memory import RUNTIME
from gpt2lab.planning.plan import make_plan
from gpt2lab.precision import device_type

TOKENS = 2**18
WARM_UP = 2
ROUNDS = 3
CHAR = "model=char data=sort data.length=32 data.num_digits=65 batch_size=12"
MIDDLE = (
    "model.n_layer=6 model.n_head=6 model.n_embd=384 model.block_size=256 data=text batch_size=8"
)
SMALL = "model=small data=text batch_size=1"
SIZES = {
    "char": (CHAR.split(), 100),
    "middle": ([*MIDDLE.split(), "model.dropout=0"], 8),
    "small": ([*SMALL.split(), "model.dropout=0"], 4),
}
"""Settings, and steps that are timed: 0.8 M parameters and dropout on rows of 63, 30 M on rows of
256, 124 M on rows of 1,024. The last two read tokens of GPT-2's."""


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Of each size, planned over measured: medians of rounds, for a machine's speed drifts from a
    plan to its training. Each of both is a process of its own."""
    if overrides:
        raise ConfigError(f"benchmark plan: {overrides[0]} is a setting; leave it out")
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_random(Path(folder), TOKENS)
        for _ in range(ROUNDS):
            for name, (settings, steps) in SIZES.items():
                words = ["~experiment", "seed=0", *settings]
                if "data=text" in words:
                    words.append(f"data.path={folder}")
                for fact, value in compared(words, steps).items():
                    found.setdefault(f"{name}_{fact}", []).append(value)
    return {"rounds": ROUNDS} | {fact: statistics.median(found[fact]) for fact in found}


def compared(words: list[str], steps: int) -> dict[str, float]:
    """One plan and one training behind it."""
    memory, seconds = in_process(planned, words)
    peak, took = in_process(trained, words, steps)
    return {
        "planned_mib": memory / 2**20,
        "peak_mib": peak / 2**20,
        "memory_ratio": memory / peak,
        "planned_ms_a_step": seconds * 1e3,
        "ms_a_step": took * 1e3,
        "time_ratio": seconds / took,
    }


def in_process(function: Callable[..., tuple[int, float]], *args: Any) -> tuple[int, float]:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def planned(words: list[str]) -> tuple[int, float]:
    """Bytes at the peak and seconds of a step, by a plan."""
    plan = make_plan(settings_from("plan", words).settings)
    assert plan.seconds is not None
    # Of a GPU it is tensors alone that a training can tell.
    beyond = plan.memory.at_peak[RUNTIME] if plan.device.on_gpu else 0
    return plan.memory.peak - beyond, plan.seconds.step


def trained(words: list[str], steps: int) -> tuple[int, float]:
    """The same by training."""
    settings = settings_from("train", words).settings
    steps += WARM_UP
    settings = replace(settings, max_steps=steps, stop_at=None, eval_every=steps + 1)
    data = build_data(settings)
    marks = Marks()
    train(with_vocabulary(settings, data), data, marks)
    seconds = [end - start for start, end in zip(marks.at, marks.at[1:], strict=False)]
    device = torch.device(device_type(settings.trainer.get("accelerator")))
    return peak_bytes(device), statistics.median(seconds[WARM_UP - 1 :])


class Marks(Callback):
    """When each step has ended; stands last, so that everything that happens in one counts."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.at.append(now(module.device))
