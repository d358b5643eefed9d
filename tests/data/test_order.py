import math
import tracemalloc
from itertools import islice

import numpy as np
import pytest

from gpt2lab.data.order import EVALUATION, StepSampler, shuffled, step_rng, step_windows


def test_a_step_draws_the_same_numbers_whatever_came_before():
    first = step_rng(3, 7).integers(1000, size=5)
    step_rng(3, 6).integers(1000, size=99)
    assert (step_rng(3, 7).integers(1000, size=5) == first).all()


def test_the_numbers_are_the_same_on_every_machine():
    assert step_rng(0, 0).integers(1000, size=4).tolist() == [34, 11, 611, 241]
    assert step_rng(2**63 - 1, 10**12).integers(1000, size=2).tolist() == [455, 549]


def test_seeds_steps_and_streams_differ():
    draws = {
        tuple(step_rng(*key).integers(2**62, size=2).tolist())
        for key in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0, EVALUATION))
    }
    assert len(draws) == 5


def test_a_resume_is_an_integer():
    assert list(islice(StepSampler(0), 6))[4:] == list(islice(StepSampler(4), 2))


def whole_epoch(n: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return shuffled(np.arange(n), n, seed, epoch)


@pytest.mark.parametrize(
    "n", [1, 2, 3, 4, 5, 7, 8, 9, 10, 16, 17, 25, 31, 64, 97, 100, 101, 1024, 65_537, 10**6]
)
def test_every_item_has_one_place(n):
    for epoch in range(3):
        assert (np.sort(whole_epoch(n, epoch=epoch)) == np.arange(n)).all()


def test_a_place_does_not_depend_on_which_others_are_asked_for():
    order = whole_epoch(1000)
    assert shuffled(np.array([999, 3, 500]), 1000, 0, 0).tolist() == order[[999, 3, 500]].tolist()


def test_the_order_is_the_same_on_every_machine():
    assert shuffled(np.arange(4), 1000, 0, 0).tolist() == [494, 328, 968, 955]
    assert shuffled(np.arange(2), 10**10, 2**63 - 1, 10**9).tolist() == [2061618611, 3832491420]


def test_each_seed_and_epoch_has_an_order_of_its_own():
    orders = [whole_epoch(1000, *key) for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, order in enumerate(orders):
        for other in orders[:i]:
            # two random orders agree in one place on average, in ten with probability 1e-7
            assert (order == other).sum() < 10


@pytest.mark.parametrize("n", [1000, 12_345, 2**16])
def test_the_order_looks_random(n):
    order = whole_epoch(n)
    # A correlation of independent numbers has a standard deviation of 1/sqrt(n): five of them.
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 5 / np.sqrt(n)
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 5 / np.sqrt(n)
    # Neighbours are no fixed distance apart: distances are as various as in numpy's own shuffle.
    distances = len(np.unique(np.diff(order)))
    usual = len(np.unique(np.diff(np.random.default_rng(0).permutation(n))))
    assert distances == pytest.approx(usual, rel=0.05)


@pytest.mark.parametrize("n", [3, 4])
def test_every_order_of_a_few_items_occurs(n):
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(600):
        order = tuple(whole_epoch(n, epoch=epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == math.factorial(n)
    expected = 600 / len(counts)
    assert max(counts.values()) < expected + 6 * math.sqrt(expected)


@pytest.mark.parametrize("n", [10**9 + 7, 10**10, 2**62])
def test_billions_of_items_need_no_memory(n):
    positions = np.linspace(0, n - 1, 10_000).astype(np.int64).clip(0, n - 1)
    tracemalloc.start()
    order = shuffled(positions, n, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 <= order.min() < 0.01 * n
    assert 0.99 * n < order.max() < n
    assert len(np.unique(order)) == len(np.unique(positions))
    assert peak < 2_000_000  # some arrays of 10,000


@pytest.mark.parametrize(("batch_size", "n"), [(4, 10), (5, 10), (25, 10), (1, 3), (3, 1)])
def test_each_epoch_sees_every_window_once(batch_size, n):
    steps = 3 * n  # whole epochs
    seen = np.concatenate([step_windows(0, step, batch_size, n) for step in range(steps)])
    epochs = seen.reshape(-1, n)
    assert len(epochs) == 3 * batch_size
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()
    assert n < 3 or (epochs[0] != epochs[1]).any()


def test_the_batch_size_does_not_change_the_order_of_windows():
    small = np.concatenate([step_windows(7, step, 3, 10) for step in range(20)])
    large = np.concatenate([step_windows(7, step, 12, 10) for step in range(5)])
    assert small.tolist() == large.tolist()
