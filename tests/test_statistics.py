"""Means, and how far off they may be."""

import math

import numpy as np
import pytest

from gpt2lab.statistics import (
    few_interval,
    mean_interval,
    perplexity,
    share_interval,
    student_95,
    unlike,
)


def test_a_mean_and_its_interval_by_hand():
    value, low, high = mean_interval([1.0, 2.0, 3.0])
    error = math.sqrt(1.0 / 3)  # a variance of 1, three items
    assert value == 2
    assert (low, high) == pytest.approx((2 - 1.96 * error, 2 + 1.96 * error), abs=1e-4)


def test_equal_counts_give_the_plain_mean_of_their_shares():
    plain = mean_interval([1.0, 2.0, 4.0])
    assert mean_interval([10.0, 20.0, 40.0], [10, 10, 10]) == pytest.approx(plain)


def test_windows_of_equal_rate_leave_no_doubt():
    value, low, high = mean_interval([2.0, 4.0, 6.0], [1, 2, 3])
    assert value == low == high == 2


def test_one_item_says_nothing_of_the_spread():
    assert mean_interval([3.0], [2]) == (1.5, None, None)


def test_a_sum_of_many_small_numbers_behind_a_large_one_is_exact():
    assert mean_interval([1e16, *[1.0] * 100, -1e16]).value == pytest.approx(100 / 102, rel=1e-15)


def test_intervals_hold_the_true_value_as_often_as_they_say():
    """Of a ratio of sums: windows of unequal length, of which 19 in 20 intervals hold the rate."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        counts = rng.integers(50, 1000, size=100)
        sums = counts * rng.normal(3.0, 0.5, size=100)
        _, low, high = mean_interval(sums.tolist(), counts.tolist())
        held += low <= 3.0 <= high
    assert 920 <= held <= 970


def test_a_share_has_wilsons_interval():
    # 10 of 20, from the formula by hand
    value, low, high = share_interval([True] * 10 + [False] * 10)
    assert (value, low, high) == pytest.approx((0.5, 0.2993, 0.7007), abs=1e-4)
    assert share_interval([True] * 5).high == 1
    assert 0 < share_interval([True] * 5).low < 1
    assert share_interval([False] * 5)[:2] == (0, 0)


def test_perplexity_is_the_exponential_of_the_interval():
    found = mean_interval([1.0, 2.0]).map(perplexity)
    assert found.value == pytest.approx(math.exp(1.5))
    assert found.low < found.value < found.high
    assert mean_interval([1.0]).map(perplexity).low is None
    assert perplexity(1e6) < math.inf


def test_the_interval_of_a_few_is_students():
    # 2.776 standard errors of five values, by any table
    assert student_95(4) == pytest.approx(2.7764, abs=1e-4)
    assert student_95(1) == pytest.approx(12.7062, abs=1e-4)
    assert student_95(29) == pytest.approx(2.0452, abs=1e-4)
    error = math.sqrt(2.5 / 5)
    assert few_interval([1, 2, 3, 4, 5]) == pytest.approx(
        (3, 3 - 2.7764 * error, 3 + 2.7764 * error), abs=1e-3
    )
    assert few_interval([2.0]) == (2.0, None, None)


def test_two_samples_that_do_not_overlap_by_hand():
    # Of the 70 ways to part eight values, two set the means as far apart.
    assert unlike([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(2 / 70)
    assert unlike([1, 2], [1, 2]) == 1
    assert unlike(range(30), range(100, 130)) == pytest.approx(1 / 10_000)
