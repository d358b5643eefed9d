"""Beam search: of the continuations that are reached by keeping a few at every step, the best."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.generation.samplers import log_probabilities, repetition_penalty
from gpt2lab.model import GPT2


@dataclass
class Candidates:
    """Continuations by n tokens, best first."""

    sums: Tensor
    """Of their tokens' log-probabilities, (N,); -inf for one that only fills a place."""
    parents: Tensor
    """The beams that they continue, (N,)."""
    new_ids: Tensor
    """(N, n)"""

    def take(self, rows: Tensor) -> "Candidates":
        return Candidates(self.sums[rows], self.parents[rows], self.new_ids[rows])


Finished = list[tuple[Tensor, float]]
"""New ids (n,) and scores, best first."""


@torch.no_grad()
def beam_search(
    model: GPT2,
    token_ids: Tensor,
    max_new_tokens: int,
    num_beams: int,
    length_penalty: float = 1.0,
    stop_token_ids: Collection[int] = (),
    *,
    penalty: float = 1.0,
) -> tuple[Tensor, float]:
    """The best continuation of one prompt that a beam search finds, and its score.

    The score is the sum of the new tokens' log-probabilities / their number ** length_penalty, a
    stop token counted. As in transformers, which calls this early_stopping=False, the search ends
    once num_beams are finished and the best running one, scored at its present length, is no
    better than the worst of them. It ends at the model's context, too.

    Args:
        token_ids: the prompt, (T,), 1 <= T <= block_size.
        stop_token_ids: a continuation that takes one of them is finished.
        penalty: of repetition; acts on log-probabilities, whose probabilities then sum to less.
    Returns:
        (n,) new ids, a stop token at their end if they took one; the score.
    """
    with model.evaluating():
        T, K, V = len(token_ids), num_beams, model.vocab_size
        longest = min(max_new_tokens, model.config.block_size - T + 1)
        stops = torch.tensor(sorted(set(stop_token_ids)), dtype=torch.long, device=token_ids.device)
        hidden, cache = model.build_cache(token_ids[None], T + longest - 1)
        cache = cache.repeat_interleave(K, dim=2)  # (n_layer, 2, K, H, S, D)
        logits = model.head(hidden[:, -1]).expand(K, V)
        beams = _only_the_prompt(K, token_ids)
        finished: Finished = []
        for n in range(1, longest + 1):
            logprobs = log_probabilities(logits)  # (K, V)
            if penalty != 1:
                logprobs = repetition_penalty(logprobs, _seen(token_ids, beams.new_ids, V), penalty)
            # So many that K of them do not stop, even if each beam's likeliest tokens all do.
            candidates = _best(beams, logprobs, K * (1 + len(stops)))
            stopped = torch.isin(candidates.new_ids[:, -1], stops) | (n == longest)
            finished = _best_finished(finished, candidates, stopped, K, n**length_penalty)
            beams = candidates.take((~stopped).nonzero().flatten()[:K])
            if len(beams.sums) == 0:
                break  # at the last token, or where every token of the vocabulary stops
            if len(finished) == K and beams.sums[0].item() / n**length_penalty <= finished[-1][1]:
                break
            _reorder(cache[:, :, :, :, T : T + n - 1], beams.parents)
            logits = model.call_with_cache(beams.new_ids[:, -1:], cache, T + n - 1)[0][:, -1]
        return finished[0]


def _only_the_prompt(K: int, token_ids: Tensor) -> Candidates:
    """K beams without a new token: one that counts, and others that fill their places."""
    sums = torch.full((K,), -torch.inf, device=token_ids.device)
    sums[0] = 0
    return Candidates(sums, torch.arange(K, device=token_ids.device), token_ids.new_empty(K, 0))


def _seen(token_ids: Tensor, new_ids: Tensor, V: int) -> Tensor:
    """(K, V), True where a token is in the prompt or in the beam."""
    seen = torch.zeros(len(new_ids), V, dtype=torch.bool, device=token_ids.device)
    seen[:, token_ids] = True
    return seen.scatter_(1, new_ids, True)


def _best(beams: Candidates, logprobs: Tensor, number: int) -> Candidates:
    """The beams by one more token: those of the highest sums of log-probabilities."""
    sums = (beams.sums[:, None] + logprobs).flatten()  # (K * V,)
    sums, places = sums.topk(min(number, len(sums)))
    V = logprobs.shape[1]
    parents, ids = places // V, places % V
    return Candidates(sums, parents, torch.cat([beams.new_ids[parents], ids[:, None]], dim=1))


def _best_finished(
    finished: Finished, candidates: Candidates, stopped: Tensor, K: int, divisor: float
) -> Finished:
    """The K best of those finished before and of the first K candidates that stopped.

    Candidates behind the first K stand in for beams that stop; they are not finished themselves.
    """
    rows = zip(
        candidates.new_ids[:K], candidates.sums[:K].tolist(), stopped[:K].tolist(), strict=True
    )
    new = [(ids, total / divisor) for ids, total, has_stopped in rows if has_stopped]
    return sorted(finished + new, key=lambda scored: -scored[1])[:K]


def _reorder(cache: Tensor, parents: Tensor) -> None:
    """Give each beam the keys and values of its parent, in place.

    Args:
        cache: what follows the prompt, which is the same in all: (n_layer, 2, K, H, n, D).
    """
    if not torch.equal(parents, torch.arange(len(parents), device=parents.device)):
        for layer in cache:  # one at a time, so that the copy is small
            layer.copy_(layer.index_select(1, parents))
