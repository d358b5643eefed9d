"""A text that two models have read, cut into pieces at which both have ended a token.

The models' tokens need not be the same ones, nor begin at the same byte: between two places where
both have ended a token, both have predicted the same bytes.

    one model        Once| upon| a| time|
    another          On|ce u|pon a| time|
    pieces of both   Once upon a| time|
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt2lab.statistics import MOST_UNITS, joined_sums


class Reading(NamedTuple):
    """What one model made of a document, or of its beginning."""

    bounds: NDArray[np.int64]
    """Bytes of the document before each scored token, and behind the last, (n + 1,)."""
    nll: NDArray[np.float64]
    """Of each scored token, in nats, (n,)."""


class Pieces(NamedTuple):
    """Sums over pieces of text."""

    nll: NDArray[np.float64]
    """Nats of each of two models, (2, n)."""
    tokens: NDArray[np.int64]
    """Of each model, (2, n)."""
    num_bytes: NDArray[np.int64]
    """(n,)"""


def cut(readings: Sequence[Reading], contexts: Sequence[int] | None) -> Pieces:
    """The text that both models have scored, in pieces; none if there is no such text.

    Args:
        contexts: tokens of each model that a piece should have: in shorter ones they would read
            nearly what they read in the piece before. None for one piece, however long.
    """
    a, b = readings
    shared = np.intersect1d(a.bounds, b.bounds)
    if len(shared) < 2:
        return Pieces(np.zeros((2, 0)), np.zeros((2, 0), np.int64), np.zeros(0, np.int64))
    places = [np.searchsorted(reading.bounds, shared) for reading in readings]  # tokens before
    ends = np.array([0, len(shared) - 1])
    if contexts is not None:
        counts = [(places[k][-1] - places[k][0]) // contexts[k] for k in (0, 1)]
        k = int(np.argmin(counts))  # the model that sees more text at once
        wanted = places[k][0] + contexts[k] * np.arange(1, counts[k])
        ends = np.unique([*ends, *np.searchsorted(places[k], wanted)])
    sums = [np.concatenate([[0.0], np.cumsum(reading.nll)]) for reading in readings]
    return Pieces(
        np.diff([sums[k][places[k][ends]] for k in (0, 1)]),
        np.diff([places[k][ends] for k in (0, 1)]),
        np.diff(shared[ends]),
    )


def joined(pieces: Sequence[Pieces], most: int = MOST_UNITS) -> Pieces:
    """All pieces, neighbours of which are joined into at most so many units of alike many."""
    whole = (np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True))
    return Pieces(*(joined_sums(values, most) for values in whole))
