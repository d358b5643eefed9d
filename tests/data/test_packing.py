import numpy as np
import pytest

from gpt2lab.data.packing import one_a_row, pack


def rows(packing):
    return [part.tolist() for part in np.split(packing.members, packing.offsets[1:-1])]


def test_the_rows_of_the_description():
    assert rows(pack(np.array([3, 2, 5, 2]), 5)) == [[2], [0, 1], [3]]


def test_an_item_goes_where_it_leaves_the_least_room():
    # 6 and 5 leave 2 and 3 of 8; the 2 fills the first, the 1 goes beside the 5
    assert rows(pack(np.array([1, 2, 5, 6]), 8)) == [[3, 1], [2, 0]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_item_has_one_place_and_rows_are_no_longer_than_the_context(seed):
    lengths = np.random.default_rng(seed).integers(1, 65, size=1000)
    packing = pack(lengths, 64)
    assert sorted(packing.members.tolist()) == list(range(1000))
    filled = np.add.reduceat(lengths[packing.members], packing.offsets[:-1])
    assert filled.max() <= 64
    # Johnson 1973: best fit decreasing needs at most 11/9 of the best there is, and 4 rows
    assert len(filled) <= 11 / 9 * np.ceil(lengths.sum() / 64) + 4
    assert all((a == b).all() for a, b in zip(packing, pack(lengths, 64), strict=True))


def test_rows_are_taken_in_any_order():
    packing = pack(np.array([3, 2, 5, 2]), 5)
    items, row_of, number = packing.take(np.array([1, 2, 0, 1]))
    assert items.tolist() == [0, 1, 3, 2, 0, 1]
    assert row_of.tolist() == [0, 0, 1, 2, 3, 3]
    assert number.tolist() == [0, 1, 0, 0, 0, 1]


def test_one_a_row():
    assert rows(one_a_row(3)) == [[0], [1], [2]]
