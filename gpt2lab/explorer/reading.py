"""A model that reads one text after another, each mostly a little longer than the last."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from gpt2lab.insight import Inside, attention
from gpt2lab.model import GPT2

KEPT = 2
"""Texts whose keys and values are kept: those of two windows of a browser."""


@dataclass
class Kept:
    """A text that was read."""

    token_ids: list[int]
    cache: Tensor
    """Keys and values, (n_layer, 2, 1, H, block_size, D)."""
    logits: Tensor
    """After its last token, (V,)."""


class Reader:
    """The logits after a text, for which only those tokens are read that are new.

    Keys and values of a token depend on the tokens before it alone: what a text has in common with
    one that is kept, up to the first difference, needs no reading. Safe to use from many threads.
    """

    def __init__(self, model: GPT2) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._kept: list[Kept] = []
        """The latest last."""
        self._inside: Inside | None = None

    @torch.no_grad()
    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """The model's own logits after tokens (T,), 1 <= T <= block_size: (V,) in fp32."""
        ids = list(token_ids)
        with self._lock:
            if self._kept and self._kept[-1].token_ids == ids:
                return self._kept[-1].logits
            cache, index = self._begun(ids)
            new = torch.tensor([ids[index:]], device=self.model.device)
            with self.model.evaluating():
                hidden = self.model.transformer(new, cache=cache, cache_update_index=index)
                logits = self.model.head(hidden[0, -1]).float()
            self._kept.append(Kept(ids, cache, logits))
            return logits

    def _begun(self, ids: list[int]) -> tuple[Tensor, int]:
        """A cache that holds the first tokens of a text, and how many: all but one at most."""
        if self._kept:
            best = max(self._kept, key=lambda kept: shared(kept.token_ids, ids))
            index = min(shared(best.token_ids, ids), len(ids) - 1)
            if len(self._kept) == KEPT or 2 * index >= len(best.token_ids):
                # Where another text begins, the oldest makes room.
                best = best if 2 * index >= len(best.token_ids) else self._kept[0]
                self._kept.remove(best)
                return best.cache, min(shared(best.token_ids, ids), len(ids) - 1)
        first = torch.tensor([ids[:1]], device=self.model.device)
        with self.model.evaluating():
            _, cache = self.model.build_cache(first, self.model.config.block_size)
        return cache, min(1, len(ids) - 1)

    def inside(self, token_ids: Sequence[int]) -> Inside:
        """What is computed of the tokens on the way, kept for the last text that was asked for."""
        with self._lock:
            if self._inside is None or self._inside.token_ids.tolist() != list(token_ids):
                self._inside = attention(self.model, token_ids)
            return self._inside


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
