"""micro_batch_size=auto: the largest that fits, found by trying."""

import pytest
import torch

from gpt2lab import ranks
from gpt2lab.batch import Batch
from gpt2lab.config import GPT2Config
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError, RunError
from gpt2lab.micro_batch import fits, largest_that_fits
from gpt2lab.model import GPT2

CPU = torch.device("cpu")


@pytest.mark.parametrize(("room", "found"), [(99, 12), (12, 12), (11, 6), (5, 4), (1, 1)])
def test_the_largest_divisor_that_fits_is_taken(room, found):
    tried = []

    def has_room(rows):
        tried.append(rows)
        return rows <= room

    assert largest_that_fits(12, has_room, CPU) == found
    assert tried == [1, *(rows for rows in (12, 6, 4, 3, 2) if rows >= found)]


def test_ranks_ask_each_other_by_their_devices(monkeypatch):
    """NCCL carries no tensor of a CPU."""
    gpu, asked = torch.device("cuda", 1), []

    def another_has_room_for_two(values, device):
        asked.append(device)
        return [max(*values, float(len(asked) == 2))]

    monkeypatch.setattr(ranks, "largest", another_has_room_for_two)
    assert largest_that_fits(4, lambda rows: True, gpu) == 2
    assert asked == [gpu, gpu, gpu]


def test_where_no_row_fits_the_error_says_what_to_do():
    with pytest.raises(RunError, match=r"micro_batch_size: not one sequence .* choose a smaller"):
        largest_that_fits(4, lambda rows: False, CPU)


def test_trying_leaves_no_gradient_and_does_not_touch_weights(monkeypatch):
    model = GPT2(GPT2Config(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.zeros(4, 4, dtype=torch.int64)
    rows_at_once = []
    loss = GPT2.loss

    def with_room_for_two(model, batch, *args):
        rows_at_once.append(len(batch.inputs))
        if len(batch.inputs) > 2:
            raise torch.OutOfMemoryError
        return loss(model, batch, *args)

    monkeypatch.setattr(GPT2, "loss", with_room_for_two)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    found = largest_that_fits(4, lambda rows: fits(model, Batch(ids, ids), rows, ()), CPU)
    assert (found, rows_at_once) == (2, [1, 1, 4, 2, 2])
    assert all(p.grad is None for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("room", "message", "said"),
    [
        (2, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", 2),
        (
            0,
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`",
            "cublasCreate",
        ),
        (2, "mat1 and mat2 shapes cannot be multiplied", "mat1"),
    ],
    ids=["no room", "does not work", "a fault"],
)
def test_cublas_without_room_is_no_fault_but_where_it_has_never_worked(
    monkeypatch, room, message, said
):
    model = GPT2(GPT2Config(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=5))
    loss, ids = GPT2.loss, torch.zeros(4, 4, dtype=torch.int64)

    def within(model, batch, *args):
        if len(batch.inputs) > room:
            raise RuntimeError(message)
        return loss(model, batch, *args)

    monkeypatch.setattr(GPT2, "loss", within)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)

    def choose():
        return largest_that_fits(4, lambda rows: fits(model, Batch(ids, ids), rows, ()), CPU)

    if isinstance(said, int):
        assert choose() == said
    else:
        with pytest.raises(RuntimeError, match=said):
            choose()


def test_what_leaves_nothing_to_spare_does_not_fit(monkeypatch):
    model = GPT2(GPT2Config(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=5))
    ids, empty = torch.zeros(1, 4, dtype=torch.int64), torch.empty

    def with_room_for_a_hundred(*size, dtype=None, **kwargs):
        if dtype is torch.uint8 and size[0] > 100:
            raise torch.OutOfMemoryError
        return empty(*size, dtype=dtype, **kwargs)

    monkeypatch.setattr(torch, "empty", with_room_for_a_hundred)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    assert fits(model, Batch(ids, ids), 1, (), spare=100)
    assert not fits(model, Batch(ids, ids), 1, (), spare=101)


def test_on_a_cpu_auto_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="micro_batch_size: auto tries what fits into the memory"):
        settings_from("train", ["trainer=cpu", "micro_batch_size=auto"])
