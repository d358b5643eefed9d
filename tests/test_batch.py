import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.batch import IGNORE, Batch, mask_prefix


def test_a_prefix_of_three_hides_two_targets():
    targets = torch.tensor([[5, 6, 7, 8, 9]])
    expected = [[IGNORE, IGNORE, 7, 8, 9]]
    assert mask_prefix(targets, torch.tensor([3])).tolist() == expected


@given(
    st.integers(1, 9).flatmap(
        lambda T: st.tuples(st.just(T), st.lists(st.integers(0, T), min_size=1))
    )
)
def test_each_row_hides_its_prefix_less_one(case):
    T, prefixes = case
    targets = torch.arange(T).repeat(len(prefixes), 1)
    masked = mask_prefix(targets, torch.tensor(prefixes))
    for row, p in zip(masked.tolist(), prefixes, strict=True):
        hidden = max(p - 1, 0)
        assert row == [IGNORE] * hidden + list(range(hidden, T))


def test_masking_leaves_its_argument_alone():
    targets = torch.arange(4)[None]
    mask_prefix(targets, torch.tensor([4]))
    assert targets.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("prefix", [[-1], [6], [1, 1]])
def test_a_prefix_that_does_not_fit_is_refused(prefix):
    with pytest.raises(ValueError, match="prefix"):
        mask_prefix(torch.zeros(1, 5, dtype=torch.long), torch.tensor(prefix))


def test_micro_batches_hold_the_rows_in_order():
    batch = Batch(torch.arange(10).view(5, 2), torch.arange(10, 20).view(5, 2))
    parts = batch.split(2)
    assert [len(part.inputs) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)


def test_micro_batches_keep_their_documents():
    documents = torch.tensor([[0, 1], [0, 0], [1, 2]])
    parts = Batch(torch.zeros(3, 2), torch.zeros(3, 2), documents).split(2)
    assert [part.documents.tolist() for part in parts] == [[[0, 1], [0, 0]], [[1, 2]]]
    assert [part.documents for part in Batch(torch.zeros(3, 2), torch.zeros(3, 2)).split(2)] == [
        None,
        None,
    ]


def test_a_batch_moves_with_its_documents_or_without():
    batch = Batch(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    there = batch.with_counted().to(torch.device("meta"))
    assert [t.device.type for t in there] == ["meta"] * 4
    assert batch._replace(documents=None).to(torch.device("cpu")).documents is None


def test_only_targets_that_count_are_counted():
    batch = Batch(torch.zeros(2, 2), torch.tensor([[IGNORE, 1], [0, IGNORE]]))
    assert int(batch.num_counted()) == 2
    assert batch.with_counted().counted.tolist() == [1, 2]
