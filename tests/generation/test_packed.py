"""Weights in other orders and formats make the same model, up to their rounding."""

import copy

import pytest
import torch
import torch.nn.functional as F

from gpt2lab.config import GPT2Config, Precision, Quantize
from gpt2lab.generation import packed as module
from gpt2lab.generation.packed import (
    Int8LinearOfFewRows,
    Int8LinearOfManyRows,
    PackedGPT2,
    ReorderedLinear,
    packed,
    rounded,
)
from gpt2lab.model import GPT2

CONFIG = GPT2Config(n_layer=2, n_head=2, n_embd=64, block_size=32, vocab_size=5000, dropout=0)
IDS = torch.randint(5000, (3, 20), generator=torch.Generator().manual_seed(0))
WAYS = [(Precision.bf16, None), (Precision.bf16, Quantize.int8), (Precision.fp32, Quantize.int8)]

needs_reordering = pytest.mark.skipif(
    not module.works(ReorderedLinear), reason="this processor or torch has no such operator"
)
INT8 = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            not module.works(kind), reason="this processor or torch has no such operator"
        ),
    )
    for kind in (Int8LinearOfFewRows, Int8LinearOfManyRows)
]


@pytest.fixture
def model() -> GPT2:
    return GPT2(CONFIG).eval()


@torch.no_grad()
@pytest.mark.parametrize(("precision", "quantize"), WAYS)
def test_logits_are_those_of_the_model_up_to_rounding(model, precision, quantize):
    expected = model(IDS)
    found = packed(model, precision, quantize)(IDS).float()
    assert found.shape == expected.shape == (3, 20, 5000)
    # 8 significant bits a product, of inputs and of weights, over a depth of two layers
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 0.03


@torch.no_grad()
@pytest.mark.parametrize(("precision", "quantize"), WAYS)
def test_a_cache_changes_nothing_but_the_order_of_sums(model, precision, quantize):
    model = packed(model, precision, quantize)
    whole = model(IDS).float()
    hidden, cache = model.build_cache(IDS[:, :7], 20)
    parts = [model.head(hidden)]
    parts += [model.call_with_cache(IDS[:, t : t + 1], cache, t)[0] for t in range(7, 20)]
    error = (torch.cat(parts, 1).float() - whole).norm() / whole.norm()
    assert error < 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", INT8)
def test_no_row_of_int8_depends_on_another(kind):
    weight, x = torch.randn(96, 64), torch.randn(8, 64)
    linear = kind(weight, torch.randn(96))
    together = linear(torch.cat([x, 1000 * x]))  # one scale for all would lose the small ones
    alone = torch.cat([linear(row[None]) for row in x])
    assert torch.equal(together[:8], alone)


@torch.no_grad()
@pytest.mark.parametrize("kind", INT8)
def test_int8_never_wraps_around_and_takes_zeros(kind):
    weight = torch.eye(64)
    linear = kind(weight, None)
    for x in (torch.zeros(1, 64), torch.full((1, 64), -3.0), torch.linspace(-5, 5, 6400)[None]):
        rows = x.view(-1, 64)
        scale = rows.abs().amax(1, keepdim=True)
        # half a step of 127, and the rounding of quotients and products in fp32
        assert ((linear(rows) - rows).abs() <= scale * (0.5 / 127 + 1e-5)).all()


def test_weights_are_rounded_to_the_nearest_of_255():
    weight = torch.tensor([[1.27, 0.004, -0.006], [0.0, 0.0, 0.0]])
    integers, scales = rounded(weight)
    assert integers.tolist() == [[127, 0, -1], [0, 0, 0]]
    assert scales[0] == pytest.approx(0.01)


@torch.no_grad()
@pytest.mark.parametrize(("precision", "quantize"), WAYS)
def test_weights_may_lie_in_memory_the_other_way_round(model, precision, quantize):
    turned = copy.deepcopy(model)
    for parameter in turned.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.T.contiguous().T
    expected = packed(model, precision, quantize)(IDS)
    assert torch.equal(packed(turned, precision, quantize)(IDS), expected)


