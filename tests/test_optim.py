from copy import deepcopy

import pytest
import torch

from gpt2lab.config import (
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    MuonConfig,
    WSDConfig,
)
from gpt2lab.model import GPT2
from gpt2lab.optim import (
    OptimizerPair,
    build_optimizer,
    clip_gradients,
    gradient_norm,
    learning_rate_factor,
    set_learning_rate,
)


def step(model, optimizer):
    tokens = torch.arange(9)[None] % 11
    model(tokens).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def names_by_decay(model, optimizer):
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }


CONFIGS = [AdamWConfig(), AdamWConfig(base_width=4), MuonConfig()]


@pytest.mark.parametrize("config", CONFIGS, ids=["adamw", "scaled", "muon"])
def test_matrices_and_embeddings_decay_and_nothing_else(tiny_model, config):
    decays = names_by_decay(tiny_model, build_optimizer(tiny_model, config))
    assert decays.keys() == dict(tiny_model.named_parameters()).keys()
    for name, parameter in tiny_model.named_parameters():
        assert decays[name] == (config.weight_decay if parameter.dim() == 2 else 0.0), name


def test_muon_takes_the_matrices_of_the_blocks_only(tiny_model):
    pair = build_optimizer(tiny_model, MuonConfig())
    assert isinstance(pair, OptimizerPair)
    taken = {id(p) for group in pair.pair[0].param_groups for p in group["params"]}
    names = {name for name, p in tiny_model.named_parameters() if id(p) in taken}
    matrices = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"transformer.h.{i}.{m}.weight" for i in (0, 1) for m in matrices}


def test_by_base_width_matrices_of_the_blocks_learn_at_the_inverse_of_the_width(tiny_model):
    optimizer = build_optimizer(tiny_model, AdamWConfig(base_width=4))
    set_learning_rate(optimizer, 0.8)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    width = tiny_model.config.n_embd
    for name, parameter in tiny_model.named_parameters():
        is_hidden = ".h." in name and parameter.dim() == 2
        assert rates[id(parameter)] == pytest.approx(0.8 * 4 / width if is_hidden else 0.8), name


def test_at_the_width_that_the_rate_is_meant_for_nothing_changes(tiny_config):
    models = [GPT2(tiny_config) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, width in zip(models, (None, tiny_config.n_embd), strict=True):
        optimizer = build_optimizer(model, AdamWConfig(base_width=width))
        set_learning_rate(optimizer, 0.01)
        step(model, optimizer)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "config",
    [AdamWConfig(lr=0.01), AdamWConfig(lr=0.01, base_width=4), MuonConfig(lr=0.01)],
    ids=["adamw", "scaled", "muon"],
)
def test_a_saved_optimizer_goes_on_as_the_straight_one(tiny_config, config):
    models = [GPT2(tiny_config) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    straight = build_optimizer(models[0], config)
    step(models[0], straight)
    state = {k: v.clone() for k, v in models[0].state_dict().items()}
    saved = deepcopy(straight.state_dict())
    resumed = build_optimizer(models[1], config)
    models[1].load_state_dict(state)
    resumed.load_state_dict(saved)
    for model, optimizer in zip(models, (straight, resumed), strict=True):
        step(model, optimizer)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_parameter_moves_under_muon(tiny_model):
    before = {name: p.clone() for name, p in tiny_model.named_parameters()}
    step(tiny_model, build_optimizer(tiny_model, MuonConfig(lr=0.01)))
    still = [n for n, p in tiny_model.named_parameters() if torch.equal(p, before[n])]
    assert not still


def test_a_learning_rate_set_on_the_pair_reaches_both(tiny_model):
    pair = build_optimizer(tiny_model, MuonConfig())
    for group in pair.param_groups:
        group["lr"] = 0.0
    before = [p.clone() for p in tiny_model.parameters()]
    step(tiny_model, pair)
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ConstantConfig(), {0: 1, 50: 1, 100: 1}),
        (ConstantConfig(warmup_steps=4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 1}),
        (CosineConfig(final_lr_ratio=0.1), {0: 1, 50: 0.55, 100: 0.1, 1000: 0.1}),
        (CosineConfig(warmup_steps=20, final_lr_ratio=0), {19: 20 / 21, 20: 1, 60: 0.5, 100: 0}),
        (CosineConfig(decay_steps=50, final_lr_ratio=0), {25: 0.5, 50: 0, 80: 0}),
        (WSDConfig(decay_ratio=0.2), {0: 1, 80: 1, 90: 0.5, 100: 0}),
        (WSDConfig(warmup_steps=9, decay_ratio=1, final_lr_ratio=0.5), {9: 1, 100: 0.5}),
        (WSDConfig(decay_ratio=0.001), {0: 1, 99: 1, 100: 0}),  # less than half a step of decay
        (CosineConfig(warmup_steps=100, final_lr_ratio=0.1), {99: 100 / 101, 100: 0.1}),
    ],
)
def test_schedules_by_the_table(config, expected):
    found = {step: learning_rate_factor(step, config, max_steps=100) for step in expected}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("config", [CosineConfig(warmup_steps=10), WSDConfig(warmup_steps=10)])
def test_schedules_rise_then_never_rise_again(config):
    factors = [learning_rate_factor(step, config, 100) for step in range(120)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert max(factors) == 1


def test_gradients_are_scaled_down_to_the_bound_and_never_up():
    parameter = torch.nn.Parameter(torch.zeros(2))
    for largest, expected in ((1.0, [0.6, 0.8]), (10.0, [3.0, 4.0]), (None, [3.0, 4.0])):
        parameter.grad = torch.tensor([3.0, 4.0])
        norm = gradient_norm([parameter])
        assert norm.item() == pytest.approx(5.0)
        assert parameter.grad.tolist() == [3.0, 4.0]
        clip_gradients([parameter], norm.item(), largest)
        assert parameter.grad.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig()], ids=lambda c: c.kind)
def test_a_step_without_gradients_changes_nothing(tiny_model, config):
    optimizer = build_optimizer(tiny_model, config)
    for _ in range(2):  # with no state yet, and with the state of a step
        before = [p.clone() for p in tiny_model.parameters()]
        state = deepcopy(optimizer.state_dict())
        optimizer.step()
        after = optimizer.state_dict()
        assert after["state"].keys() == state["state"].keys()
        for number, values in state["state"].items():
            for name, value in values.items():
                assert torch.equal(after["state"][number][name], value)
        assert all(torch.equal(a, b) for a, b in zip(before, tiny_model.parameters(), strict=True))
        step(tiny_model, optimizer)
    assert not torch.equal(before[0], next(tiny_model.parameters()))
