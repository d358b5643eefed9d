"""Rows of ids continued: as many as wanted, in batches, by drawing or by beams."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from gpt2lab.config import BeyondContext, SampleConfig
from gpt2lab.errors import ConfigError, DataError
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


def room_of(model: GPT2, row: Sequence[int], settings: SampleConfig) -> int:
    """How many tokens may follow a row, as it was given, at most.

    Raises:
        ConfigError: if that is none.
    """
    room = settings.max_new_tokens
    if model.speech is not None and model.speech.answer_tokens is not None:
        room = min(room, model.speech.answer_tokens)
    if settings.max_length is None:
        return room
    if settings.max_length <= len(row):
        raise ConfigError(
            f"max_length: {settings.max_length} leaves no room behind a prompt of {len(row)} "
            f"tokens; choose more than {len(row)}"
        )
    return min(room, settings.max_length - len(row))


def fitted(
    model: GPT2, rows: Sequence[Sequence[int]], settings: SampleConfig
) -> list[tuple[list[int], int]]:
    """Each row as the context holds it, and how many tokens may follow it.

    Warns of a longer prompt, whose end is kept, and of a text that may outgrow the context, where
    its oldest tokens go or its search ends. A question that is too long is refused, not cropped.

    Raises:
        ConfigError, DataError: for a row behind which there is no room, and a question too long.
    """
    context, beams = model.config.block_size, settings.sampling.num_beams > 1
    rooms = [room_of(model, row, settings) for row in rows]
    answers = model.speech is not None and model.speech.has_answers
    if answers and max(map(len, rows)) > context:
        raise DataError(
            f"prompt: has {max(map(len, rows)):,} tokens, the model's context is {context:,}; "
            "ask a shorter question"
        )
    kept = cropped(rows, context)
    longest = max(len(row) + room for row, room in zip(kept, rooms, strict=True))
    # The last token is made, but not read; and answers end by themselves.
    outgrows = longest > context + 1 and not answers
    if outgrows and (beams or settings.beyond_context is BeyondContext.slide):
        slides = "its oldest tokens are dropped then, or add beyond_context=stop"
        warnings.warn(
            f"max_new_tokens: a text of {longest:,} tokens outgrows the model's context of "
            f"{context:,}; {'a beam search ends there' if beams else slides}",
            stacklevel=3,
        )
    return list(zip(kept, rooms, strict=True))


def in_batches(
    model: GPT2,
    rows: Sequence[list[int]],
    settings: SampleConfig,
    stop_token_ids: Collection[int],
) -> Iterator[list[tuple[list[int], Continuation]]]:
    """Continue rows of ids, batch_size at a time: each as it was given, with its continuation."""
    stops = {*stops_of(model, settings), *map(int, stop_token_ids)}
    fitting = fitted(model, rows, settings)
    for start in range(0, len(rows), settings.batch_size):
        numbers = range(start, min(start + settings.batch_size, len(rows)))
        batch = [fitting[number] for number in numbers]
        found = continuations(model, batch, numbers, settings, stops)
        yield list(zip([rows[number] for number in numbers], found, strict=True))


def continuations(
    model: GPT2,
    rows: Sequence[tuple[list[int], int]],
    numbers: Sequence[int],
    settings: SampleConfig,
    stop_token_ids: Collection[int],
) -> list[Continuation]:
    """Of rows that fit the context, each with its room, as one batch."""
    if settings.sampling.num_beams > 1:
        return [_by_beams(model, row, room, settings, stop_token_ids) for row, room in rows]
    steps = list(steps_of(model, rows, numbers, settings, stop_token_ids))
    token_ids = torch.stack([step.token_ids for step in steps], dim=1).cpu()  # (B, n)
    is_new = torch.stack([step.is_new for step in steps], dim=1).cpu()
    found = []
    for b, (_, room) in enumerate(rows):
        places = is_new[b].nonzero().flatten().tolist()
        ids = token_ids[b, places].tolist()
        more = ended(ids, room, stop_token_ids)
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
    model: GPT2,
    row: list[int],
    room: int,
    settings: SampleConfig,
    stop_token_ids: Collection[int],
) -> Continuation:
    ids, _ = beam_search(
        model,
        torch.tensor(row, device=model.device),
        room,
        settings.sampling.num_beams,
        settings.sampling.length_penalty,
        stop_token_ids,
        penalty=settings.sampling.repetition_penalty,
    )
    return ended(ids.tolist(), room, stop_token_ids)


def ended(new: list[int], room: int, stop_token_ids: Collection[int]) -> Continuation:
    """New ids without the one that ended them, and why they ended; `room` is the most there are."""
    if new[-1] in stop_token_ids:
        return Continuation(new[:-1], "stop_token")
    return Continuation(new, "length" if len(new) == room else "context")


def steps_of(
    model: GPT2,
    rows: Sequence[tuple[list[int], int]],
    numbers: Sequence[int],
    settings: SampleConfig,
    stop_token_ids: Collection[int],
) -> Iterator[Step]:
    """The loop over rows that fit the context, each with its room, as the settings want it."""
    lengths = torch.tensor([len(row) for row, _ in rows])
    limits = lengths + torch.tensor([room for _, room in rows])
    most = max(room for _, room in rows)
    on_gpu = model.device.type == "cuda"
    pays = most >= PAYS_TO_COMPILE or settings.interactive
    return decode(
        model,
        pack([row for row, _ in rows])["token_ids"],
        lengths,
        limits,
        uniforms(settings.seed, numbers, most),
        settings.sampling,
        stop_token_ids=stop_token_ids,
        beyond_context=settings.beyond_context,
        num_alternatives=NUM_ALTERNATIVES if settings.logprobs else 0,
        compiled=on_gpu and (pays if settings.compile is None else settings.compile),
    )
