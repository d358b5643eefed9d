"""The loop: what follows prompts, a position of all rows at a time."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.config import BeyondContext, SamplingConfig
from gpt2lab.generation.compiled import compiled_step, eager_step
from gpt2lab.generation.samplers import alternatives, log_probabilities, next_token, uniforms
from gpt2lab.model import GPT2

DROPPED_SHARE = 1 / 8
"""Of the context, dropped at a time once it is full."""


def dropped_at_once(block_size: int) -> int:
    """Tokens that go where one more finds no place."""
    return max(1, int(block_size * DROPPED_SHARE))


@dataclass
class Step:
    """The tokens at one position."""

    token_ids: Tensor
    """(B,)"""
    is_new: Tensor
    """(B,) bool: whether each was made here, for a row that had not ended; else it was given, or
    fills the place behind a row's end."""
    logprobs: Tensor | None = None
    """Their log-probabilities by the model itself, in nats, where they are asked for: (B,)"""
    alternatives: tuple[Tensor, Tensor] | None = None
    """Log-probabilities and ids of the likeliest tokens there, (B, n), likeliest first."""


@torch.no_grad()
def decode(
    model: GPT2,
    token_ids: Tensor,
    lengths: Tensor,
    limits: Tensor,
    draws: Tensor,
    sampling: SamplingConfig,
    *,
    stop_token_ids: Collection[int] = (),
    beyond_context: BeyondContext = BeyondContext.slide,
    num_alternatives: int = 0,
    compiled: bool = False,
) -> Iterator[Step]:
    """A Step for each position from the end of the shortest prompt until every row has ended.

    A longer prompt's own tokens are kept where they stand, so that each row is continued from its
    own end; with its own draws, it gives what it gives alone.

    Args:
        token_ids: prompts (B, P), padded on the right, P <= block_size. This and the other tensors
            may be on any device.
        lengths: of the prompts, (B,), each at least 1.
        limits: the length at which each row ends, (B,).
        draws: a uniform number for each new token of each row, (B, n); see `uniforms`.
        stop_token_ids: a row ends with the first new one of these. In a prompt they stop nothing.
        beyond_context: where a text grows beyond the model's context, drop its oldest tokens, an
            eighth of the context at a time; or stop.
        num_alternatives: if not 0, steps have log-probabilities, and so many likeliest tokens.
        compiled: one graph for every position, as suits a GPU.
    """
    device = where_tokens_are_chosen(model.device)
    token_ids, lengths = token_ids.to(device), lengths.to(device)
    limits, draws = limits.to(device), draws.to(device)
    P = token_ids.shape[1]
    start, end = int(lengths.min()), int(limits.max())
    stops = torch.tensor(sorted(stop_token_ids), dtype=torch.long, device=token_ids.device)
    context = Context(model, max(end - 1, P), compiled)
    logits = context.begin(token_ids, start)
    seen = None
    if sampling.repetition_penalty != 1:
        own = torch.arange(P, device=token_ids.device) < lengths[:, None]
        seen = seen_tokens(token_ids, own, model.vocab_size)
    ended = limits <= lengths
    for index in range(start, end):
        # How many each row has made; before its beginning and behind its end any will do.
        count = (index - lengths).clamp(0, draws.shape[1] - 1)
        uniform = draws.gather(1, count[:, None]).squeeze(1)
        chosen = next_token(logits, sampling, uniform, seen)
        given = lengths > index
        if index < P:
            chosen = torch.where(given, token_ids[:, index], chosen)
        step = Step(chosen, ~(given | ended))
        if num_alternatives:
            logprobs = log_probabilities(logits)
            step.logprobs = logprobs.gather(1, chosen[:, None]).squeeze(1)
            step.alternatives = alternatives(logprobs, num_alternatives)
        yield step
        ended = ended | (~given & torch.isin(chosen, stops)) | (limits <= index + 1)
        if ended.all() or (context.is_full and beyond_context is BeyondContext.stop):
            return
        if seen is not None:
            seen.scatter_(1, chosen[:, None], True)
        logits = context.add(chosen)


def where_tokens_are_chosen(device: torch.device) -> torch.device:
    """The model's device; the CPU beside a GPU of Apple's, which has no fp64 for the draws."""
    return torch.device("cpu") if device.type == "mps" else device


