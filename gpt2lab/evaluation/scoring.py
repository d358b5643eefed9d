"""Items to scores: in batches of alike length, a shared context read once.

What a batch holds changes no result but for rounding: rows are padded on the right, where causal
attention does not look. Logits exist for scored tokens alone, a chunk at a time (`loss.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.errors import RunError
from gpt2lab.evaluation.items import Ids, Item, Scores
from gpt2lab.loss import score_targets
from gpt2lab.progress import Progress

if TYPE_CHECKING:
    from gpt2lab.model import GPT2

WASTE = 0.04
"""Share of a batch that may be padding, or context that is read once a continuation because
another item's is shorter."""
FEW_TOKENS = 8
"""So few may always be wasted: a forward pass more costs 15 besides its own, for weights are read
once for all of its tokens (GPT-2 small in fp32 on a CPU: 30 ms, and 2 ms a token)."""


def score(model: "GPT2", items: Sequence[Item], batch_tokens: int) -> list[list[Scores]]:
    """The scores of each continuation of each item, in their order."""
    found = {
        i: scores for batch in score_batches(model, items, batch_tokens) for i, scores in batch
    }
    return [found[i] for i in range(len(items))]


def score_batches(
    model: "GPT2",
    items: Sequence[Item],
    batch_tokens: int,
    is_done: Callable[[list[int]], bool] = lambda batch: False,
) -> Iterator[list[tuple[int, list[Scores]]]]:
    """Each batch as it comes: its items, by number, with their scores. Shows how far it is.

    Args:
        is_done: whether a batch is to be left out. The others are those of an evaluation that
            starts afresh, so that its numbers come out bit for bit.
    Raises:
        RunError: if the model's numbers are not finite.
    """
    batches = plan(items, batch_tokens)
    position = sum(items[i].cost() for batch in batches if is_done(batch) for i in batch)
    progress = Progress(sum(item.cost() for item in items), position)
    try:
        for batch in batches:
            if is_done(batch):
                continue
            found = score_batch(model, [items[i] for i in batch], batch_tokens)
            if not all(np.isfinite(scores.nll).all() for of_item in found for scores in of_item):
                raise RunError(
                    "checkpoint: the model's log-likelihoods are NaN or infinite; take another one"
                )
            yield list(zip(batch, found, strict=True))
            tokens = sum(items[i].cost() for i in batch)
            position += tokens
            progress.add(position, tokens)
    finally:
        progress.close()


def plan(items: Sequence[Item], batch_tokens: int) -> list[list[int]]:
    """Which items, by number, are read together: longest first, at most batch_tokens with padding.

    A pure function of the items. One longer than batch_tokens is a batch by itself.
    """
    rows = [i for i, item in enumerate(items) if len(item.continuations) == 1]
    shared = [i for i, item in enumerate(items) if len(item.continuations) > 1]
    return [*_plan_rows(items, rows, batch_tokens), *_plan_shared(items, shared, batch_tokens)]


def _plan_rows(items: Sequence[Item], numbers: list[int], most: int) -> Iterator[list[int]]:
    numbers = sorted(numbers, key=lambda i: (-items[i].cost(), i))
    return _together(numbers, [items[i].cost() for i in numbers], 0, most)


def _plan_shared(items: Sequence[Item], numbers: list[int], most: int) -> Iterator[list[int]]:
    """By the length of contexts: what one has beyond the shortest is read with each continuation,
    instead of once."""
    batch: list[int] = []
    wasted = useful = rows = 0
    for i in sorted(numbers, key=lambda i: (-len(items[i].context), i)):
        item = items[i]
        if batch:
            first, last = items[batch[0]], items[batch[-1]]
            wasted += (len(last.context) - len(item.context)) * (rows - len(batch))
            padded_tokens = len(first.context) * (len(batch) + 1)
            if padded_tokens > most or wasted > allowed(useful + item.cost()):
                yield batch
                batch, wasted, useful, rows = [], 0, 0, 0
        batch.append(i)
        useful += item.cost()
        rows += len(item.continuations)
    if batch:
        yield batch


def allowed(useful: int) -> float:
    """Tokens that may be wasted in a batch of so many others."""
    return max(FEW_TOKENS, WASTE * useful)


def _together(
    numbers: Sequence[int], lengths: Sequence[int], before: int, most: int
) -> Iterator[list[int]]:
    """Rows, longest first, in batches that have little padding.

    Args:
        lengths: of the rows, in tokens that are read.
        before: tokens before each row, in a cache; they count towards `most`.
    """
    batch: list[int] = []
    longest = useful = 0
    for number, length in zip(numbers, lengths, strict=True):
        padded_tokens = longest * (len(batch) + 1)
        is_full = padded_tokens + before * (len(batch) + 1) > most
        wasted = padded_tokens - (useful + length)
        if batch and (is_full or wasted > allowed(useful + length)):
            yield batch
            batch, useful = [], 0
        longest = longest if batch else length
        batch.append(number)
        useful += length
    if batch:
        yield batch


