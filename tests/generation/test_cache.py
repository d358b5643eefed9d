"""Reading a text piece by piece, with a cache, is reading it whole."""

import pytest
import torch

from gpt2lab import model as module
from gpt2lab.model import GPT2

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2]])


def spread(model: GPT2) -> GPT2:
    """Weights so large that logits differ in their first digit, not in their last."""
    for parameter in model.parameters():
        parameter.data *= 5
    return model


@pytest.fixture
def model(tiny_model) -> GPT2:
    return spread(tiny_model)


@torch.inference_mode()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("split", range(1, 11))
def test_every_split_of_a_text_gives_the_logits_of_the_whole(model, split, static):
    whole = model(IDS)
    hidden, cache = model.build_cache(IDS[:, :split], length=12)
    assert torch.allclose(model.head(hidden), whole[:, :split], atol=1e-5)
    index = torch.tensor([split]) if static else split
    logits, hidden, _ = model.call_with_cache(IDS[:, split:], cache, index)
    assert torch.allclose(logits, whole[:, split:], atol=1e-5)
    assert torch.allclose(hidden, model.transformer(IDS)[:, split:], atol=1e-5)
    assert torch.equal(logits.argmax(-1), whole[:, split:].argmax(-1))


@torch.inference_mode()
@pytest.mark.parametrize("static", [False, True])
def test_one_token_at_a_time_gives_the_logits_of_the_whole(model, static):
    whole = model(IDS)
    _, cache = model.build_cache(IDS[:, :1], length=12)
    for t in range(1, IDS.shape[1]):
        index = torch.tensor([t]) if static else t
        logits, _, cache = model.call_with_cache(IDS[:, t : t + 1], cache, index)
        assert torch.allclose(logits[:, 0], whole[:, t], atol=1e-5)


@torch.inference_mode()
def test_what_pads_a_prompt_is_forgotten_once_tokens_take_its_place(model):
    padded = IDS.clone()
    padded[:, 4:] = 0
    _, cache = model.build_cache(padded)
    logits, _, _ = model.call_with_cache(IDS[:, 4:], cache, 4)
    assert torch.allclose(logits, model(IDS)[:, 4:], atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("at_once", [1, 11, 30])
def test_prompts_read_some_rows_at_a_time_are_those_read_together(model, monkeypatch, at_once):
    ids = torch.cat([IDS, IDS.flip(0)])[:3]
    hidden, cache = model.build_cache(ids, length=12)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", at_once)
    in_parts, parts = model.build_cache(ids, length=12)
    assert torch.allclose(in_parts, hidden, atol=1e-5)
    assert torch.allclose(parts, cache, atol=1e-5)


@torch.inference_mode()
def test_a_token_in_bf16_looks_at_keys_and_values_in_fp32(model):
    model = model.bfloat16()
    whole = model(IDS).float()
    _, cache = model.build_cache(IDS[:, :10])
    assert cache.dtype is torch.float32
    _, cache = model.build_cache(IDS[:, :10], length=11)
    logits, hidden, _ = model.call_with_cache(IDS[:, 10:], cache, 10)
    assert hidden.dtype is torch.bfloat16
    # 8 significant bits, over two layers of large weights
    assert (logits[:, 0].float() - whole[:, 10]).norm() < 0.03 * whole[:, 10].norm()


def test_the_cache_has_a_place_for_each_layer_head_and_position(model):
    _, cache = model.build_cache(IDS, length=12)
    assert cache.shape == (2, 2, 2, 2, 12, 8)  # (n_layer, keys and values, B, H, S, D)
    assert not cache[:, :, :, :, 11].any()
    assert model.build_cache(IDS)[1].shape[4] == IDS.shape[1]


def test_the_cache_is_written_in_place(model):
    _, cache = model.build_cache(IDS[:, :4], length=12)
    before = cache.clone()
    same = model.call_with_cache(IDS[:, 4:5], cache, 4)[2]
    assert same is cache
    assert torch.equal(before[:, :, :, :, :4], cache[:, :, :, :, :4])
    assert cache[:, :, :, :, 4].all()


def test_tokens_beyond_the_cache_or_the_context_are_refused(model):
    _, cache = model.build_cache(IDS[:, :4], length=6)
    with pytest.raises(ValueError, match="7 tokens; the cache has 6 positions"):
        model.call_with_cache(IDS[:, 4:7], cache, 4)
    with pytest.raises(ValueError, match="13 tokens; the model has 12 positions"):
        model.build_cache(torch.zeros(1, 13, dtype=torch.long))
