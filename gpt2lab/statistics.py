"""How far off a mean may be, having been taken over so many items and no more; and whether two
models differ, by items that both have seen."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95 = 1.959963984540054
"""Of the normal distribution, 95 % lies within so many standard deviations."""
ALPHA_INVERSE = 20
"""A difference is shown where p <= 1 / 20, and an interval leaves out 1 in 20."""
FEWEST_UNITS = 6
"""Of fewer, all on one side, 1 in 16 at best is as far by chance: 2 of 2^5 ways to turn signs."""
EXACT_UNITS = 13
"""Up to so many, every way to turn their signs is counted; beyond, RANDOM_TURNS of them."""
RANDOM_TURNS = 9_999
MOST_UNITS = 50
"""Stretches of one text that are taken as independent. Neighbours resemble each other, long
stretches less so: were each window a unit, intervals would be too narrow (the method of batch
means; by Schmeiser 1982 more than 30 units make a test hardly any sharper)."""


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

    The items are what varies: documents, questions or stretches of a text (`joined_sums`), taken
    to be drawn independently.
    The ratio's standard error is that of its first-order expansion (the delta method): with
    residuals r_i = sum_i - mean * count_i, it is sqrt(n / (n - 1) * sum r_i^2) / sum(counts), and
    the interval reaches 1.96 of them to each side.
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


def few_interval(values: Sequence[float]) -> Interval:
    """The mean of a few values, such as a metric's over seeds, with Student's interval (1908).

    It supposes that they are drawn independently, from something like a normal distribution.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2 or not math.isfinite(mean):
        return Interval(mean)
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1) / n)
    reach = student_95(n - 1) * error
    return Interval(mean, mean - reach, mean + reach)


@lru_cache(maxsize=64)
def student_95(degrees: int) -> float:
    """Of Student's distribution, 95 % lies within so many standard errors."""
    low, high = 1.9, 12.8  # of infinitely many degrees, and of one
    for _ in range(50):
        middle = (low + high) / 2
        if _student_within(middle, degrees) < 0.95:
            low = middle
        else:
            high = middle
    return low


