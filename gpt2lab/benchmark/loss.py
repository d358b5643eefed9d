"""The chunked loss beside whole bf16 logits with F.cross_entropy: time, and memory at its peak."""

import statistics
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F

from gpt2lab.batch import IGNORE
from gpt2lab.errors import ConfigError
from gpt2lab.loss import prefix_masked_cross_entropy
from gpt2lab.measure import now, peak_bytes
from gpt2lab.model import stored_rows

TOKENS, WIDTH, CLASSES = 2048, 768, 50257
REPEATS = 9


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Loss and gradients, chunked and dense; and chunked with nine targets in ten ignored."""
    if overrides:
        raise ConfigError(f"benchmark loss: {overrides[0]} is a setting; leave it out")
    # Memory first, each way in a process of its own: what one frees, another would use again.
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = [pool.apply(extra_bytes, (chunked,)) for chunked in (True, False)]
    ways = [Way(chunked=True), Way(chunked=False), Way(chunked=True, ignored=0.9)]
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(REPEATS):
        for way, times in zip(ways, seconds, strict=True):
            times.append(way.seconds())
    chunked, dense, few = (statistics.median(times) for times in seconds)
    return {
        "chunked_ms": chunked * 1e3,
        "dense_ms": dense * 1e3,
        "ratio": chunked / dense,
        "ratio_90_percent_ignored": few / dense,
        "chunked_mib": memory[0] / 2**20,
        "dense_mib": memory[1] / 2**20,
        "memory_ratio": memory[0] / memory[1],
    }


class Way:
    """One way to the same loss, with tensors of its own."""

    def __init__(self, *, chunked: bool, ignored: float = 0.0) -> None:
        torch.manual_seed(0)
        self.chunked = chunked
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.hidden = torch.randn(TOKENS, WIDTH, device=self.device).requires_grad_()
        head = torch.empty(stored_rows(CLASSES), WIDTH, device=self.device)
        self.weight = head.normal_(std=0.02).requires_grad_()
        targets = torch.randint(CLASSES, (TOKENS,), device=self.device)
        self.targets = targets.masked_fill(torch.rand(TOKENS, device=self.device) < ignored, IGNORE)

    def seconds(self) -> float:
        """Time of one forward and backward pass, after one that picks kernels and buffers."""
        self.run()
        start = now(self.device)
        self.run()
        return now(self.device) - start

    def run(self) -> None:
        self.hidden.grad = self.weight.grad = None
        with torch.autocast(self.device.type, torch.bfloat16):
            if self.chunked:
                loss = prefix_masked_cross_entropy(
                    self.hidden, self.weight, self.targets, vocab_size=CLASSES
                )
            else:
                loss = F.cross_entropy(F.linear(self.hidden, self.weight[:CLASSES]), self.targets)
        loss.backward()


def extra_bytes(chunked: bool) -> int:
    """Memory that one pass takes at its peak, gradients included, beyond its inputs."""
    way = Way(chunked=chunked)
    before = peak_bytes(way.device)
    way.run()
    return peak_bytes(way.device) - before
