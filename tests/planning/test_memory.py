"""The bytes that a plan counts are those that autograd keeps and torch holds."""

import pytest
import torch

from gpt2lab.batch import Batch
from gpt2lab.model import GPT2
from gpt2lab.optim import build_optimizer
from gpt2lab.planning import memory
from gpt2lab.planning.memory import (
    ACTIVATIONS,
    COPIES,
    GRADIENTS,
    LOGITS,
    OPTIMIZER,
    RUNTIME,
    WEIGHTS,
    memory_of,
    moments_of,
)
from gpt2lab.planning.work import Work
from tests.planning.works import settings, work

# Widths, heads and lengths that no two tensors share by chance.
TINY = (
    "model.n_layer=3",
    "model.n_head=2",
    "model.n_embd=48",
    "model.block_size=20",
    "batch_size=5",
)
SHARED = (*TINY, "batch_size=8", "devices=4")


def batch_of(work: Work) -> Batch:
    ids = torch.randint(work.model.vocab_size, (work.rows, work.tokens))
    return Batch(ids, ids.clone(), torch.zeros_like(ids) if work.is_masked else None)


def kept(model: GPT2, work: Work, loss: bool) -> int:
    """Bytes of all storages that autograd keeps of a forward pass, but for weights and copies.

    Args:
        loss: those of the head and the loss too.
    """
    storages: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes = {tuple(p.shape) for p in model.transformer.h.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        is_copy = tensor.dtype is torch.bfloat16 and {tensor.shape, tensor.mT.shape} & sizes
        if storage.data_ptr() not in weights and not is_copy:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = batch_of(work)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=work.width == 2),
    ):
        if loss:
            held = model.loss(batch, torch.tensor(1))
        else:
            held = model.transformer(batch.inputs, documents=batch.documents)
        # What is saved would be freed, and its place taken, were the graph not held.
        assert held.grad_fn is not None
    return sum(storages.values())


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_activations_are_what_autograd_keeps(bf16, dropout, masked, again):
    words = [f"model.dropout={dropout}", f"model.activation_checkpointing={again}"]
    shape = work(*TINY, *words, bf16=bf16, on_gpu=False, is_masked=masked)
    model = GPT2(shape.model)
    assert memory.activation_bytes(shape) == kept(model, shape, loss=False)


@pytest.mark.parametrize("vocab_size", [4999, 50257])  # dense, chunked
@pytest.mark.parametrize("bf16", [True, False])
def test_of_the_loss_what_autograd_keeps(vocab_size, bf16):
    words = [*TINY, "model.dropout=0", f"model.vocab_size={vocab_size}"]
    shape = work(*words, bf16=bf16, on_gpu=False)
    model = GPT2(shape.model)
    found = kept(model, shape, loss=True) - kept(model, shape, loss=False)
    # Besides: the loss's weight, its divisor, the targets.
    assert found - memory.loss_saved(shape) in range(16 + 8 * 5 * 20)


def test_weights_gradients_and_averages_are_those_of_the_tensors():
    shape = work(*TINY, bf16=True)
    model = GPT2(shape.model)
    expected = sum(p.nbytes for p in model.parameters())
    parts = moments_of(shape)["the update"]
    assert parts[WEIGHTS] == parts[GRADIENTS] == expected
    assert parts[OPTIMIZER] == 2 * expected
    norms = sum(p.nbytes for name, p in model.transformer.h.named_parameters() if "ln_" in name)
    blocks = sum(p.nbytes for p in model.transformer.h.parameters())
    assert parts[COPIES] == (blocks - norms) / 2  # 2 bytes of 4


@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_the_optimizer_holds_what_is_counted(optim):
    words = [*TINY, f"optim={optim}"]
    shape = work(*words)
    model = GPT2(shape.model)
    optimizer = build_optimizer(model, settings(*words).optim)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    assert memory.optimizer_bytes(shape) == sum(t.nbytes for t in state if t.dim() > 0)


