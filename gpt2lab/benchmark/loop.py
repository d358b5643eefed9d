"""A training step through Lightning beside one of a loop written by hand.

The same model, data, loss, optimizer, schedule, clipping and compiler. By hand the host reads the
loss of every tenth step; Lightning's side is what `train` runs, with its stop, its throughput and
its metrics.csv, and reads the loss of each.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from gpt2lab.backends import compile_blocks
from gpt2lab.benchmark.turns import blocks_in_turn
from gpt2lab.config import Precision, TrainConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.experiment import build_data, choose_precision
from gpt2lab.measure import now
from gpt2lab.model import GPT2
from gpt2lab.optim import build_optimizer, learning_rate_factor, set_learning_rate

BLOCK_STEPS, BLOCKS = 10, 100
CHAR_SIZE = ["model=char", "data.length=32", "batch_size=12", "data.num_digits=65", "seed=0"]
"""A context of 63 tokens and 65 ids: the shape of text by character, without its text."""


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Medians over blocks of ten steps, in which each way logs once, and over pairs of blocks."""
    settings = settings_from("train", [*CHAR_SIZE, *overrides]).settings
    steps = (BLOCKS + 1) * BLOCK_STEPS
    settings = replace(settings, max_steps=steps, stop_at=None, eval_every=steps + 1)
    others = partial(one_by_hand, settings)
    lightning, hand = blocks_in_turn(settings, build_data(settings), BLOCK_STEPS, others)
    ratios = sorted(a / b for a, b in zip(lightning, hand, strict=True))
    return {
        "blocks": len(lightning),
        "lightning_ms_a_step": statistics.median(lightning) / BLOCK_STEPS * 1e3,
        "by_hand_ms_a_step": statistics.median(hand) / BLOCK_STEPS * 1e3,
        "ratio": statistics.median(ratios),
        "ratio_lower_quartile": ratios[len(ratios) // 4],
        "ratio_upper_quartile": ratios[len(ratios) * 3 // 4],
    }


def one_by_hand(settings: TrainConfig, device: torch.device) -> list[Iterator[float]]:
    return [blocks_by_hand(settings, device)]


def blocks_by_hand(settings: TrainConfig, device: torch.device) -> Iterator[float]:
    """The loop that one would write without Lightning, paused after each block of steps."""
    torch.manual_seed(settings.seed)
    model, data = GPT2(settings.model).to(device), build_data(settings)
    compile_blocks(model, settings.compile, device)
    optimizer = build_optimizer(model, settings.optim)
    bf16 = choose_precision(settings) is Precision.bf16
    batches = iter(data.train_dataloader())
    start = now(device)
    for step in range(settings.max_steps):
        batch = next(batches).with_counted().to(device)
        factor = learning_rate_factor(step, settings.schedule, settings.max_steps)
        set_learning_rate(optimizer, settings.optim.lr * factor)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model.loss(batch)
        loss.backward()
        clip_grad_norm_(model.parameters(), settings.optim.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        if step % BLOCK_STEPS == BLOCK_STEPS - 1:
            loss.item()
            yield now(device) - start
            start = now(device)
