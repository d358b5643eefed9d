"""How far off a mean may be, having been taken over so many items and no more."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

Z_95 = 1.959963984540054
"""Of the normal distribution, 95 % lies within so many standard deviations."""


class Interval(NamedTuple):
    """A value, and where 95 % of such intervals would hold the true one."""

    value: float
    low: float | None = None
    """None where too few items were seen to say."""
    high: float | None = None

    def map(self, rising: Callable[[float], float]) -> "Interval":
        """The interval of a rising function of the value, such as exp of a mean for perplexity."""
        return Interval(*(None if x is None else rising(x) for x in self))  # type: ignore[arg-type]


def mean_interval(sums: Sequence[float], counts: Sequence[float] | None = None) -> Interval:
    """sum(sums) / sum(counts), as nats per token over windows; counts None for a plain mean.

    The items are what varies: windows, documents or questions, taken to be drawn independently.
    The ratio's standard error is that of its first-order expansion (the delta method): with
    residuals r_i = sum_i - mean * count_i, it is sqrt(n / (n - 1) * sum r_i^2) / sum(counts), and
    the interval reaches 1.96 of them to each side. Neighbouring windows of one document resemble
    each other, which makes it somewhat too narrow: where there are many documents, take these.
    """
    n = len(sums)
    counts = [1.0] * n if counts is None else counts
    total = math.fsum(counts)
    mean = math.fsum(sums) / total
    if n < 2:
        return Interval(mean)
    squares = math.fsum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
    error = math.sqrt(n / (n - 1) * squares) / total
    return Interval(mean, mean - Z_95 * error, mean + Z_95 * error)


def share_interval(right: Sequence[bool]) -> Interval:
    """The share of items that are right, with Wilson's score interval (Wilson 1927).

    Unlike mean +- 1.96 standard errors it stays within 0..1, and has a width where all or none are
    right.
    """
    n = len(right)
    p = sum(right) / n
    spread = Z_95 / (1 + Z_95**2 / n) * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))
    centre = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    return Interval(p, max(0.0, centre - spread), min(1.0, centre + spread))


def perplexity(nats: float) -> float:
    """exp of a mean negative log-likelihood; a double ends at e^709."""
    return math.exp(min(nats, 700.0))