class Context:
    """The last tokens of each row, which the model has before it: at most block_size.

    Args:
        length: the most tokens that a row will have, for the cache's size.
        compiled: one graph for every position. Its cache has every position there can be, so that
            it serves texts of all lengths.
    """

    def __init__(self, model: GPT2, length: int, compiled: bool) -> None:
        self.model = model
        self.block_size = model.config.block_size
        self.length = self.block_size if compiled else min(length, self.block_size)
        self.step = compiled_step() if compiled else eager_step
        self.position = 0
        """Where the next token goes."""

    @property
    def is_full(self) -> bool:
        return self.position == self.block_size

    def begin(self, token_ids: Tensor, length: int) -> Tensor:
        """Read prompts (B, P); logits (B, V) after the first `length` tokens of each.

        Those that stand behind are to be added again, one by one.
        """
        B, P = token_ids.shape
        self.token_ids = token_ids.new_zeros(B, self.block_size)
        self.token_ids[:, :P] = token_ids
        self.position = length
        is_same = B > 1 and bool((token_ids == token_ids[0]).all())  # samples of one prompt
        # Not around the whole loop, which waits for whoever takes its steps.
        with self.model.evaluating():
            rows = token_ids[:1] if is_same else token_ids
            hidden, cache = self.model.build_cache(rows.to(self.model.device), self.length)
        self.cache = cache.repeat_interleave(B, dim=2) if is_same else cache
        logits = self.model.head(hidden[:, length - 1]).expand(B, -1)
        return logits.to(token_ids.device)

    def add(self, token_ids: Tensor) -> Tensor:
        """A token behind each row, (B,), before which the oldest go if need be; logits (B, V)."""
        if self.is_full:
            # Positions change, and with them all keys and values: everything is read anew, for
            # which reason more than one token goes at a time.
            dropped = dropped_at_once(self.block_size)
            kept = torch.cat([self.token_ids[:, dropped:], token_ids[:, None]], dim=1)
            return self.begin(kept, kept.shape[1])
        self.token_ids[:, self.position] = token_ids
        self.position += 1
        own = token_ids[:, None].to(self.model.device)
        with self.model.evaluating():
            logits = self.step(self.model, own, self.cache, self.position - 1)
        return logits.to(token_ids.device)


def seen_tokens(token_ids: Tensor, own: Tensor, vocab_size: int) -> Tensor:
    """Which tokens are in each row, (B, V) bool, of those (B, T) that are its own, (B, T) bool."""
    counts = torch.zeros(len(token_ids), vocab_size, device=token_ids.device)
    return counts.scatter_add_(1, token_ids, own.float()) > 0


def generate_step(
    model: GPT2,
    inputs: Mapping[str, Tensor],
    stop_token_ids: Collection[int] | None = None,
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Fill rows of a fixed length from the end of each one's prompt, as KerasHub's does.

    Args:
        inputs: token_ids (B, T), each row a prompt of at least one token, padded on the right;
            padding_mask (B, T) bool, True where a prompt has a token.
        stop_token_ids: generation ends once each row has a new one of these; padding is none.
        sampling: None for greedy.
        seed: decides the draws, with the row's number.
    Returns:
        token_ids (B, T); padding_mask (B, T) bool, True up to and including each row's first new
        stop token, and everywhere where nothing stops.
    Raises:
        ValueError: for a row without a token, with padding before one, or longer than the context.
    """
    token_ids, padding_mask = inputs["token_ids"].clone(), inputs["padding_mask"].bool()
    B, T = token_ids.shape
    lengths = padding_mask.sum(1)
    if (padding_mask[:, 1:] & ~padding_mask[:, :-1]).any():
        raise ValueError("padding_mask: a row has padding before a token; pad on the right")
    start, longest = int(lengths.min()), int(lengths.max())
    if longest > model.config.block_size:
        raise ValueError(f"{longest} tokens; the model has {model.config.block_size} positions")
    if start < 1:
        raise ValueError("padding_mask: a row has no token; begin it with a start token")
    steps = decode(
        model,
        token_ids[:, :longest],
        lengths,
        limits=torch.full_like(lengths, T),
        draws=uniforms(seed, range(B), T),
        sampling=sampling or SamplingConfig(temperature=0),
        stop_token_ids=stop_token_ids or (),
    )
    for index, step in enumerate(steps, start):
        token_ids[:, index] = step.token_ids
    if not stop_token_ids:
        return {"token_ids": token_ids, "padding_mask": torch.ones_like(padding_mask)}
    stops = torch.tensor(sorted(stop_token_ids), device=token_ids.device)
    ends = torch.isin(token_ids, stops) & ~padding_mask
    behind = ends.cumsum(1) - ends.long() > 0
    return {"token_ids": token_ids, "padding_mask": ~behind}
