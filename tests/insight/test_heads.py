"""Scores of heads, worked by hand on attention that is known."""

import pytest
import torch

from gpt2lab.config import GPT2Config
from gpt2lab.insight import attention, induction_score, measured_induction, previous_token_score
from gpt2lab.insight.heads import repeated_tokens
from gpt2lab.model import GPT2


def looking(*places: int) -> torch.Tensor:
    """Attention (T, T) of a head whose token t looks at places[t] alone."""
    return torch.nn.functional.one_hot(torch.tensor(places), len(places)).float()


def test_a_head_that_looks_at_the_token_before_scores_1():
    assert previous_token_score(looking(0, 0, 1, 2, 3)) == 1
    assert previous_token_score(looking(0, 1, 2, 3, 4)) == 0
    assert previous_token_score(looking(0, 0, 2, 2, 4)) == 0.5
    assert previous_token_score(torch.ones(1, 1)).isnan()


def test_a_head_that_looks_behind_the_last_place_of_its_token_scores_1():
    # a b c a b c: the second a, at 3, looks at the first b, at 1; the last c, at 5, at the second a
    perfect = looking(0, 1, 2, 1, 2, 3)
    assert induction_score(perfect, period=3) == 1
    assert induction_score(looking(0, 1, 2, 1, 2, 5), period=3) == pytest.approx(2 / 3)
    assert induction_score(looking(0, 0, 1, 2, 3, 4), period=3) == 0  # at the token before
    assert induction_score(looking(0, 1, 2, 0, 1, 2), period=3) == 0  # at the same token


def test_uniform_attention_scores_the_mean_of_its_shares():
    uniform = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    assert previous_token_score(uniform) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert induction_score(uniform, period=2) == pytest.approx((1 / 3 + 1 / 4) / 2)


def test_scores_keep_the_shape_of_layers_and_heads():
    weights = torch.stack([looking(0, 0, 1, 2), looking(0, 1, 2, 3)]).expand(3, 2, 4, 4)
    assert previous_token_score(weights).tolist() == [[1, 0]] * 3
    assert induction_score(weights, 2).shape == (3, 2)


def test_a_text_is_repeated_and_has_no_token_twice_within_a_period():
    state = torch.get_rng_state()
    rows = repeated_tokens(11, period=5, rows=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(rows[:, :5], rows[:, 5:])
    assert all(len(set(row[:5].tolist())) == 5 for row in rows)
    assert repeated_tokens(3, period=5, rows=2).max() < 3


def test_the_measured_score_is_the_mean_over_repeated_texts(tiny_model):
    rows = repeated_tokens(11, period=6, rows=4)
    expected = [induction_score(attention(tiny_model, row).weights, 6) for row in rows]
    found = measured_induction(tiny_model)
    assert found is not None
    torch.testing.assert_close(found, torch.stack(expected).mean(0))


def test_a_context_that_holds_no_repetition_has_no_score():
    assert measured_induction(GPT2(GPT2Config(1, 1, 8, block_size=3, vocab_size=5))) is None
