from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab import loss as loss_module
from gpt2lab.batch import IGNORE
from gpt2lab.loss import prefix_masked_cross_entropy, score_targets


@pytest.fixture
def chunked(monkeypatch):
    """Take the chunked path whatever the size, in chunks and tiles that do not divide the rows."""
    monkeypatch.setattr(loss_module, "DENSE_LOGITS", 0)
    monkeypatch.setattr(loss_module, "CHUNK_ROWS", 5)
    monkeypatch.setattr(loss_module, "CPU_TILE_ROWS", 2)


def problem(dtype=torch.float64, rows=13, vocab=11, width=7, stored=16):
    hidden = torch.randn(rows, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(stored, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, vocab, (rows,))
    targets[::3] = IGNORE
    return hidden, weight, targets


def reference(hidden, weight, targets, vocab=11):
    return F.cross_entropy(F.linear(hidden, weight[:vocab]), targets, ignore_index=IGNORE)


@pytest.mark.parametrize("dense_logits", [0, 2**22])
def test_loss_and_gradients_are_those_of_torch(chunked, monkeypatch, dense_logits):
    monkeypatch.setattr(loss_module, "DENSE_LOGITS", dense_logits)
    hidden, weight, targets = problem()
    ours = prefix_masked_cross_entropy(hidden, weight, targets, vocab_size=11)
    theirs = reference(hidden, weight, targets)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, weight)),
        torch.autograd.grad(theirs, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_gradcheck_in_float64(chunked):
    hidden, weight, targets = problem(rows=7)
    assert torch.autograd.gradcheck(
        lambda h, w: prefix_masked_cross_entropy(h, w, targets, vocab_size=11), (hidden, weight)
    )


@pytest.mark.usefixtures("chunked")
def test_the_gradient_follows_the_loss_through_later_arithmetic():
    hidden, weight, targets = problem()
    once = torch.autograd.grad(
        prefix_masked_cross_entropy(hidden, weight, targets), (hidden, weight)
    )
    thrice = torch.autograd.grad(
        3 * prefix_masked_cross_entropy(hidden, weight, targets), (hidden, weight)
    )
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_the_backward_pass_can_run_twice(chunked):
    hidden, weight, targets = problem(dtype=torch.float32)
    value = prefix_masked_cross_entropy(hidden, weight, targets)
    first = torch.autograd.grad(value, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(2 * value, (hidden, weight))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(2 * a, b)


@pytest.mark.parametrize("dense_logits", [0, 2**22])
def test_a_batch_in_which_nothing_counts_gives_zero(chunked, monkeypatch, dense_logits):
    monkeypatch.setattr(loss_module, "DENSE_LOGITS", dense_logits)
    hidden, weight, targets = problem()
    value = prefix_masked_cross_entropy(hidden, weight, torch.full_like(targets, IGNORE))
    gradients = torch.autograd.grad(value, (hidden, weight))
    assert value == 0
    assert all(not gradient.any() for gradient in gradients)


def test_padding_rows_and_ignored_rows_get_no_gradient(chunked):
    hidden, weight, targets = problem()
    prefix_masked_cross_entropy(hidden, weight, targets, vocab_size=11).backward()
    assert not weight.grad[11:].any()
    assert not hidden.grad[targets == IGNORE].any()
    assert hidden.grad[targets != IGNORE].any(dim=1).all()


def test_autocast_computes_in_bf16_and_sums_in_fp32(chunked):
    hidden, weight, targets = problem(dtype=torch.float32, rows=64, width=32)
    with torch.autocast("cpu", torch.bfloat16):
        value = prefix_masked_cross_entropy(hidden, weight, targets, vocab_size=11)
    assert value.dtype == torch.float32
    expected = reference(hidden, weight, targets)
    # bf16 keeps 8 bits of each factor: 0.4 % of logits of size sqrt(32)
    torch.testing.assert_close(value, expected, rtol=0.01, atol=0.02)
    ours, theirs = (torch.autograd.grad(v, weight)[0] for v in (value, expected))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)], ids=["fp64", "fp32"]
)
@settings(deadline=None, max_examples=40)
@given(cuts=st.sets(st.integers(1, 12)), ignored=st.sets(st.integers(0, 12)), small=st.booleans())
def test_any_split_of_a_batch_gives_the_gradient_of_the_whole(
    dtype, tolerance, cuts, ignored, small
):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(13, 7, dtype=dtype, generator=generator, requires_grad=True)
    weight = torch.randn(11, 7, dtype=dtype, generator=generator, requires_grad=True)
    targets = torch.randint(0, 11, (13,), generator=generator)
    targets[list(ignored)] = IGNORE
    before = loss_module.DENSE_LOGITS
    loss_module.DENSE_LOGITS = before if small else 0
    try:
        whole = prefix_masked_cross_entropy(hidden, weight, targets)
        expected = torch.autograd.grad(whole, (hidden, weight))
        count = (targets != IGNORE).sum()
        edges = [0, *sorted(cuts), 13]
        parts = sum(
            prefix_masked_cross_entropy(hidden[a:b], weight, targets[a:b], num_counted=count)
            for a, b in pairwise(edges)
        )
        found = torch.autograd.grad(parts, (hidden, weight))
    finally:
        loss_module.DENSE_LOGITS = before
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [5, 20, 1600])
def test_the_heads_gradient_is_as_exact_of_many_chunks_as_of_one(chunked, rows):
    """Rows that are all alike: their gradients add up, and none cancels another's error."""
    hidden, weight, _ = problem(torch.float32)
    hidden, targets = hidden[:1].detach().expand(rows, -1), torch.full((rows,), 3)
    found, exact = (weight.detach().to(d).requires_grad_() for d in (torch.float32, torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        prefix_masked_cross_entropy(hidden, found, targets).backward()
    reference(hidden.double(), exact, targets, vocab=16).backward()
    # bf16 keeps 8 bits of logits, of their gradients and of a sum.
    assert (found.grad - exact.grad).norm() < 2**-6 * exact.grad.norm()


def test_dividing_each_part_by_its_own_count_would_be_wrong():
    hidden, weight, targets = problem(rows=4)
    targets = torch.tensor([1, IGNORE, IGNORE, 2])
    whole = prefix_masked_cross_entropy(hidden, weight, targets)
    halves = [
        prefix_masked_cross_entropy(hidden[i : i + 3], weight, targets[i : i + 3]) for i in (0, 3)
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)  # one each: equal counts agree
    targets = torch.tensor([1, 3, IGNORE, 2])
    whole = prefix_masked_cross_entropy(hidden, weight, targets)
    halves = [
        prefix_masked_cross_entropy(hidden[i : i + 3], weight, targets[i : i + 3]) for i in (0, 3)
    ]
    assert (sum(halves) / 2 - whole).abs().item() > 1e-3


def test_scores_are_the_losses_and_hits_of_each_position():
    hidden, weight, targets = problem(rows=12)
    hidden, targets = hidden.view(3, 4, 7), targets.view(3, 4)
    nll, right = score_targets(hidden, weight, targets, vocab_size=11)
    logits = F.linear(hidden, weight[:11])
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    torch.testing.assert_close(nll.flatten(), expected)
    hits = (logits.argmax(-1) == targets) | (targets == IGNORE)
    assert torch.equal(right, hits)
