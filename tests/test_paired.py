"""Two models on the same units: which is better, if that can be told."""

import math

import numpy as np
import pytest

from gpt2lab.statistics import paired, paired_shares


def test_all_of_six_on_one_side_by_hand():
    # Of 64 ways to turn six signs, two have a sum as far from 0.
    found = paired([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1] * 6)
    assert found.difference.value == 3.5
    assert found.p == 2 / 64


def test_three_units_by_hand():
    # |sum| is 2 as they are, of 1 + 3 - 2; with signs turned: 6, 4, 0, 2 and the same negative.
    assert paired([1.0, 3.0, -2.0], [1] * 3).p == 6 / 8


def test_darwins_maize_by_hand():
    """Fisher 1935, section 21: of 2^15 ways 1,726 give a sum as far from 0; here 9,999 drawn."""
    inches_eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    found = paired(inches_eighths, [8] * 15)
    assert found.difference.value == pytest.approx(2.617, abs=1e-3)
    assert found.p == pytest.approx(1726 / 2**15, abs=0.007)  # 3 standard errors


def test_the_interval_holds_just_what_the_test_does_not_refute():
    rng = np.random.default_rng(1)
    for n in (8, 40):
        counts = rng.integers(1, 9, size=n)
        d = rng.normal(0.3, 1.0, size=n) * counts
        (_, low, high), _ = paired(d, counts)
        for end, outwards in ((low, -1), (high, 1)):
            inside, outside = end - outwards * 1e-6, end + outwards * 1e-6
            assert paired(d - inside * counts, counts).p > 0.05
            # What is drawn depends on the order of sizes, and so p is a little off for many units.
            assert paired(d - outside * counts, counts).p <= (0.05 if n == 8 else 0.06)


def test_the_interval_is_near_students_for_many_normal_units():
    d = np.random.default_rng(2).normal(0.1, 1.0, size=50)
    (value, low, high), _ = paired(d, np.ones(50))
    half = 2.0096 * d.std(ddof=1) / math.sqrt(50)  # of 49 degrees of freedom
    assert (low, high) == pytest.approx((value - half, value + half), abs=0.02)


@pytest.mark.parametrize("n", [7, 40])
def test_nothing_depends_on_the_units_order_nor_the_outcome_on_which_model_is_a(n):
    rng = np.random.default_rng(n)
    d, counts = rng.normal(0.2, 1.0, size=n), rng.integers(1, 9, size=n)
    found = paired(d, counts)
    mixed = rng.permutation(n)
    assert paired(d[mixed], counts[mixed]) == found
    (value, low, high), p = paired(-d, counts)
    assert (value, p) == (-found.difference.value, found.p)
    assert (-high, -low) == pytest.approx(found.difference[1:])


def test_p_is_uniform_where_there_is_no_difference():
    """Units of unequal length and heavy tails, of which only symmetry is asked."""
    rng = np.random.default_rng(3)
    counts = rng.integers(100, 1000, size=40)
    ps = np.array([paired(rng.standard_t(3, size=40) * counts, counts).p for _ in range(500)])
    for share in (0.05, 0.25, 0.5, 0.75):
        assert (ps <= share).mean() == pytest.approx(share, abs=3 * math.sqrt(share / 500))


def test_equal_models_have_no_difference_and_no_spread():
    assert paired([0.0] * 40, [5] * 40) == ((0.0, 0.0, 0.0), 1.0)
    assert paired([0.0] * 6, [5] * 6) == ((0.0, 0.0, 0.0), 1.0)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_than_six_units_show_nothing(n):
    found = paired([1.0] * n, [1] * n)
    assert found == ((1.0, None, None), 2 / 2**n)
    assert not found.is_shown


def test_the_count_of_the_other_unit_changes_no_p():
    """Nats per token and per byte are one question: only the scale differs."""
    rng = np.random.default_rng(4)
    d = rng.normal(0.3, 1.0, size=30)
    assert paired(d, np.full(30, 7)).p == paired(d, rng.integers(20, 40, size=30)).p


def right(both, only_a, only_b, neither):
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_questions_that_one_alone_has_right_decide_by_hand():
    # 1 of 10: 2 * (1 + 10) / 1024; Clopper and Pearson's interval of 9/10 is 0.5550 to 0.9975.
    (value, low, high), p = paired_shares(*right(50, 1, 9, 40))
    assert value == pytest.approx(0.08)
    assert p == pytest.approx(22 / 1024)
    assert (low, high) == pytest.approx((0.0110, 0.0995), abs=1e-4)


def test_shares_are_symmetric_and_equal_ones_differ_in_nothing():
    (value, low, high), p = paired_shares(*right(50, 9, 1, 40))
    assert (value, p) == (pytest.approx(-0.08), pytest.approx(22 / 1024))
    assert (low, high) == pytest.approx((-0.0995, -0.0110), abs=1e-4)
    assert paired_shares(*right(50, 0, 0, 50)) == ((0.0, 0.0, 0.0), 1.0)
    assert paired_shares(*right(50, 5, 5, 40)).p == 1
    assert paired_shares(*right(0, 0, 5, 1)) == ((5 / 6, None, None), pytest.approx(1 / 16))


def test_the_interval_of_shares_leaves_out_zero_just_where_p_is_small():
    for n in (6, 20, 61):
        for k in range(n + 1):
            (_, low, high), p = paired_shares(*right(5, n - k, k, 5))
            assert (low <= 0 <= high) == (p > 0.05), (n, k)


def test_thousands_of_questions_are_no_overflow():
    assert 0 < paired_shares(*right(0, 4000, 4300, 0)).p < 0.01