@needs_reordering
@torch.no_grad()
def test_a_reordered_layer_equals_the_plain_one_in_bf16():
    layer = torch.nn.Linear(64, 96).bfloat16()
    x = torch.randn(5, 64).bfloat16()
    found = ReorderedLinear(layer.weight.detach(), layer.bias.detach())(x)
    assert torch.allclose(found, layer(x), atol=0.02)  # a last bit, by the order of sums


@needs_reordering
def test_the_weights_given_are_not_kept_beside_the_packed_ones(model):
    made = packed(model, Precision.bf16)
    assert isinstance(made, PackedGPT2)
    held = [value for layer in made.modules() for value in vars(layer).values()]
    tensors = [*made.parameters(), *(value for value in held if isinstance(value, torch.Tensor))]
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}  # those given are fp32
    assert not any(isinstance(layer, torch.nn.Linear) for layer in made.modules())


@pytest.mark.parametrize("quantize", [None, Quantize.int8])
def test_where_an_operator_does_not_work_a_plain_one_serves(model, monkeypatch, quantize):
    monkeypatch.setattr(module, "works", lambda kind: False)
    expected = model(IDS).detach()
    if quantize:
        with pytest.warns(UserWarning, match="quantize: int8 products do not work"):
            found = packed(model, Precision.bf16, quantize)
    else:
        found = packed(model, Precision.bf16, quantize)
    assert not isinstance(found, PackedGPT2)
    assert found.transformer.wte.weight.dtype is torch.bfloat16
    assert torch.allclose(found(IDS).float(), expected, atol=0.05)


class Plain(torch.nn.Module):
    """What is right, and no faster or slower than it should be."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x):
        return F.linear(x.float(), self.weight, self.bias)


class Wrong(Plain):
    def forward(self, x):
        return super().forward(x).clamp(-100, 100)  # as sums that overflow are clipped


class Slow(Plain):
    """Takes as long as `seconds_of` says."""


def seconds_of(layer, x):
    return 0.05 if isinstance(layer, Slow) else 0.001


class Missing(Plain):
    def forward(self, x):
        return torch.ops.gpt2lab.there_is_no_such_operator(x)


@pytest.mark.parametrize(
    ("kind", "expected"), [(Plain, True), (Wrong, False), (Slow, False), (Missing, False)]
)
def test_an_operator_is_taken_if_it_is_there_right_and_no_detour(monkeypatch, kind, expected):
    monkeypatch.setattr(module, "_seconds", seconds_of)  # no clock of a machine that may be busy
    assert module.works(kind) is expected


def test_a_layer_takes_as_long_as_at_its_best(monkeypatch):
    clock = iter([0, 9, 10, 12, 20, 21, 30, 33, 40, 48])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    assert module._seconds(torch.nn.Identity(), IDS) == 1


@pytest.mark.parametrize(
    ("rows", "tiles", "kind"),
    [
        (1, True, Int8LinearOfFewRows),
        (8, True, Int8LinearOfManyRows),
        (8, False, Int8LinearOfFewRows),
        (64, False, Int8LinearOfManyRows),
    ],
)
def test_the_layer_suits_the_number_of_rows_and_the_processor(monkeypatch, rows, tiles, kind):
    monkeypatch.setattr(module, "works", lambda kind: True)
    monkeypatch.setattr(module, "has_tiles", lambda: tiles)
    assert module.int8_linear(rows) is kind
    monkeypatch.setattr(module, "works", lambda tried: tried is not kind)
    assert module.int8_linear(rows) not in (kind, None)


def test_fp32_is_left_as_it_is(model):
    expected = model(IDS)
    found = packed(model, Precision.fp32)
    assert torch.equal(found(IDS), expected)
