"""Which samples a step sees: a pure function of (seed, step).

Nothing here has a state, so workers, ranks, accumulation and resumes cannot change the order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

# Streams of random numbers that must not meet: one a purpose.
TRAIN, EVALUATION, SHUFFLE, SHIFT = 0, 1, 2, 3

# Patarin (2004): six rounds of a Feistel network withstand all known attacks up to the square root
# of its domain; an order that merely has to look random asks for less.
FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class Share:
    """One of several equal parts in a row: the second of two takes the last half."""

    number: int
    count: int

    def of(self, n: int) -> slice:
        """Its part of n things; parts differ by one where they cannot be equal."""
        return slice(n * self.number // self.count, n * (self.number + 1) // self.count)


ALL = Share(0, 1)


def step_rng(seed: int, step: int, stream: int = TRAIN) -> np.random.Generator:
    """A generator of its own for each (seed, step, stream), the same on every machine.

    Philox is a counter-based generator (Salmon et al. 2011): its key is (seed, stream), and each
    step starts at a counter of its own, 2**128 numbers away from the next.
    """
    counter = np.array([0, 0, step, 0], dtype=np.uint64)
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer (Steele et al. 2014): a bijection in which every bit moves every bit.

    In wrapping 64-bit arithmetic, so the same on every machine.
    """
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def shuffled(positions: NDArray[np.int64], n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where each of these positions of an epoch lies among n items shuffled for that epoch.

    A bijection of range(n) that needs no array of n: a number is taken as a pair of digits
    (left, right), and each digit in turn is turned by a keyed hash of the other. Such a network
    permutes width * height >= n pairs; a result beyond n is put through again until it is within,
    which keeps it a bijection (generalised Feistel and cycle walking: Black & Rogaway 2002, Ciphers
    with Arbitrary Finite Domains). Fewer than one in sqrt(n) is put through again.

    Args:
        positions: each 0..n-1, in any order.
        n: number of items, at most 2**62.
    """
    keys = _round_keys(seed, epoch)
    width = math.isqrt(n - 1) + 1
    sizes = np.uint64(width), np.uint64(-(-n // width))
    found = _permuted(positions.astype(np.uint64), sizes, keys)
    while (beyond := found >= np.uint64(n)).any():
        found[beyond] = _permuted(found[beyond], sizes, keys)
    return found.astype(np.int64)


@lru_cache(maxsize=8)
def _round_keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    raw = step_rng(seed, epoch, SHUFFLE).bit_generator.random_raw(FEISTEL_ROUNDS)
    return tuple(raw.astype(np.uint64))


def _permuted(
    values: NDArray[np.uint64], sizes: tuple[np.uint64, np.uint64], keys: tuple[np.uint64, ...]
) -> NDArray[np.uint64]:
    """One pass through the network, a permutation of range(sizes[0] * sizes[1])."""
    half, other = values % sizes[0], values // sizes[0]
    size, other_size = sizes
    for key in keys:
        # 32 bits of the hash: with a half below 2**32 the sum cannot wrap, so the turn is a turn.
        turn = splitmix64(other ^ key) >> np.uint64(32)
        half, other = other, (half + turn) % size
        size, other_size = other_size, size
    return half + sizes[0] * other


def step_windows(
    seed: int, step: int, batch_size: int, num_windows: int, share: Share = ALL
) -> NDArray[np.int64]:
    """The windows that a step sees, (batch_size,): the next ones of endless shuffled epochs.

    Epochs follow one another without a gap, each with an order of its own, so a step may see the
    end of one and the start of the next, and every window is seen exactly once an epoch.

    Args:
        share: which of them; the others are not even counted out.
    """
    parts = step_epochs(seed, step, batch_size, num_windows, num_windows, share)
    return np.concatenate([windows for _, windows in parts])


def step_epochs(
    seed: int, step: int, batch_size: int, num_first: int, num_later: int, share: Share = ALL
) -> list[tuple[int, NDArray[np.int64]]]:
    """The same, each epoch's windows apart, where the first epoch has another number of them."""
    rows = share.of(batch_size)
    begin, end = step * batch_size + rows.start, step * batch_size + rows.stop
    parts = []
    epoch = 0 if begin < num_first else 1 + (begin - num_first) // num_later
    while begin < end:
        start = num_first + (epoch - 1) * num_later if epoch else 0
        size = num_later if epoch else num_first
        positions = np.arange(begin, min(end, start + size)) - start
        parts.append((epoch, shuffled(positions, size, seed, epoch)))
        begin += len(positions)
        epoch += 1
    return parts


def epoch_shift(seed: int, epoch: int, size: int) -> int:
    """By how many tokens an epoch's windows are moved, 0..size-1; the first epoch's are not."""
    return int(step_rng(seed, epoch, SHIFT).integers(size)) if epoch else 0


class StepSampler(Sampler[int]):
    """The steps from `start` on, without an end: training stops by itself."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        step = self.start
        while True:
            yield step
            step += 1
