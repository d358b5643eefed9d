"""Windows score every token once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.evaluation.windows import started, windows


def test_windows_of_four_that_move_by_two():
    found = [(w.context.tolist(), w.continuations[0].tolist()) for w in windows(np.arange(8), 4, 2)]
    assert found == [([0], [1, 2, 3, 4]), ([2, 3, 4], [5, 6]), ([4, 5, 6], [7])]


def test_without_overlap_each_window_begins_where_the_last_one_counted_to():
    found = [(w.context.tolist(), w.continuations[0].tolist()) for w in windows(np.arange(8), 3, 3)]
    assert found == [([0], [1, 2, 3]), ([3], [4, 5, 6]), ([6], [7])]


@given(st.integers(0, 60), st.integers(1, 12), st.data())
def test_every_token_but_the_first_is_scored_once(length, context, data):
    stride = data.draw(st.integers(1, context))
    stream = np.arange(length)
    found = list(windows(stream, context, stride))
    assert [i for w in found for i in w.continuations[0]] == list(range(1, length))
    for number, window in enumerate(found):
        assert window.cost() <= context
        assert len(window.context) >= 1
        row = [*window.context, *window.continuations[0]]
        assert row == list(range(row[0], row[-1] + 1))  # nothing is skipped or read twice
        if number:
            assert len(window.continuations[0]) <= stride
    for window in found[:-1]:
        assert window.cost() == context
    assert sum(w.cost() for w in found) == length - 1 or stride < context or length == 0


def test_a_stream_of_one_token_has_nothing_to_score():
    assert not list(windows(np.arange(1), 4, 4))
    assert not list(windows(np.arange(0), 4, 4))


def test_a_start_token_lets_the_first_token_be_scored():
    (window,) = windows(started(np.array([5, 6], dtype=np.uint32), 50256), 4, 4)
    assert window.context.tolist() == [50256]
    assert window.continuations[0].tolist() == [5, 6]
    assert started(np.array([5, 6]), None).tolist() == [5, 6]