def _student_within(t: float, degrees: int) -> float:
    """The probability of -t..t (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    is_odd = degrees % 2
    term = math.cos(angle) if is_odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + is_odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    if not is_odd:
        return math.sin(angle) * total
    return (angle + math.sin(angle) * total) * 2 / math.pi


def unlike(a: Sequence[float], b: Sequence[float]) -> float:
    """How often chance alone sets two means as far apart, two-sided: p.

    If what a and b are measured of were equal, any of the values could as well be a's: p is the
    share of all ways to part them (Fisher and Pitman's test), or of RANDOM_TURNS and the one that
    is. Of three and three it is never below 1 in 10, of four and four 1 in 35.
    """
    values = np.array([*a, *b], np.float64)
    n, m = len(a), len(b)
    far = abs(values[:n].mean() - values[n:].mean())
    if math.comb(n + m, n) <= RANDOM_TURNS:
        ways = np.array(list(combinations(range(n + m), n)))
    else:
        shuffled = np.random.default_rng(0).permuted(
            np.tile(np.arange(n + m), (RANDOM_TURNS, 1)), axis=1
        )
        ways = np.concatenate([np.arange(n)[None], shuffled[:, :n]])
    of_a = values[ways].sum(axis=1)
    apart = abs(of_a / n - (values.sum() - of_a) / m)
    return float((apart >= far - 1e-12 * abs(values).sum()).mean())


def joined_sums(values: ArrayLike, most: int = MOST_UNITS) -> NDArray[Any]:
    """Sums over neighbours, at most so many and of alike many, along the last axis."""
    values = np.asarray(values)
    n = values.shape[-1]
    return np.add.reduceat(values, np.arange(min(n, most)) * n // min(n, most), axis=-1)


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


class Paired(NamedTuple):
    """The difference of two models, and how often chance alone makes one as large."""

    difference: Interval
    p: float
    """Two-sided."""

    @property
    def is_shown(self) -> bool:
        """Whether one of the two may be called better."""
        return self.p <= 1 / ALPHA_INVERSE


def paired(differences: ArrayLike, counts: ArrayLike) -> Paired:
    """sum(differences) / sum(counts), with its interval and p-value by turning signs.

    Each unit has the difference of what two models make of it, and a count, such as its tokens. If
    the models were equal, each difference could as well have the other sign: p is the share of all
    ways to turn signs that give a sum at least as far from 0 (Fisher 1935, section 21; with the
    random ones of Phipson and Smyth 2010, among which the signs as they are count as one). It
    supposes that units are independent, and that none leans to one side; nothing of their spread.

    The interval holds each x that the same test does not refute as the true difference, of d_i - x
    * count_i. Turning by signs s, with sums A of d_i and B of counts and A_s, B_s of them turned,
    x is refuted by s outside (A - A_s) / (B - B_s) to (A + A_s) / (B + B_s). So it leaves out 0
    exactly where p <= 0.05. Below FEWEST_UNITS no p is so small: the interval has no ends.

    Args:
        counts: above 0.
    """
    d, c = np.array(differences, np.float64), np.array(counts, np.float64)
    order = np.lexsort((d, c, abs(d)))  # so that no order of the units changes what chance draws
    d, c = d[order], c[order]
    turns = _turns(len(d))
    A, B = math.fsum(d), math.fsum(c)
    A_s, B_s = turns @ d, turns @ c
    rounding = 1e-12 * abs(d).sum()  # the same sum in another order is as far from 0
    p = float((abs(A_s) >= abs(A) - rounding).mean())
    is_all = abs(turns.sum(axis=1)) == len(d)  # none or every sign is turned: refutes nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        ends = np.stack([(A - A_s) / (B - B_s), (A + A_s) / (B + B_s)])
    low = np.sort(np.where(is_all, -np.inf, ends.min(axis=0)))[len(turns) // ALPHA_INVERSE]
    high = np.sort(np.where(is_all, np.inf, ends.max(axis=0)))[-1 - len(turns) // ALPHA_INVERSE]
    ends_known = (float(low), float(high)) if np.isfinite(low) else ()
    return Paired(Interval(A / B, *ends_known), p)


@lru_cache(maxsize=4)
def _turns(n: int) -> NDArray[np.float64]:
    """Signs (ways, n), the first of which turn nothing; always the same."""
    if n <= EXACT_UNITS:
        turned = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        turned = np.random.default_rng(0).integers(0, 2, size=(1 + RANDOM_TURNS, n))
        turned[0] = 0
    return np.where(turned, -1.0, 1.0)


def paired_shares(right_a: Sequence[bool], right_b: Sequence[bool]) -> Paired:
    """The share that b has right less the share of a, of the same questions (McNemar 1947, exact).

    Only questions that one of them alone has right tell them apart; if the models were equal, each
    would be b's with probability 1/2. The interval is that of Clopper and Pearson (1934) for this
    probability, taking the number of such questions as given: it leaves out 0 exactly where
    p <= 0.05, and has no ends where they are fewer than FEWEST_UNITS.
    """
    n = len(right_a)
    for_b = sum(b and not a for a, b in zip(right_a, right_b, strict=True))
    for_a = sum(a and not b for a, b in zip(right_a, right_b, strict=True))
    apart = for_a + for_b
    p = min(1.0, 2 * _at_least(max(for_a, for_b), apart, 0.5))
    value = (for_b - for_a) / n
    if apart == 0:
        return Paired(Interval(0.0, 0.0, 0.0), 1.0)
    if apart < FEWEST_UNITS:
        return Paired(Interval(value), p)
    low = _probability(for_b, apart)
    high = 1 - _probability(for_a, apart)
    return Paired(Interval(value, *((2 * end - 1) * apart / n for end in (low, high))), p)


def _at_least(k: int, n: int, p: float) -> float:
    """The probability that k or more of n happen, each with probability p, 0 < p < 1."""
    log_ways = math.lgamma(n + 1)
    return math.fsum(
        math.exp(
            log_ways
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log(p)
            + (n - i) * math.log1p(-p)
        )
        for i in range(k, n + 1)
    )


def _probability(k: int, n: int) -> float:
    """The p at which k or more of n have probability 0.025."""
    if k == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):  # halved to the end of a double's digits, nearly
        middle = (low + high) / 2
        if _at_least(k, n, middle) < 0.5 / ALPHA_INVERSE:
            low = middle
        else:
            high = middle
    return low
