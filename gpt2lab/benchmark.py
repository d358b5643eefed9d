"""python -m gpt2lab.benchmark loop: what a training step costs, as ratios within one run.

`loop` runs the same steps twice, through Lightning and through a loop written by hand: the same
model, data, loss, optimizer and clipping. Both are interleaved and repeated, because machines are
noisy, and the medians are compared.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gpt2lab.command_line import show_errors
from gpt2lab.errors import ConfigError

BENCHMARKS = ("loop",)
STEPS, ROUNDS = 200, 9
USAGE = f"""\
Measure the speed of a part, beside the same work done otherwise.

usage: python -m gpt2lab.benchmark {{{",".join(BENCHMARKS)}}} [setting=value ...] [json=true]

  loop    seconds of {STEPS} steps through Lightning over those of a hand-written loop;
          the default is the char size: 4 layers, width 128, context 64, batch 12
"""

CHAR_SIZE = ["model=char", "data.length=32", "batch_size=12", "data.num_digits=65", "seed=0"]
"""A context of 63 tokens and 65 ids: the shape of text by character, without its text."""


def main() -> int:
    words = [word for word in sys.argv[1:] if "=" not in word]
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("json=")]
    if set(words) & {"--help", "-h"}:
        print(USAGE, end="")
        return 0
    if len(words) != 1 or words[0] not in BENCHMARKS:
        raise ConfigError(
            f"benchmark: {' '.join(words) or 'nothing'} is not one; choose {', '.join(BENCHMARKS)}"
        )
    result = benchmark_loop(overrides)
    for name, value in result.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    if "json=true" in sys.argv[1:]:
        print(json.dumps(result))
    return 0


def benchmark_loop(overrides: Sequence[str]) -> dict[str, Any]:
    """Median seconds of STEPS steps each way, and their ratio round by round."""
    from gpt2lab.config.compose import settings_from

    settings = settings_from("train", [*CHAR_SIZE, *overrides]).settings
    settings = replace(settings, max_steps=STEPS, stop_at=None, eval_every=STEPS + 1)
    by_lightning(settings), by_hand(settings)  # warm up: first calls pick kernels and buffers
    seconds: dict[Callable[[Any], float], list[float]] = {by_lightning: [], by_hand: []}
    for round_number in range(ROUNDS):
        order = (by_lightning, by_hand) if round_number % 2 else (by_hand, by_lightning)
        for way in order:
            seconds[way].append(way(settings))
    ratios = [a / b for a, b in zip(seconds[by_lightning], seconds[by_hand], strict=True)]
    return {
        "steps": STEPS,
        "rounds": ROUNDS,
        "lightning_seconds": statistics.median(seconds[by_lightning]),
        "by_hand_seconds": statistics.median(seconds[by_hand]),
        "ratio": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
    }


def by_lightning(settings: Any) -> float:
    """Seconds of the steps, timed between the first one's start and the last one's end."""
    import torch

    from gpt2lab.callbacks import Throughput
    from gpt2lab.experiment import build_data, build_trainer, choose_precision, quiet
    from gpt2lab.lightning_module import GPT2LightningModule

    quiet()
    torch.manual_seed(settings.seed)
    module, data = GPT2LightningModule(settings), build_data(settings)
    throughput = Throughput(data.tokens_per_step)
    trainer = build_trainer(settings, choose_precision(settings), [throughput], [])
    trainer.limit_val_batches = 0
    trainer.fit(module, datamodule=data)
    return throughput.seconds


def by_hand(settings: Any) -> float:
    """The loop that one would write without Lightning."""
    import torch

    from gpt2lab.config import Precision
    from gpt2lab.experiment import build_data, choose_precision
    from gpt2lab.model import GPT2
    from gpt2lab.optim import (
        build_optimizer,
        gradient_norm,
        learning_rate_factor,
        set_learning_rate,
    )

    torch.manual_seed(settings.seed)
    model, data = GPT2(settings.model), build_data(settings)
    optimizer = build_optimizer(model, settings.optim)
    bf16 = choose_precision(settings) is Precision.bf16
    steps = iter(data.train_dataloader())
    start = time.perf_counter()
    for step in range(settings.max_steps):
        batch = next(steps)
        factor = learning_rate_factor(step, settings.schedule, settings.max_steps)
        set_learning_rate(optimizer, settings.optim.lr * factor)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.loss(batch)
        loss.backward()
        gradient_norm(model.parameters(), settings.optim.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            loss.item()
    return time.perf_counter() - start


if __name__ == "__main__":
    show_errors(main)