@torch.inference_mode()
def score_batch(model: "GPT2", items: Sequence[Item], batch_tokens: int) -> list[list[Scores]]:
    """The scores of a batch of `plan`."""
    if len(items[0].continuations) == 1:
        return [[scores] for scores in _score_rows(model, items)]
    return _score_shared(model, items, batch_tokens)


def _score_rows(model: "GPT2", items: Sequence[Item]) -> list[Scores]:
    """Items of one continuation each."""
    rows = [np.concatenate([item.context, item.continuations[0]]) for item in items]
    starts = [len(item.context) - 1 for item in items]
    lengths = [len(item.continuations[0]) for item in items]
    inputs = padded([row[:-1] for row in rows], 0)
    targets = padded(
        [_hidden(row[1:], start) for row, start in zip(rows, starts, strict=True)], IGNORE
    )
    nll, right = model.scores(Batch(inputs, targets).to(model.device))
    return _cut(nll, right, starts, lengths)


def _hidden(targets: Ids, prefix: int) -> Ids:
    """Targets, the first so many of which do not count."""
    targets = targets.astype(np.int64)
    targets[:prefix] = IGNORE
    return targets


def _score_shared(model: "GPT2", items: Sequence[Item], batch_tokens: int) -> list[list[Scores]]:
    """Items of several continuations: each context is read once, into a cache.

    What a context has beyond the shortest is read with each continuation.
    """
    P = min(len(item.context) for item in items)
    contexts = padded([item.context[:P] for item in items], 0).to(model.device)
    hidden, cache = model.build_cache(contexts)
    last = hidden[:, -1:]  # (B, 1, C): the first continuation's token is predicted from here
    rows = [(b, ids) for b, item in enumerate(items) for ids in item.continuations]
    tails = [np.concatenate([items[b].context[P:], ids]) for b, ids in rows]
    starts = [len(items[b].context) - P for b, _ in rows]
    found: dict[int, Scores] = {}
    order = sorted(range(len(tails)), key=lambda r: (-len(tails[r]), r))
    lengths_read = [len(tails[r]) - 1 for r in order]
    for numbers in _together(order, lengths_read, P, batch_tokens):
        of_items = torch.tensor([rows[r][0] for r in numbers], device=model.device)
        inputs = padded([tails[r][:-1] for r in numbers], 0).to(model.device)  # (R, T)
        targets = padded([_hidden(tails[r], starts[r]) for r in numbers], IGNORE)  # (R, T + 1)
        read = _read_behind(model, inputs, cache, of_items)
        nll, right = score_targets(
            torch.cat([last[of_items], read], dim=1),
            model.transformer.wte.weight,
            targets.to(model.device),
            vocab_size=model.vocab_size,
        )
        lengths = [len(rows[r][1]) for r in numbers]
        found |= zip(numbers, _cut(nll, right, [starts[r] for r in numbers], lengths))  # noqa: B905
    every = iter(range(len(rows)))
    return [[found[next(every)] for _ in item.continuations] for item in items]


def _read_behind(model: "GPT2", inputs: Tensor, cache: Tensor, of_items: Tensor) -> Tensor:
    """Hidden states (R, T, C) of rows (R, T) that each follow an item's context in the cache."""
    R, T = inputs.shape
    P = cache.shape[4]
    if T == 0:
        return cache.new_zeros(R, 0, model.config.n_embd)
    longer = cache.new_empty(*cache.shape[:2], R, cache.shape[3], P + T, cache.shape[5])
    longer[:, :, :, :, :P] = cache[:, :, of_items]
    hidden: Tensor = model.transformer(inputs, cache=longer, cache_update_index=P)
    return hidden


def padded(rows: Sequence[Ids], value: int) -> Tensor:
    """Rows as one tensor (B, T) int64, filled up on the right."""
    result = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for b, row in enumerate(rows):
        result[b, : len(row)] = row
    return torch.from_numpy(result)


def _cut(nll: Tensor, right: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> list[Scores]:
    """Of each row (B, T) the scores of so many tokens from a start on."""
    nlls, rights = nll.double().cpu().numpy(), right.cpu().numpy()
    return [
        Scores(nlls[b, start : start + n].copy(), rights[b, start : start + n].copy())
        for b, (start, n) in enumerate(zip(starts, lengths, strict=True))
    ]
