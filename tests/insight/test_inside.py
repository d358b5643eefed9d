"""What the one pass finds, beside what the model itself and transformers compute."""

import pytest
import torch

from gpt2lab.backends import compile_blocks
from gpt2lab.batch import IGNORE
from gpt2lab.config import GPT2Config, Precision, Quantize
from gpt2lab.errors import DataError
from gpt2lab.generation.packed import packed
from gpt2lab.insight import ablation_costs, attention, shifted
from gpt2lab.model import GPT2

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # sums in another order, in fp32


@pytest.fixture(params=[(2, 2, 16), (3, 4, 32), (1, 1, 8)], ids=str)
def model(request) -> GPT2:
    n_layer, n_head, n_embd = request.param
    config = GPT2Config(n_layer, n_head, n_embd, block_size=12, vocab_size=11, dropout=0.1)
    model = GPT2(config).eval()
    for parameter in model.parameters():  # as large as trained ones: nothing is near uniform
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_shapes(model):
    inside = attention(model, TOKENS)
    (L, H, C), T = (model.config.n_layer, model.config.n_head, model.config.n_embd), len(TOKENS)
    assert inside.weights.shape == (L, H, T, T)
    for found in (inside.q, inside.k, inside.v):
        assert found.shape == (L, H, T, C // H)
    assert inside.streams.shape == (2 * L + 1, T, C)
    assert inside.after_layers().shape == (L + 1, T, C)
    assert inside.logits.shape == (T, 11)


def test_rows_sum_to_one_and_are_causal(model):
    weights = attention(model, TOKENS).weights
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), **CLOSE)
    assert torch.equal(weights, weights.tril())
    assert (weights >= 0).all()


@torch.no_grad()
def test_weights_times_values_are_what_the_fast_path_hands_to_c_proj(model):
    seen = []
    for block in model.transformer.h:
        block.attn.c_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    inside = attention(model, TOKENS)
    found = (inside.weights @ inside.v).transpose(1, 2).flatten(-2)  # (L, T, C)
    torch.testing.assert_close(found, torch.cat(seen), **CLOSE)


@torch.no_grad()
def test_the_last_stream_leads_to_the_models_logits(model):
    inside = attention(model, TOKENS)
    torch.testing.assert_close(inside.logits, model(TOKENS[None])[0], rtol=0, atol=0)
    found = model.head(model.transformer.ln_f(inside.streams[-1]))
    torch.testing.assert_close(found, inside.logits, **CLOSE)


@torch.no_grad()
def test_each_stream_is_the_one_before_and_what_a_part_adds(model):
    streams = attention(model, TOKENS).streams[:, None]
    for layer, block in enumerate(model.transformer.h):
        before, between, after = streams[2 * layer : 2 * layer + 3]
        torch.testing.assert_close(between, before + block.attn(block.ln_1(before)), **CLOSE)
        torch.testing.assert_close(after, between + block.mlp(block.ln_2(between)), **CLOSE)


@torch.no_grad()
def test_transformers_computes_the_same_from_the_same_weights(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel._from_config(
        transformers.GPT2Config(
            n_layer=3, n_head=2, n_embd=16, n_positions=12, vocab_size=11, initializer_range=0.3
        ),
        attn_implementation="eager",
    ).eval()
    theirs.save_pretrained(tmp_path)
    inside = attention(GPT2.from_pretrained(tmp_path), TOKENS)
    found = theirs(TOKENS[None], output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(inside.weights, torch.cat(found.attentions), **CLOSE)
    torch.testing.assert_close(inside.logits, found.logits[0], **CLOSE)
    # Theirs end with the final norm's output, in place of the stream that it reads.
    streams = torch.cat(found.hidden_states[:-1])
    torch.testing.assert_close(inside.after_layers()[:-1], streams, **CLOSE)
    last = theirs.transformer.ln_f(inside.streams[-1])
    torch.testing.assert_close(last, found.hidden_states[-1][0], **CLOSE)


def test_a_model_that_trains_goes_on_as_if_nothing_had_been(model):
    model.train()
    state = torch.get_rng_state()
    inside = attention(model, TOKENS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not any(tensor.requires_grad for tensor in vars(inside).values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(inside.logits, attention(model.eval(), TOKENS).logits)  # no dropout


def test_blocks_that_are_compiled_hide_nothing_and_keep_no_hook(tiny_model):
    expected = attention(tiny_model, TOKENS)
    assert compile_blocks(tiny_model, True, torch.device("cpu"), backend="eager") == "each block"
    with torch.no_grad():
        tiny_model(TOKENS[None])  # a graph without hooks
    found = attention(tiny_model, TOKENS)
    assert found.streams.shape == expected.streams.shape
    torch.testing.assert_close(found.weights, expected.weights, **CLOSE)
    costs = ablation_costs(tiny_model, found)
    assert costs.unique().numel() == 4
    torch.testing.assert_close(tiny_model(TOKENS[None])[0], expected.logits, **CLOSE)


def test_hooks_are_gone_after_a_failure_too(model, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(model.transformer.h[-1].mlp, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        attention(model, TOKENS)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("quantize", [None, Quantize.int8])
def test_of_packed_weights_attention_is_in_fp32(quantize):
    config = GPT2Config(2, 2, 64, block_size=12, vocab_size=11, dropout=0.0)
    model = packed(GPT2(config), Precision.bf16, quantize)
    inside = attention(model, TOKENS)
    assert inside.weights.dtype is inside.streams.dtype is inside.logits.dtype is torch.float32
    torch.testing.assert_close(inside.weights.sum(-1), torch.ones(2, 2, len(TOKENS)), **CLOSE)
    assert torch.equal(inside.logits, model(TOKENS[None])[0].float())


def test_a_row_of_one_and_a_plain_list_are_tokens_too(model):
    expected = attention(model, TOKENS).logits
    assert torch.equal(attention(model, TOKENS[None]).logits, expected)
    assert torch.equal(attention(model, TOKENS.tolist()).logits, expected)
    assert attention(model, [7]).weights.eq(1).all()


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ([], "are no row of ids"),
        ([[1, 2], [3, 4]], "are no row of ids"),
        ([0.5], "are no row of ids"),
        ([3, 11], "11 is none of the model's ids; give 0 to 10"),
        ([-1, 3], "-1 is none of the model's ids"),
        ([0] * 13, "are 13, the model has 12 positions; give fewer"),
    ],
)
def test_what_the_model_cannot_read_is_refused(tiny_model, tokens, problem):
    with pytest.raises(DataError, match=problem):
        attention(tiny_model, tokens)


def test_shifted_hides_what_follows_the_last():
    assert shifted(torch.tensor([5, 6, 7])).tolist() == [6, 7, IGNORE]
