"""A training step as `train` makes it, beside the plain ways to make one, in turns.

Ours is what `train` runs: bf16 where the machine has it, the chunked loss, fused AdamW, through
Lightning. By hand is the usual loop over the same model in fp32: whole logits, F.cross_entropy,
AdamW as it comes. Transformers' model, if it is installed, is trained by that loop too. All see the
same windows: of random tokens, which cost what text costs, or for model=char of characters.
"""

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.benchmark.data import write_random
from gpt2lab.benchmark.generate import transformers_models
from gpt2lab.benchmark.turns import blocks_in_turn, train
from gpt2lab.config import TrainConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.experiment import build_data, choose_precision, with_vocabulary
from gpt2lab.flops import step_flops
from gpt2lab.measure import now, peak_bytes
from gpt2lab.meta import meta_model
from gpt2lab.model import GPT2
from gpt2lab.optim import learning_rate_factor
from gpt2lab.peak import peak_of
from gpt2lab.precision import device_type

STEPS, MOST_STEPS, MEASURED_FOR_MEMORY = 10, 200, 3
ENOUGH_FLOPS = 1e13
"""Of all steps of a loop: fewer are too short a time, beyond STEPS of them."""
TOKENS = 2**21
DEFAULTS = ["model=small", "batch_size=1", "model.dropout=0", "seed=0"]
OURS, BY_HAND, TRANSFORMERS = "ours", "by_hand", "transformers"

Model = Callable[[Tensor], Tensor]
"""Token ids (B, T) to logits (B, T, V)."""


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        overrides: settings of `train`, but for the data's.
    Raises:
        ConfigError: for data; only rows of one length without a prefix cost all loops the same.
    """
    for word in overrides:
        if word.lstrip("+~").startswith(("data=", "data.", "experiment=")):
            raise ConfigError(f"benchmark train: {word} chooses data; leave it out")
    with tempfile.TemporaryDirectory() as folder:
        write_random(Path(folder), TOKENS)
        data = ["data=text", f"data.path={folder}"]
        if "model=char" in overrides:
            data = ["data=builtin", f"data_dir={folder}", "batch_size=12"]
        words = [*DEFAULTS, *data, "~experiment", *overrides]
        settings = settings_of(words)
        names = [OURS, BY_HAND, *([TRANSFORMERS] if find_spec("transformers") else [])]
        memory = {name: peak_memory(words, name) for name in names}
        return {**speeds(settings, names), **memory_beside(memory)}


def settings_of(words: Sequence[str]) -> TrainConfig:
    settings = settings_from("train", words).settings
    data = build_data(settings)
    settings = with_vocabulary(settings, data)
    flops = step_flops(meta_model(settings.model), data.tokens_per_step, settings.batch_size)
    steps = max(STEPS, min(MOST_STEPS, round(ENOUGH_FLOPS / flops))) + 1
    return replace(settings, max_steps=steps, stop_at=None, eval_every=steps + 1)


def speeds(settings: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
    """Medians and quartiles over steps in turns; shares of one peak, that of our precision."""
    device = torch.device(device_type(settings.trainer.get("accelerator")))
    precision = choose_precision(settings)
    data = build_data(settings)
    peaks = [peak_of(device, precision)]
    others = partial(rivals, settings, names[1:])
    seconds = dict(zip(names, blocks_in_turn(settings, data, 1, others), strict=True))
    peaks.append(peak_of(device, precision))  # a busy moment made one of them too small
    peak = max((p for p in peaks if p is not None), default=None)
    flops = step_flops(meta_model(settings.model), data.tokens_per_step, settings.batch_size)
    result: dict[str, Any] = {
        "steps": len(seconds[OURS]),
        "precision": precision.name,
        "flops_a_step": flops,
        "peak_flops_per_second": peak.flops_per_second if peak else None,
        "peak_source": peak.source if peak else "n/a",
    }
    for name, times in seconds.items():
        lower, median, upper = quartiles(times)
        result[f"{name}_ms_a_step"] = median * 1e3
        result[f"{name}_ms_lower_quartile"] = lower * 1e3
        result[f"{name}_ms_upper_quartile"] = upper * 1e3
        result[f"{name}_tokens_per_second"] = data.tokens_per_step / median
        result[f"{name}_share_of_peak"] = flops / median / peak.flops_per_second if peak else None
    for name in names[1:]:
        lower, median, upper = quartiles(
            [b / a for a, b in zip(seconds[OURS], seconds[name], strict=True)]
        )
        result[f"speed_over_{name}"] = median
        result[f"speed_over_{name}_lower_quartile"] = lower
        result[f"speed_over_{name}_upper_quartile"] = upper
    return result


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper


def rivals(
    settings: TrainConfig, names: Sequence[str], device: torch.device
) -> list[Iterator[float]]:
    return [usual_steps(settings, name, device) for name in names]


def usual_steps(settings: TrainConfig, name: str, device: torch.device) -> Iterator[float]:
    """The loop that one finds in most places, paused after each step; the seconds of each."""
    torch.manual_seed(settings.seed)
    module, model = usual_model(settings, name, device)
    optim = settings.optim
    optimizer = torch.optim.AdamW(module.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    batches = iter(build_data(settings).train_dataloader())
    for step in range(settings.max_steps):
        start = now(device)
        batch = next(batches).to(device)
        for group in optimizer.param_groups:
            factor = learning_rate_factor(step, settings.schedule, settings.max_steps)
            group["lr"] = optim.lr * factor
        rows = settings.micro_batch_size
        loss = usual_loss(model, batch, rows if isinstance(rows, int) else len(batch.inputs))
        clip_grad_norm_(module.parameters(), optim.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        yield now(device) - start


def usual_loss(model: Model, batch: Batch, rows: int) -> Tensor:
    """Mean loss of a step, gradients added up over micro-batches of so many rows."""
    num_counted = batch.num_counted()
    total = torch.zeros((), device=batch.inputs.device)
    for part in batch.split(rows):
        logits = model(part.inputs)
        targets = part.targets.flatten()
        loss = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORE, reduction="sum")
        loss = loss / num_counted
        loss.backward()
        total += loss.detach()
    return total


def usual_model(settings: TrainConfig, name: str, device: torch.device) -> tuple[nn.Module, Model]:
    """In fp32, with fresh weights and the settings' dropout; and what makes logits of it."""
    ours = GPT2(settings.model).to(device)
    if name == BY_HAND:
        return ours, ours
    _, rival = next(transformers_models(ours))
    for part in rival.modules():
        if isinstance(part, nn.Dropout):
            part.p = settings.model.dropout
    return rival.train(), lambda ids: rival(ids, use_cache=False).logits


def peak_memory(words: Sequence[str], name: str) -> int:
    """Bytes of a process that does nothing but train a few steps in this way."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(bytes_of_training, (list(words), name))


def bytes_of_training(words: list[str], name: str) -> int:
    settings = replace(settings_of(words), max_steps=MEASURED_FOR_MEMORY)
    device = torch.device(device_type(settings.trainer.get("accelerator")))
    if name == OURS:
        train(settings, build_data(settings))
    else:
        for _ in usual_steps(settings, name, device):
            pass
    return peak_bytes(device)


def memory_beside(memory: dict[str, int]) -> dict[str, float]:
    result = {f"{name}_peak_mib": peak / 2**20 for name, peak in memory.items()}
    others = [name for name in memory if name != OURS]
    return result | {f"memory_over_{name}": memory[OURS] / memory[name] for name in others}
