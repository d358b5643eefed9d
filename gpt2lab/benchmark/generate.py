"""Generation as `sample` does it beside transformers' `generate` on the same weights, in turns.

128 tokens after 128, greedy, whole calls: the prompt is read and every token made. Transformers
computes in fp32 and in bf16, of which the faster one is the measure.
"""

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2lab.config import Precision, Quantize
from gpt2lab.config.compose import settings_from
from gpt2lab.data.prepare import builtin
from gpt2lab.generation import generate
from gpt2lab.generation.packed import bytes_read, packed
from gpt2lab.large_pages import use_large_pages
from gpt2lab.loading import load
from gpt2lab.measure import now
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import gpt2_tokenizer
from gpt2lab.weights.pretrained import theirs

PROMPT, NEW, BATCHES, ROUNDS = 128, 128, (1, 8), 5
WAYS = {"bf16": None, "int8": Quantize.int8}
CHECKED_TOKENS = 8192
"""Of text, on which rounded weights are compared with those in fp32."""
BANDWIDTH_BYTES = 2**28
"""Far beyond what caches hold."""


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        overrides: `checkpoint=`, a trained model, which alone can show what rounding costs; or
            train's settings, for a model with random weights.
    """
    use_large_pages()
    result: dict[str, Any] = {}
    for way in WAYS:  # each in a process of its own: what this one frees would be used again
        with get_context("spawn").Pool(1) as pool:
            beyond = pool.apply(bytes_beyond_weights, (list(overrides), way))
        if beyond is not None:
            result[f"{way}_mb_beyond_weights"] = beyond / 1e6
    original = original_model(overrides)
    device = original.device
    models = packed_models(original)
    result |= cost_of_rounding(original, models)
    bandwidth = read_bandwidth(device)
    result["read_gb_per_second"] = bandwidth / 1e9
    rivals = dict(transformers_models(original))
    for B in BATCHES:
        prompts = torch.randint(original.vocab_size, (B, PROMPT), device=device)
        result |= speeds(models if B == 1 else packed_models(original, B), rivals, prompts)
    for way, model in models.items():
        limit = bandwidth / bytes_read(model)
        result[f"{way}_share_of_memory_limit"] = result[f"{way}_tokens_per_second"] / limit
        result[f"{way}_first_token_over_forward"] = first_token_ratio(model, prompts[:1])
    return result


def original_model(overrides: Sequence[str]) -> GPT2:
    """In fp32, in evaluation."""
    checkpoints = [word for word in overrides if word.startswith("checkpoint=")]
    if checkpoints:
        return load(checkpoints[0].partition("=")[2], precision=Precision.fp32)
    settings = settings_from("train", ["model=small", "~experiment", *overrides]).settings
    shape = replace(settings.model, vocab_size=gpt2_tokenizer().vocab_size)
    if shape.block_size < PROMPT + NEW:
        shape = replace(shape, block_size=PROMPT + NEW)
    torch.manual_seed(settings.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return GPT2(shape).to(device).eval()


def packed_models(original: GPT2, rows: int = 1) -> dict[str, GPT2]:
    return {way: packed(deepcopy(original), Precision.bf16, WAYS[way], rows) for way in WAYS}


def speeds(models: dict[str, GPT2], rivals: dict[str, Any], prompts: Tensor) -> dict[str, float]:
    """Tokens a second of each, and ours over the faster rival's: medians over rounds in turns."""
    B = len(prompts)
    calls: dict[str, Callable[[], Any]] = {}
    for way, model in models.items():
        calls[way] = partial(ours, model, prompts)
    for name, rival in rivals.items():
        calls[name] = partial(transformers_generate, rival, prompts)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            start = now(prompts.device)
            call()
            if number:  # the first warms up
                seconds[name].append(now(prompts.device) - start)
    batch = "" if B == 1 else f"_batch_{B}"
    rates = {name: B * NEW / statistics.median(times) for name, times in seconds.items()}
    result = {f"{name}{batch}_tokens_per_second": rate for name, rate in rates.items()}
    if rivals:
        best = max(rates[name] for name in rivals)
        result |= {f"{way}{batch}_over_transformers": rates[way] / best for way in models}
    return result


