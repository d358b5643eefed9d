"""From logits to a token: pure functions in which no row of a batch affects another.

Each one that takes logits (B, V) returns logits (B, V), -inf where a token is excluded, and never
writes into what it was given; `warped` applies all that are set. Their meaning and their order are
transformers'. A draw needs one uniform number a row, from `uniforms`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gpt2lab.config import SamplingConfig

COLDEST, HOTTEST = 1e-30, 1e30
"""Temperatures beyond which fp32 overflows."""


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Positive logits of tokens that were there are divided by the penalty, negative multiplied.

    CTRL paper, section 4.1, which divides both: that would make a negative one more likely.

    Args:
        seen: (B, V), True where a token is in the row, its prompt included.
    """
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, penalised, logits)


def temperature(logits: Tensor, t: float) -> Tensor:
    """Logits divided by t > 0: less than 1 sharpens the distribution, more flattens it."""
    # inf - inf would be no number, and long before, the likeliest token has all the probability,
    # or every token the same.
    return logits / min(max(t, COLDEST), HOTTEST)


def top_k(logits: Tensor, k: int) -> Tensor:
    """The k likeliest tokens are left, and those as likely as the last of them; k > V: all."""
    k = min(k, logits.shape[-1])
    least = logits.topk(k, sorted=False).values.amin(-1, keepdim=True)
    return logits.masked_fill(logits < least, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest likeliest tokens are left whose probability, of a softmax in fp32, reaches p.

    The token at which the sum crosses p is kept, as in transformers; some implementations drop it,
    so that what they leave has a probability below p. Of equally likely tokens at the crossing
    those with the highest ids are kept, as a stable sort leaves them in transformers.

    Probabilities 0.5, 0.3, 0.15, 0.05 and p = 0.6: the first two are left.
    """
    if p >= 1:
        return logits
    V = logits.shape[-1]
    ascending = _ascending(logits.float())
    # Each and all less likely: summed in fp64 on every device, then rounded to fp32 as 1 - p is.
    sums = ascending.softmax(-1).cumsum(-1, dtype=torch.float64).float()
    bound = torch.full_like(sums[:, :1], 1 - p)
    excluded = torch.searchsorted(sums, bound, right=True).clamp(max=V - 1)  # how many, (B, 1)
    least = ascending.gather(-1, excluded)
    drop = logits < least
    # Outside, and yet as likely as the crossing token: bf16 has many that are.
    surplus = excluded - torch.searchsorted(ascending, least)
    if surplus.any():
        equal = logits == least
        drop |= equal & (equal.cumsum(-1) <= surplus)
    return logits.masked_fill(drop, -torch.inf)


def _ascending(logits: Tensor) -> Tensor:
    """Each row's fp32 logits, sorted."""
    if logits.device.type != "cpu":
        return logits.sort(-1).values
    # numpy sorts with vector instructions: 50,257 numbers in 0.1 ms, where torch's topk takes 0.25
    # for the first 1,024 of them, and its sort 3
    return torch.from_numpy(np.sort(logits.detach().numpy(), axis=-1))


def min_p(logits: Tensor, p: float) -> Tensor:
    """Tokens are left whose probability is at least p times that of the likeliest."""
    probabilities = logits.float().softmax(-1)
    least = p * probabilities.amax(-1, keepdim=True)
    return logits.masked_fill(probabilities < least, -torch.inf)


def likeliest(logits: Tensor) -> Tensor:
    """The likeliest token alone is left, of equals the first; its logit becomes 0."""
    best = _likeliest_ids(logits)[:, None]
    return torch.full_like(logits, -torch.inf).scatter_(-1, best, 0.0)


def _likeliest_ids(logits: Tensor) -> Tensor:
    """(B,); of equals the first."""
    return logits.max(-1).indices  # on a CPU three times as fast as argmax


def warped(logits: Tensor, sampling: SamplingConfig, seen: Tensor | None = None) -> Tensor:
    """Logits in fp32 after all that is set, in order; those given themselves where nothing is.

    Args:
        seen: as in `repetition_penalty`; needed where one is set.
    """
    logits = _penalised(logits, sampling, seen)
    t = 1 if sampling.temperature is None else sampling.temperature
    if t == 0:
        return likeliest(logits)
    if t != 1:
        logits = temperature(logits, t)
    if sampling.top_k is not None:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = min_p(logits, sampling.min_p)
    return logits


def _penalised(logits: Tensor, sampling: SamplingConfig, seen: Tensor | None) -> Tensor:
    logits = logits.float()
    if sampling.repetition_penalty == 1:
        return logits
    assert seen is not None
    return repetition_penalty(logits, seen, sampling.repetition_penalty)


def distribution(logits: Tensor, sampling: SamplingConfig, seen: Tensor | None = None) -> Tensor:
    """Probabilities (B, V) in fp32 that the next token is drawn from."""
    return warped(logits, sampling, seen).softmax(-1)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The token of each row, (B,), at which the sum of probabilities passes the uniform number.

    A token of probability 0 is never drawn. Probabilities need not sum to 1; a row with
    NaN gives V - 1.

    Args:
        uniform: (B,) in [0, 1), in fp64: fp32 has too few numbers for rare tokens.
    """
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    if sums.device.type != "cpu":
        # A parallel scan adds in another order at each place: by a rounding, its sums may rise
        # where the probability is 0, or fall.
        sums = sums.masked_fill(probabilities == 0, 0).cummax(-1).values
    total = sums[:, -1:]
    # A number that was rounded to 1 would point beyond the last token.
    below = total.nextafter(torch.zeros_like(total))
    point = torch.minimum(uniform.to(sums)[:, None] * total, below)
    ids = torch.searchsorted(sums, point, right=True).squeeze(-1)
    return ids.clamp(max=probabilities.shape[-1] - 1)


def next_token(
    logits: Tensor, sampling: SamplingConfig, uniform: Tensor, seen: Tensor | None = None
) -> Tensor:
    """The next token of each row, (B,); at temperature 0 the likeliest, whatever `uniform` is."""
    if sampling.temperature == 0:
        return _likeliest_ids(_penalised(logits, sampling, seen))
    if len(logits) == 1 or logits.device.type != "cpu":
        return draw(distribution(logits, sampling, seen), uniform)
    # Row by row the buffers are small: they stay in the cache, and malloc keeps their pages.
    rows = [slice(row, row + 1) for row in range(len(logits))]
    return torch.cat(
        [
            next_token(logits[row], sampling, uniform[row], None if seen is None else seen[row])
            for row in rows
        ]
    )


def uniforms(seed: int, rows: Sequence[int], count: int) -> Tensor:
    """Numbers in [0, 1) for `count` draws of each row: (len(rows), count) in fp64.

    Those of row r depend on (seed, r) alone, and more of them begin with the same ones.
    """
    numbers = np.empty((len(rows), count))
    for row, out in zip(rows, numbers, strict=True):
        # A spawn key: [seed, row] as entropy would mix row 1 of seed 5 up with row 0 of another.
        stream = np.random.SeedSequence(seed, spawn_key=(row,))
        np.random.Generator(np.random.Philox(stream)).random(out=out)
    return torch.from_numpy(numbers)


def log_probabilities(logits: Tensor) -> Tensor:
    """The model's own log-probabilities in fp32, in nats, before anything is warped."""
    return logits.float().log_softmax(-1)


def alternatives(logprobs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n likeliest tokens of each row, likeliest first: log-probabilities and ids, (B, n)."""
    values, ids = logprobs.topk(min(n, logprobs.shape[-1]))
    return values, ids
