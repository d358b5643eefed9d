"""How fast windows of a corpus are made."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2lab.config import TextConfig
from gpt2lab.data.text import TextDataModule
from gpt2lab.data.tokens import open_corpus
from gpt2lab.errors import ConfigError

TOKENS = 2**24
STEPS = 200
SHAPES = {"char": (12, 64), "small": (32, 1024)}


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Median microseconds of a batch at two shapes, in this process, and tokens a second."""
    if overrides:
        raise ConfigError(f"benchmark data: {overrides[0]} is a setting; leave it out")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_random(Path(folder), TOKENS)
        corpus = open_corpus(Path(folder))
        for name, (batch_size, block_size) in SHAPES.items():
            config = TextConfig(path=folder)
            data = TextDataModule(
                config, corpus, seed=0, batch_size=batch_size, block_size=block_size
            )
            seconds = seconds_a_step(data)
            result[f"{name}_us_a_step"] = seconds * 1e6
            result[f"{name}_tokens_per_second"] = batch_size * block_size / seconds
    return result


def write_random(folder: Path, tokens: int) -> None:
    """A corpus of ids of GPT-2's vocabulary, all equally likely."""
    rng = np.random.default_rng(0)
    for name, size in (("train", tokens), ("val", 2**16)):
        rng.integers(50_257, size=size, dtype=np.uint16).tofile(folder / f"{name}.bin")


def seconds_a_step(data: TextDataModule) -> float:
    steps = iter(data.train_dataloader())
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        next(steps)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