def ours(model: GPT2, prompts: Tensor, new_tokens: int = NEW) -> Any:
    return generate(
        model,
        prompts,
        max_new_tokens=new_tokens,
        batch_size=len(prompts),
        temperature=0,
        stop_at_end=False,
    )


def transformers_models(model: GPT2) -> Iterator[tuple[str, Any]]:
    """The same weights in transformers' GPT-2, if it is installed: in fp32 and in bf16."""
    with suppress(ImportError):
        import transformers

        shape = model.config
        config = transformers.GPT2Config(
            vocab_size=model.vocab_size,
            n_positions=shape.block_size,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            eos_token_id=None,
            bos_token_id=None,
        )
        rival = transformers.GPT2LMHeadModel(config).eval()
        rival.load_state_dict(
            {k: theirs(k, v, model.vocab_size) for k, v in model.state_dict().items()},
            strict=False,  # biases that the model lacks; the head, which is tied
        )
        rival.tie_weights()
        rival = rival.to(model.device)
        yield "transformers_fp32", rival
        yield "transformers_bf16", deepcopy(rival).bfloat16()


def transformers_generate(rival: Any, prompts: Tensor) -> Tensor:
    return rival.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )


@torch.no_grad()
def first_token_ratio(model: GPT2, prompt: Tensor) -> float:
    """Time to the first token over that of a forward pass of the prompt, both warm."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(3 * ROUNDS):
        for times, call in zip(
            seconds, (partial(ours, model, prompt, 1), partial(model, prompt)), strict=True
        ):
            start = now(prompt.device)
            call()
            times.append(now(prompt.device) - start)
    first, forward = (statistics.median(times[1:]) for times in seconds)
    return first / forward


def read_bandwidth(device: torch.device) -> float:
    """Bytes a second of a sum over more than caches hold."""
    numbers = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    seconds = []
    for _ in range(3 * ROUNDS):
        start = now(device)
        numbers.sum()
        seconds.append(now(device) - start)
    return BANDWIDTH_BYTES / min(seconds)


@torch.no_grad()
def cost_of_rounding(original: GPT2, models: dict[str, GPT2]) -> dict[str, float]:
    """Loss on a text in nats a token, and how often the likeliest token is that of fp32."""
    windows = text_windows(original)
    result: dict[str, float] = {}
    expected = torch.tensor(0)
    for way, model in {"fp32": original, **models}.items():
        losses, likeliest = [], []
        for window in windows:
            logits = model(window[None, :-1])[0].float()
            losses.append(F.cross_entropy(logits, window[1:]))
            likeliest.append(logits.argmax(-1))
        result[f"{way}_loss"] = torch.stack(losses).mean().item()
        if way == "fp32":
            expected = torch.cat(likeliest)
        else:
            result[f"{way}_agrees"] = (torch.cat(likeliest) == expected).float().mean().item()
    return result


def text_windows(model: GPT2) -> Tensor:
    """Python's own documentation as the model reads it, (n, T + 1)."""
    text = "\n\n".join(builtin.documents())
    tokenizer = model.speech.tokenizer if model.speech is not None else gpt2_tokenizer()
    T = model.config.block_size
    ids = torch.from_numpy(tokenizer.encode_array(text[: 8 * CHECKED_TOKENS]).astype("int64"))
    windows = min(len(ids), CHECKED_TOKENS) // (T + 1)
    return ids[: windows * (T + 1)].view(windows, T + 1).to(model.device)


def bytes_beyond_weights(overrides: list[str], way: str) -> int | None:
    """The most memory that generation at batch 1 takes beyond weights and cache, in this process.

    The embedding, of which the rows lie apart from the head, counts as beyond the weights. None
    where the system does not tell, or the weights are on a GPU.
    """
    model = packed(original_model(overrides), Precision.bf16, WAYS[way])
    gc.collect()
    status = Path("/proc/self/status")
    if not status.exists() or model.device.type != "cpu":
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes(status, "VmRSS")
    ours(model, torch.zeros(1, PROMPT, dtype=torch.long))
    peak = _kilobytes(status, "VmHWM")
    _, kept = model.build_cache(torch.zeros(1, 1, dtype=torch.long), PROMPT + NEW)
    embedding = model.transformer.wte.weight.nbytes
    return 1024 * (peak - before) - kept.nbytes + embedding


def _kilobytes(status: Path, name: str) -> int:
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])
