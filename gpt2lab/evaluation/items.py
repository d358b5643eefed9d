"""What a model is asked: how likely is this after that?"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer]
"""Token ids, (T,)."""


class Item(NamedTuple):
    """A context, and one or several continuations of it, each to be scored."""

    context: Ids
    """At least one token, read and not scored."""
    continuations: Sequence[Ids]
    """At least one token each."""

    def longest(self) -> int:
        """Tokens of the longest continuation."""
        return max(map(len, self.continuations))

    def cost(self) -> int:
        """Tokens that must be read to score it: the context once, and of each continuation all but
        the last token, behind which nothing is asked."""
        return len(self.context) + sum(len(ids) - 1 for ids in self.continuations)


class Scores(NamedTuple):
    """Of one continuation, a number for each of its tokens."""

    nll: NDArray[np.float64]
    """Negative log-likelihood in nats, (T,)."""
    right: NDArray[np.bool_]
    """Whether it was the likeliest token, (T,)."""


def fitted(item: Item, block_size: int) -> Item:
    """The item with as much of its context's end as a model has positions for.

    All continuations keep the same context. There is room for one token of it at least, unless a
    continuation is longer than the model's context: see `too_long`.
    """
    room = max(1, block_size - item.longest() + 1)
    return item if len(item.context) <= room else Item(item.context[-room:], item.continuations)


def too_long(item: Item, block_size: int) -> bool:
    """Whether a continuation alone is more than the model can read."""
    return item.longest() > block_size


def fingerprint(items: Iterable[Item]) -> str:
    """A name for all ids of all items, in their order."""
    found = hashlib.sha256()
    for item in items:
        for ids in (item.context, *item.continuations):
            found.update(ids.astype("<u4").tobytes())
            found.update(b"|")
        found.update(b";")
    return found.hexdigest()
