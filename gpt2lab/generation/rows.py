"""Rows of ids continued: as many as wanted, in batches, by drawing or by beams."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from gpt2lab.config import BeyondContext, SampleConfig
from gpt2lab.errors import ConfigError
from gpt2lab.generation.beam import beam_search
from gpt2lab.generation.decoding import Step, decode
from gpt2lab.generation.samplers import uniforms
from gpt2lab.generation.speech import cropped, pack
from gpt2lab.model import GPT2

NUM_ALTERNATIVES = 10
PAYS_TO_COMPILE = 4096
"""Steps of one batch from which on a compiled graph saves more time than making it takes."""


class Alternative(NamedTuple):
    """A token that could have been."""

    piece: str
    token_id: int
    logprob: float
    """In nats."""


@dataclass
class Continuation:
    """What was made of a row of ids."""

    token_ids: list[int]
    """The new ones, without the token that ended them."""
    stop_reason: str
    """`stop_token`, the end of text or one asked for; `length`, of the settings or of an answer;
    or the model's `context`."""
    logprobs: list[float] | None = None
    """Of each new token by the model itself, in nats, where they are asked for."""
    alternatives: list[list[Alternative]] | None = None
    """The ten likeliest tokens in the place of each, likeliest first."""


def suited(model: GPT2, settings: SampleConfig) -> SampleConfig:
    """The settings with each null replaced by what suits the model."""
    sampling, answers = settings.sampling, model.speech is not None and model.speech.has_answers
    if sampling.temperature is None:
        is_sure = answers or sampling.num_beams > 1
        sampling = replace(sampling, temperature=0.0 if is_sure else 1.0)
    strip_prompt = answers if settings.strip_prompt is None else settings.strip_prompt
    return replace(settings, sampling=sampling, strip_prompt=strip_prompt)


def stops_of(model: GPT2, settings: SampleConfig) -> set[int]:
    """The ids that end a row."""
    end = model.speech.tokenizer.end_of_text if model.speech is not None else None
    return set() if end is None or not settings.stop_at_end else {end}


def limit_of(model: GPT2, row: Sequence[int], settings: SampleConfig) -> int:
    """The length at which a row ends.

    Raises:
        ConfigError: if it is there already.
    """
    most = settings.max_new_tokens
    if model.speech is not None and model.speech.answer_tokens is not None:
        most = min(most, model.speech.answer_tokens)
    limit = len(row) + most
    if settings.max_length is None:
        return limit
    if settings.max_length <= len(row):
        raise ConfigError(
            f"max_length: {settings.max_length} leaves no room behind a prompt of {len(row)} "
            f"tokens; choose more than {len(row)}"
        )
    return min(limit, settings.max_length)


def warn_of_dropping(model: GPT2, rows: Sequence[list[int]], settings: SampleConfig) -> None:
    """Say so if a text may outgrow the context, where its oldest tokens go or its search ends."""
    context, beams = model.config.block_size, settings.sampling.num_beams > 1
    longest = max(limit_of(model, row, settings) for row in rows)
    # The last token is made, but not read.
    if longest > context + 1 and (beams or settings.beyond_context is BeyondContext.slide):
        what = (
            "a beam search ends there"
            if beams
            else "its oldest tokens are dropped then, or add beyond_context=stop"
        )
        warnings.warn(
            f"max_new_tokens: a text of {longest:,} tokens outgrows the model's context of "
            f"{context:,}; {what}",
            stacklevel=3,
        )


def in_batches(
    model: GPT2,
    rows: Sequence[list[int]],
    settings: SampleConfig,
    stop_token_ids: Collection[int],
) -> Iterator[list[tuple[list[int], Continuation]]]:
    """Continue rows of ids, batch_size at a time: each as it was given, with its continuation."""
    stops = {*stops_of(model, settings), *stop_token_ids}
    fitting = cropped(rows, model.config.block_size)
    warn_of_dropping(model, fitting, settings)
    for start in range(0, len(rows), settings.batch_size):
        numbers = range(start, min(start + settings.batch_size, len(rows)))
        batch = [fitting[number] for number in numbers]
        found = continuations(model, batch, numbers, settings, stops)
        yield list(zip([rows[number] for number in numbers], found, strict=True))


def continuations(
    model: GPT2,
    rows: Sequence[list[int]],
    numbers: Sequence[int],
    settings: SampleConfig,
    stop_token_ids: Collection[int],
) -> list[Continuation]:
    """Of rows of ids that fit the context, as one batch."""
    if settings.sampling.num_beams > 1:
        return [_by_beams(model, row, settings, stop_token_ids) for row in rows]
    steps = list(steps_of(model, rows, numbers, settings, stop_token_ids))
    token_ids = torch.stack([step.token_ids for step in steps], dim=1).cpu()  # (B, n)
    is_new = torch.stack([step.is_new for step in steps], dim=1).cpu()
    found = []
    for b, row in enumerate(rows):
        places = is_new[b].nonzero().flatten().tolist()
        ids = token_ids[b, places].tolist()
        more = ended(ids, limit_of(model, row, settings) - len(row), stop_token_ids)
        if settings.logprobs:
            kept = [steps[i] for i in places[: len(more.token_ids)]]
            more.logprobs = [step.logprobs[b].item() for step in kept if step.logprobs is not None]
            more.alternatives = [_alternatives(model, step, b) for step in kept]
        found.append(more)
    return found


def _alternatives(model: GPT2, step: Step, b: int) -> list[Alternative]:
    assert step.alternatives is not None
    logprobs, ids = (values[b].tolist() for values in step.alternatives)
    decode_one = model.speech.tokenizer.decode if model.speech else lambda ids: ""
    return [Alternative(decode_one([i]), i, p) for i, p in zip(ids, logprobs, strict=True)]


def _by_beams(
    model: GPT2, row: list[int], settings: SampleConfig, stop_token_ids: Collection[int]
) -> Continuation:
    limit = limit_of(model, row, settings)
    ids, _ = beam_search(
        model,
        torch.tensor(row, device=model.device),
        limit - len(row),
        settings.sampling.num_beams,
        settings.sampling.length_penalty,
        stop_token_ids,
        penalty=settings.sampling.repetition_penalty,
    )
    return ended(ids.tolist(), limit - len(row), stop_token_ids)


def ended(new: list[int], room: int, stop_token_ids: Collection[int]) -> Continuation:
    """New ids without the one that ended them, and why they ended; `room` is the most there are."""
    if new[-1] in stop_token_ids:
        return Continuation(new[:-1], "stop_token")
    return Continuation(new, "length" if len(new) == room else "context")


def steps_of(
    model: GPT2,
    rows: Sequence[list[int]],
    numbers: Sequence[int],
    settings: SampleConfig,
    stop_token_ids: Collection[int],
) -> Iterator[Step]:
    """The loop over rows of ids, as the settings want it."""
    device = model.device
    lengths = torch.tensor([len(row) for row in rows], device=device)
    limits = torch.tensor([limit_of(model, row, settings) for row in rows], device=device)
    most = int((limits - lengths).max())
    pays = most >= PAYS_TO_COMPILE or settings.interactive
    return decode(
        model,
        pack(rows)["token_ids"].to(device),
        lengths,
        limits,
        uniforms(settings.seed, numbers, most).to(device),
        settings.sampling,
        stop_token_ids=stop_token_ids,
        beyond_context=settings.beyond_context,
        num_alternatives=NUM_ALTERNATIVES if settings.logprobs else 0,
        compiled=device.type == "cuda" and (pays if settings.compile is None else settings.compile),
    )