def test_gpt2_small_by_hand():
    shape = work("model=small", "batch_size=1", "model.dropout=0")
    stored = 4 * (124_439_808 + 47 * 768)  # 47 surplus rows of the vocabulary
    parts = moments_of(shape)["the update"]
    assert (parts[WEIGHTS], parts[OPTIMIZER]) == (stored, 2 * stored)
    # 36 bytes a number of the stream, two pairs of statistics and a logarithm a head.
    assert memory.block_saved(shape) == 1024 * (36 * 768 + 16 + 4 * 12)


def test_the_parts_add_up_to_the_peak_and_the_rest_comes_on_top():
    shape = work(*TINY)
    found = memory_of(shape, lambda tensors: 1000 + tensors)
    assert found.peak == sum(found.at_peak.values())
    assert found.at_peak[RUNTIME] == 1000 + found.peak // 2 - 500
    assert all(found.most[part] >= size for part, size in found.at_peak.items())


def test_gradients_are_kept_from_one_micro_batch_to_the_next():
    once = moments_of(work(*TINY, "batch_size=4"))["the loss"]
    twice = moments_of(work(*TINY, "batch_size=4", "micro_batch_size=2"))["the loss"]
    assert (once[GRADIENTS], twice[GRADIENTS]) == (0, twice[WEIGHTS])
    assert twice[ACTIVATIONS] < once[ACTIVATIONS]


def test_gradients_that_add_up_are_held_beside_ddps_buckets():
    words = [*TINY, "batch_size=8", "devices=2"]
    once = moments_of(work(*words))["the loss"]
    twice = moments_of(work(*words, "micro_batch_size=2"))["the loss"]
    assert (once[GRADIENTS], twice[GRADIENTS]) == (once[WEIGHTS], 2 * once[WEIGHTS])
    assert moments_of(work(*words, "micro_batch_size=2"))["the update"][GRADIENTS] == once[WEIGHTS]


def test_fsdp_divides_what_is_stored_and_holds_whole_what_is_computed():
    whole, shape = work(*SHARED), work(*SHARED, "strategy=fsdp")
    stored, numbers = moments_of(whole)["the update"], shape.parameters
    update, loss = moments_of(shape)["the update"], moments_of(shape)["the loss"]
    for part in (WEIGHTS, GRADIENTS, OPTIMIZER):
        assert update[part] == pytest.approx(stored[part] / 4, abs=4)
    norms = 3 * 4 * 48  # of each block two, weight and bias
    in_fp32 = 4 * (numbers.embedding + numbers.rest + norms)
    in_bf16 = 2 * 2 * numbers.block_products  # of two blocks
    assert loss[WEIGHTS] == update[WEIGHTS] + in_fp32 + in_bf16
    assert (loss[GRADIENTS], loss[COPIES]) == (0, 0)


def test_fsdp_adds_up_whole_gradients_on_each_device():
    whole = 4 * work(*SHARED).parameters.all
    parts = moments_of(work(*SHARED, "micro_batch_size=1", "strategy=fsdp"))
    assert parts["the loss"][GRADIENTS] == whole
    assert parts["the update"][GRADIENTS] == pytest.approx(whole / 4, abs=4)


def test_blocks_that_are_kept_between_the_passes_are_all_whole():
    words = [*SHARED, "strategy=fsdp"]
    once, kept = (
        moments_of(work(*words, f"strategy.reshard_after_forward={again}"))["the loss"][WEIGHTS]
        for again in ("true", "false")
    )
    assert kept - once == 2 * work(*words).parameters.block_products  # the third block


def test_without_a_copy_for_products_there_is_none_in_fp32():
    assert moments_of(work(*TINY, bf16=False))["the update"][COPIES] == 0


def test_logits_never_exist_whole_where_they_would_be_large():
    rows = [memory.logits_bytes(work("model=small", f"batch_size={n}")) for n in (8, 16)]
    whole = 4 * 8 * 1024 * 50304
    assert rows[1] - rows[0] < whole / 20
    assert moments_of(work("model=small", "batch_size=8"))["the loss"][LOGITS] == rows[0]
