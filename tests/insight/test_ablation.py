"""The loss without a head, beside one that is computed by hand."""

import pytest
import torch

import gpt2lab.insight.ablation
from gpt2lab.batch import IGNORE, Batch
from gpt2lab.insight import ablation_costs, attention, shifted

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])


@torch.no_grad()
def loss_without(model, layer, head, zero, targets):
    """By the whole model, its values' part of c_attn or c_proj's inputs changed by hand."""
    D = model.config.n_embd // model.config.n_head

    def replace(module, inputs):
        y = inputs[0].clone()
        own = y[..., head * D : (head + 1) * D]
        own[:] = 0 if zero else own.mean(1, keepdim=True)
        return (y,)

    hook = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace)
    loss = model.loss(Batch(TOKENS[None], targets[None]))
    hook.remove()
    return loss


@pytest.fixture
def model(tiny_model):
    for parameter in tiny_model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return tiny_model


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_each_cost_is_the_loss_without_the_head_less_the_loss_with_it(model, how):
    targets = shifted(TOKENS)
    costs = ablation_costs(model, attention(model, TOKENS), how)
    whole = model.loss(Batch(TOKENS[None], targets[None]))
    for layer in range(2):
        for head in range(2):
            expected = loss_without(model, layer, head, how == "zero", targets) - whole
            torch.testing.assert_close(costs[layer, head], expected, atol=1e-5, rtol=0)
    assert costs.unique().numel() == 4


def test_only_targets_that_count_do(model):
    targets = shifted(TOKENS)
    targets[:5] = IGNORE
    costs = ablation_costs(model, attention(model, TOKENS), "zero", targets)
    whole = model.loss(Batch(TOKENS[None], targets[None]))
    expected = loss_without(model, 1, 0, True, targets) - whole
    torch.testing.assert_close(costs[1, 0], expected, atol=1e-5, rtol=0)


def test_how_many_are_computed_at_once_changes_nothing(model, monkeypatch):
    inside = attention(model, TOKENS)
    together = ablation_costs(model, inside)
    monkeypatch.setattr(gpt2lab.insight.ablation, "TOKENS_AT_ONCE", 1)
    torch.testing.assert_close(ablation_costs(model, inside), together, atol=1e-6, rtol=1e-5)


def test_without_a_target_there_is_no_cost(model):
    assert ablation_costs(model, attention(model, [3])).isnan().all()


def test_a_head_whose_output_reaches_nothing_costs_nothing(model):
    D = model.config.n_embd // model.config.n_head
    with torch.no_grad():
        model.transformer.h[1].attn.c_proj.weight[:, :D] = 0
    costs = ablation_costs(model, attention(model, TOKENS), "zero")
    assert costs[1, 0].abs() < 1e-6
    assert costs[1, 1].abs() > 1e-4
    assert model.training is False
    assert not any(m._forward_pre_hooks for m in model.modules())
