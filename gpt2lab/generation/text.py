"""Prompts in, samples out: text or ids, one or many, whole or as they are made."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gpt2lab.config import SampleConfig, SamplingConfig
from gpt2lab.config.check.sample import beam_problems
from gpt2lab.config.parse import parse_group
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.generation.rows import (
    Continuation,
    continuations,
    fitted,
    in_batches,
    steps_of,
    stops_of,
    suited,
)
from gpt2lab.generation.speech import Pieces, Speech
from gpt2lab.model import GPT2

NOT_HERE = {
    *("checkpoint", "precision", "quantize", "device", "allow_nonfinite"),  # of load
    *("prompt", "json", "json_lines", "stream", "interactive", "logprobs", "debug"),
}
"""Settings of the command line that would change nothing in `generate`."""


@dataclass(kw_only=True)
class Sample(Continuation):
    """What was made of a prompt."""

    number: int
    """Counted over all prompts; the seed and it decide the draws."""
    prompt: str
    text: str
    """With or without the prompt, as the settings say; without special tokens."""


def generate(
    model: GPT2,
    prompts: str | Sequence[str] | Tensor | Sequence[Tensor] | None = None,
    *,
    stop_token_ids: Collection[int] = (),
    **settings: Any,
) -> Any:
    """Continue text by text, or ids by ids.

    `generate(load("runs/first"), "Once upon a time", max_new_tokens=50, top_k=40, seed=1)`

    Args:
        prompts: a text, or several; None begins with nothing. Or ids (T,), or several rows of
            them, which are continued as they are, without a start token.
        stop_token_ids: end a row too, besides the model's own end of text.
        settings: those of SampleConfig and SamplingConfig that concern this, by their names.
    Returns:
        A text for a text, int64 ids on the CPU for ids; a list for several, or for num_samples > 1.
        The prompt is part of each unless strip_prompt=True, the token that ended it is not.
    Raises:
        ConfigError, DataError: for a setting out of range, or a prompt that the model cannot take.
    """
    chosen = settings_of(settings)
    is_one = prompts is None or isinstance(prompts, str) or _is_row(prompts)
    rows: list[Any] = [prompts] if is_one else list(prompts)  # type: ignore[arg-type]
    found: list[Any] = []
    if rows and isinstance(rows[0], Tensor):
        found = _continued_ids(model, rows, chosen, stop_token_ids)
    elif rows:
        if not all(isinstance(row, str) or row is None for row in rows):
            raise DataError("prompts: are neither texts nor tensors of ids; give one or the other")
        batches = samples(model, [text or "" for text in rows], chosen, stop_token_ids)
        found = [sample.text for batch in batches for sample in batch]
    return found[0] if is_one and chosen.num_samples == 1 else found


def _is_row(prompts: Any) -> bool:
    return isinstance(prompts, Tensor) and prompts.dim() < 2


def _continued_ids(
    model: GPT2, rows: Sequence[Tensor], settings: SampleConfig, stop_token_ids: Collection[int]
) -> list[Tensor]:
    settings = suited(model, settings)
    ids = [ids_in(model, row) for row in rows for _ in range(settings.num_samples)]
    return [
        torch.tensor(([] if settings.strip_prompt else row) + more.token_ids, dtype=torch.long)
        for batch in in_batches(model, ids, settings, stop_token_ids)
        for row, more in batch
    ]


def ids_in(model: GPT2, row: Tensor) -> list[int]:
    """
    Raises:
        DataError: if a row is empty, or holds what is no id of the model.
    """
    if not isinstance(row, Tensor) or row.dim() != 1 or row.is_floating_point() or not len(row):
        raise DataError("prompts: a row is no tensor of ids (T,); give at least one id a row")
    ids: list[int] = row.tolist()
    if not 0 <= min(ids) <= max(ids) < model.vocab_size:
        raise DataError(f"prompts: an id is none of the model's; give 0 to {model.vocab_size - 1}")
    return ids


def settings_of(settings: dict[str, Any]) -> SampleConfig:
    """Settings by their names, checked; those of sampling need not say so.

    Raises:
        ConfigError: one line for each that does not exist or cannot be.
    """
    if idle := sorted(NOT_HERE & settings.keys()):
        raise ConfigError(
            *(f"{name}: is no setting of generate; leave it out, or see load" for name in idle)
        )
    names = {field.name for field in fields(SamplingConfig)}
    sampling = {name: value for name, value in settings.items() if name in names}
    others = {name: value for name, value in settings.items() if name not in names}
    chosen = parse_group(SampleConfig, {**others, "sampling": sampling}, "")
    if found := list(beam_problems(chosen.sampling)):
        raise ConfigError(*found)
    return chosen


def samples(
    model: GPT2,
    prompts: Sequence[str],
    settings: SampleConfig,
    stop_token_ids: Collection[int] = (),
) -> Iterator[list[Sample]]:
    """num_samples of each prompt, batch_size of them at a time, in order.

    Raises:
        DataError: before the first, if the model cannot take one of the prompts.
    """
    settings, speech = suited(model, settings), spoken(model)
    encoded = all_ids(speech, prompts, settings)
    each = range(settings.num_samples)
    repeated = [prompt for prompt in prompts for _ in each]
    rows = [ids for ids in encoded for _ in each]
    number = 0
    for batch in in_batches(model, rows, settings, stop_token_ids):
        made = []
        for ids, more in batch:
            prompt = repeated[number]
            given = [] if settings.strip_prompt or not prompt else ids
            text = speech.decode([*given, *more.token_ids])
            made.append(Sample(number=number, prompt=prompt, text=text, **vars(more)))
            number += 1
        yield made


def stream(model: GPT2, prompt: str, settings: SampleConfig, number: int = 0) -> Iterator[str]:
    """The text of one sample in pieces, each as soon as its characters are whole.

    Args:
        number: of the sample, which with the seed decides its draws.
    """
    settings, speech = suited(model, settings), spoken(model)
    ids = ids_of(speech, prompt, settings)
    (row,) = fitted(model, [ids], settings)
    given = [] if settings.strip_prompt or not prompt else ids
    yield speech.decode(given)
    pieces = Pieces(speech, given)
    stops = stops_of(model, settings)
    if settings.sampling.num_beams > 1:
        (more,) = continuations(model, [row], [number], settings, stops)
        yield "".join(map(pieces.add, more.token_ids)) + pieces.rest()
        return
    for step in steps_of(model, [row], [number], settings, stops):
        token = int(step.token_ids)
        if token not in stops:
            yield pieces.add(token)
    yield pieces.rest()


def spoken(model: GPT2) -> Speech:
    """
    Raises:
        DataError: if what the model's ids stand for is not known.
    """
    if model.speech is None:
        raise DataError(
            f"checkpoint: what its {model.vocab_size:,} ids stand for is not known here; "
            "give ids, from Python"
        )
    return model.speech


def all_ids(speech: Speech, prompts: Sequence[str], settings: SampleConfig) -> list[list[int]]:
    """
    Raises:
        DataError: naming the first prompt that the model cannot take, by its number if need be.
    """
    encoded = []
    for number, prompt in enumerate(prompts, 1):
        try:
            encoded.append(ids_of(speech, prompt, settings))
        except DataError as error:
            which = f"prompt {number} of {len(prompts)}" if len(prompts) > 1 else "prompt"
            raise DataError(*(which + p.removeprefix("prompt") for p in error.problems)) from error
    return encoded


def ids_of(speech: Speech, prompt: str, settings: SampleConfig) -> list[int]:
    return speech.encode(
        prompt, add_start_token=settings.add_start_token, allow_special=settings.allow_special
    )
