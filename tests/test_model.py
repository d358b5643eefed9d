import math

import pytest
import torch
import torch.nn.functional as F
import transformers

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.config import GPT2Config
from gpt2lab.config.compose import settings_from
from gpt2lab.model import GPT2, document_mask, stored_rows

PUBLISHED = {
    "small": 124_439_808,
    "medium": 354_823_168,
    "large": 774_030_080,
    "xl": 1_557_611_200,
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_sizes_have_the_published_parameter_counts(size):
    overrides = [f"model={size}", "model.block_size=1024", "model.vocab_size=50257"]
    config = settings_from("train", overrides).settings.model
    with torch.device("meta"):
        assert GPT2(config).num_parameters() == PUBLISHED[size]


def test_a_later_token_cannot_change_an_earlier_logit(tiny_model):
    tokens = torch.randint(0, 11, (2, 8))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    before, after = tiny_model(tokens), tiny_model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_a_row_does_not_depend_on_the_rest_of_the_batch(tiny_model):
    tokens = torch.randint(0, 11, (4, 8))
    torch.testing.assert_close(tiny_model(tokens)[1:2], tiny_model(tokens[1:2]))


@pytest.mark.parametrize("vocab_size", [3, 65, 50257])
def test_the_first_loss_is_near_that_of_a_guess(vocab_size):
    model = GPT2(GPT2Config(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=vocab_size))
    tokens = torch.randint(0, vocab_size, (8, 33))
    loss = model.eval().loss(Batch(tokens[:, :-1], tokens[:, 1:]))
    assert abs(loss.item() - math.log(vocab_size)) < 0.1  # logits have a spread of about 0.1


def test_the_head_stays_the_embedding_after_a_step_and_a_reload(tiny_config):
    model = GPT2(tiny_config)
    tokens = torch.randint(0, 11, (2, 9))
    model.loss(Batch(tokens[:, :-1], tokens[:, 1:])).backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    reloaded = GPT2(tiny_config)
    reloaded.load_state_dict(model.state_dict())
    hidden = reloaded.transformer(tokens)
    expected = hidden @ model.transformer.wte.weight.T
    torch.testing.assert_close(reloaded(tokens), expected)
    assert not [name for name in model.state_dict() if "head" in name]


def test_no_gradient_comes_from_the_prefix(tiny_model):
    tokens = torch.randint(0, 11, (2, 8))
    targets = tokens.clone()
    targets[:, :4] = IGNORE
    hidden = []
    tiny_model.transformer.ln_f.register_forward_hook(lambda m, i, out: hidden.append(out))
    loss = tiny_model.loss(Batch(tokens, targets))
    (gradient,) = torch.autograd.grad(loss, hidden[0])
    assert not gradient[:, :4].any()
    assert gradient[:, 4:].any(dim=-1).all()


def written_out(attn, x, mask):
    """Attention by its formula, softmax(q k^T / sqrt(D)) v, where the mask (B, 1, T, T) is True."""
    q, k, v = attn.c_attn(x).unflatten(-1, (3, attn.n_head, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return attn.c_proj((weights @ v).transpose(1, 2).flatten(-2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_is_that_of_the_formula(tiny_model, dtype):
    attn = tiny_model.to(dtype).transformer.h[0].attn
    x = torch.randn(2, 12, tiny_model.config.n_embd, dtype=dtype)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    torch.testing.assert_close(attn(x), written_out(attn, x, causal), rtol=1e-5, atol=1e-5)
    within = document_mask(TWO_DOCUMENTS)
    found, expected = attn(x, within), written_out(attn, x, within)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_activation_checkpointing_changes_no_gradient(tiny_config):
    tokens = torch.randint(0, 11, (2, 9))
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        tiny_config.activation_checkpointing = checkpointing
        tiny_config.dropout = 0.2
        model = GPT2(tiny_config)
        torch.manual_seed(1)
        model.loss(Batch(tokens[:, :-1], tokens[:, 1:])).backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_activation_checkpointing_recomputes_the_blocks(tiny_config):
    tiny_config.activation_checkpointing = True
    model = GPT2(tiny_config)
    calls = []
    model.transformer.h[0].attn.c_attn.register_forward_hook(lambda *_: calls.append(1))
    tokens = torch.randint(0, 11, (2, 9))
    model.loss(Batch(tokens[:, :-1], tokens[:, 1:])).backward()
    assert len(calls) == 2


TWO_DOCUMENTS = torch.tensor([[0] * 5 + [1] * 7, [3] * 2 + [4] * 10])


def test_positions_restart_in_each_document(tiny_model):
    seen = []
    tiny_model.transformer.wpe.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    documents = torch.tensor([[7, 7, 7, 8, 8], [0, 1, 1, 1, 5]])
    tiny_model(torch.zeros(2, 5, dtype=torch.long), documents)
    assert seen[0].tolist() == [[0, 1, 2, 0, 1], [0, 0, 1, 2, 0]]


def test_a_token_looks_back_within_its_document():
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert document_mask(torch.tensor([[0, 0, 1, 1]])).int().tolist() == [[expected]]


def test_a_document_does_not_see_the_one_before_it(tiny_model):
    tokens = torch.randint(0, 11, (2, 12))
    changed = torch.where(TWO_DOCUMENTS % 3 == 0, (tokens + 1) % 11, tokens)  # first documents
    before, after = tiny_model(tokens, TWO_DOCUMENTS), tiny_model(changed, TWO_DOCUMENTS)
    assert torch.equal(before[0, 5:], after[0, 5:])
    assert torch.equal(before[1, 2:], after[1, 2:])
    assert not torch.allclose(before[0, :5], after[0, :5])
    assert not torch.allclose(tiny_model(tokens)[0, 5:], tiny_model(changed)[0, 5:])


def test_a_document_is_read_as_if_it_stood_alone(tiny_model):
    tokens = torch.randint(0, 11, (2, 12))
    together = tiny_model(tokens, TWO_DOCUMENTS)
    alone = tiny_model(tokens[:1, 5:])
    # fp32 sums over keys in another order
    torch.testing.assert_close(together[:1, 5:], alone, rtol=1e-5, atol=1e-6)


def test_one_document_a_row_changes_nothing(tiny_model):
    tokens = torch.randint(0, 11, (2, 12))
    masked = tiny_model(tokens, torch.zeros_like(tokens))
    torch.testing.assert_close(masked, tiny_model(tokens), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_loss_of_a_document_gives_the_one_before_it_no_gradient(tiny_config, checkpointing):
    tiny_config.activation_checkpointing = checkpointing
    model = GPT2(tiny_config)
    tokens = torch.arange(10)[None].repeat(2, 1)  # each id once a row
    documents = (tokens >= 4).long()
    targets = torch.where(documents == 1, tokens, IGNORE)
    embedded = []
    model.transformer.drop.register_forward_hook(lambda m, i, out: embedded.append(out))
    loss = model.loss(Batch(tokens, targets, documents))
    (gradient,) = torch.autograd.grad(loss, embedded[0])
    assert not gradient[:, :4].any()
    assert gradient[:, 4:].any(dim=-1).all()


def test_initial_weights_have_the_released_spread():
    model = GPT2(GPT2Config(n_layer=8, n_head=2, n_embd=128, block_size=64, vocab_size=500))
    block = model.transformer.h[3]
    # 16,384 numbers and more: the estimate of a standard deviation is good to 1 %
    assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.transformer.wpe.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for name in ("attn", "mlp"):
        weight = getattr(block, name).c_proj.weight
        assert weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.03)
    assert not block.mlp.c_fc.bias.any()
    assert (model.transformer.ln_f.weight == 1).all()


def test_a_large_vocabulary_is_stored_in_multiples_of_128():
    assert (stored_rows(3), stored_rows(65), stored_rows(50257), stored_rows(50304)) == (
        3,
        65,
        50304,
        50304,
    )


def test_surplus_rows_reach_nothing():
    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=5000, dropout=0.0)
    model = GPT2(config)
    assert model.transformer.wte.weight.shape == (5120, 8)
    assert not model.transformer.wte.weight[5000:].any()
    tokens = torch.randint(0, 5000, (300, 9))  # enough rows for the chunked path
    model.loss(Batch(tokens[:, :-1], tokens[:, 1:])).backward()
    assert not model.transformer.wte.weight.grad[5000:].any()
    assert model(tokens[:1, :4]).shape[-1] == 5000
    exact = sum(p.numel() for p in model.parameters()) - 120 * 8
    assert model.num_parameters() == exact


def test_more_tokens_than_positions_are_refused(tiny_model):
    with pytest.raises(ValueError, match="13 tokens; the model has 12 positions"):
        tiny_model(torch.zeros(1, 13, dtype=torch.long))


def test_biases_can_be_left_out(tiny_config):
    tiny_config.bias = False
    assert not [name for name, _ in GPT2(tiny_config).named_parameters() if "bias" in name]


def theirs(config: GPT2Config) -> transformers.GPT2LMHeadModel:
    """transformers' model with random biases and norms too, so that none is trivially right."""
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            n_positions=config.block_size,
            vocab_size=config.vocab_size,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def renamed(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Conv1D stores its matrix the other way round."""
    return tensor.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else tensor


@pytest.mark.parametrize(
    ("n_layer", "n_head", "n_embd", "vocab_size", "B", "T"),
    [(1, 1, 8, 5, 1, 1), (2, 4, 32, 50, 3, 16), (3, 3, 48, 301, 2, 11), (4, 2, 24, 5000, 40, 32)],
)
def test_logits_hidden_states_and_gradients_equal_transformers(
    n_layer, n_head, n_embd, vocab_size, B, T
):
    config = GPT2Config(n_layer, n_head, n_embd, 32, vocab_size, dropout=0.0)
    other, ours = theirs(config), GPT2(config)
    state = ours.state_dict()
    for name, tensor in other.transformer.state_dict().items():
        if not name.endswith((".attn.bias", ".attn.masked_bias")):
            mine = state[f"transformer.{name}"]
            mine[: len(renamed(name, tensor))] = renamed(name, tensor)
    ours.load_state_dict(state)

    tokens = torch.randint(0, vocab_size, (B, T + 1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    hidden = []
    for block in ours.transformer.h:
        block.register_forward_hook(lambda module, args, out: hidden.append(out))
    theirs_out = other(inputs, output_hidden_states=True)
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(ours(inputs), theirs_out.logits, **tolerance)
    # Their last entry is after the final norm; the one before it is the last block but one's.
    for mine, other_hidden in zip(hidden[:-1], theirs_out.hidden_states[1:-1], strict=True):
        torch.testing.assert_close(mine, other_hidden, **tolerance)
    torch.testing.assert_close(ours.transformer(inputs), theirs_out.hidden_states[-1], **tolerance)

    ours.loss(Batch(inputs, targets)).backward()
    F.cross_entropy(theirs_out.logits.flatten(0, 1), targets.flatten()).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, parameter in other.transformer.named_parameters():
        expected = renamed(name, parameter.grad)
        torch.testing.assert_close(
            gradients[f"transformer.{name}"][: len(expected)], expected, **tolerance
        )
