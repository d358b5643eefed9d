"""What is likely next, layer by layer, and how right that was."""

import math

import torch
import torch.nn.functional as F

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.insight import attention, logit_lens, next_tokens, shifted, token_scores

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])


def test_loss_and_rank_worked_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]]).log()
    scores = token_scores(logits, torch.tensor([0, 0, IGNORE]))
    assert scores.rank.tolist() == [1, 3, 0]
    torch.testing.assert_close(scores.loss[:2], -torch.tensor([0.5, 0.1]).log())
    assert math.isnan(scores.loss[2])
    equal = token_scores(torch.zeros(1, 4), torch.tensor([3]))
    assert equal.rank.tolist() == [1]


@torch.no_grad()
def test_the_mean_of_the_losses_is_the_models_loss(tiny_model):
    targets = shifted(TOKENS)
    scores = token_scores(attention(tiny_model, TOKENS).logits, targets)
    loss = tiny_model.loss(Batch(TOKENS[None], targets[None]))
    torch.testing.assert_close(scores.loss.nanmean(), loss)
    _, is_likeliest = tiny_model.scores(Batch(TOKENS[None], targets[None]))
    assert torch.equal(scores.rank[:-1] == 1, is_likeliest[0, :-1])


def test_the_likeliest_come_first_and_no_more_than_there_are():
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    found = next_tokens(logits, 2)
    assert found.token_ids.tolist() == [1, 2]
    torch.testing.assert_close(found.probabilities, torch.tensor([0.5, 0.3]))
    assert next_tokens(logits, 10).token_ids.tolist() == [1, 2, 0]


@torch.no_grad()
def test_the_last_row_of_the_lens_is_the_models_own_prediction(tiny_model):
    inside = attention(tiny_model, TOKENS)
    said, scores = logit_lens(tiny_model, inside, n=3)
    assert said.token_ids.shape == said.probabilities.shape == (3, len(TOKENS), 3)
    own = next_tokens(inside.logits, 3)
    assert torch.equal(said.token_ids[-1], own.token_ids)
    assert torch.equal(said.probabilities[-1], own.probabilities)
    of_model = token_scores(inside.logits, shifted(TOKENS))
    torch.testing.assert_close(scores.loss[-1], of_model.loss, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(scores.rank[-1], of_model.rank)


@torch.no_grad()
def test_the_first_row_of_the_lens_has_seen_no_layer(tiny_model):
    model = tiny_model.transformer
    x = model.wte(TOKENS) + model.wpe(torch.arange(len(TOKENS)))
    logits = F.linear(model.ln_f(x), model.wte.weight)
    said, _ = logit_lens(tiny_model, attention(tiny_model, TOKENS), n=11)
    torch.testing.assert_close(said.probabilities[0], next_tokens(logits, 11).probabilities)


def test_targets_of_ones_own_may_follow_the_last_token(tiny_model):
    inside = attention(tiny_model, TOKENS)
    targets = torch.full_like(TOKENS, IGNORE)
    targets[-1] = 7
    _, scores = logit_lens(tiny_model, inside, targets=targets)
    assert scores.rank[:, :-1].eq(0).all()
    assert scores.rank[:, -1].ge(1).all()
