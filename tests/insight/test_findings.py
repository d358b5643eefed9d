"""What is read of a prompt, and the numbers that are shown of it."""

import json
import warnings

import pytest
import torch

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.config import InsightConfig
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.generation import generate
from gpt2lab.insight import ablation_costs, attention
from gpt2lab.insight.findings import findings, judged
from tests.insight.models import pairs_model, sort_model, text_model


def found(model, prompt, **settings):
    return findings(model, InsightConfig(prompt=prompt, **settings))


def test_every_number_is_the_models_own_to_the_digits_shown():
    model = text_model()
    numbers = json.loads(json.dumps(found(model, "abc\nabc").numbers(), allow_nan=False))
    inside = attention(model, numbers["token_ids"])
    half = 0.5e-7 + 2e-6  # seven digits are kept; and fp32 in another order
    T = len(numbers["tokens"])
    for layer in range(2):
        for head in range(2):
            rows = numbers["attention"][layer][head]
            assert [len(row) for row in rows] == [*range(1, T + 1)]
            for t, row in enumerate(rows):
                expected = inside.weights[layer, head, t, : t + 1]
                torch.testing.assert_close(torch.tensor(row), expected, atol=half, rtol=0)
    logprobs = inside.logits.log_softmax(-1)
    for t in range(T - 1):
        after = numbers["token_ids"][t + 1]
        assert numbers["loss"][t] == pytest.approx(-logprobs[t, after].item(), abs=half)
        assert numbers["rank"][t] == 1 + int((logprobs[t] > logprobs[t, after]).sum())
        assert numbers["targets"][t] == numbers["tokens"][t + 1]
    assert numbers["loss"][-1] is numbers["targets"][-1] is None
    likeliest = logprobs.exp().topk(10)
    for t in range(T):
        shown = torch.tensor(numbers["lens"]["probabilities"][-1][t])
        torch.testing.assert_close(shown, likeliest.values[t], atol=half, rtol=0)
    for t, row in enumerate(numbers["last_block"]):
        expected = inside.weights[-1, :, t, : t + 1].mean(0)
        torch.testing.assert_close(torch.tensor(row), expected, atol=half, rtol=0)


@torch.no_grad()
def test_the_cost_of_a_head_is_that_of_a_model_whose_weights_forget_it():
    model = text_model()
    found_ = found(model, "abc\nabc", ablation="zero")
    ids = torch.tensor([found_.text.token_ids])
    batch = Batch(ids[:, :-1], ids[:, 1:])
    before, rows = model.loss(batch), slice(8, 16)  # of head 1 of 2, in a width of 16
    model.transformer.h[1].attn.c_proj.weight[:, rows] = 0
    cost = found_.numbers()["ablation_cost"][1][1]
    assert cost == pytest.approx((model.loss(batch) - before).item(), abs=5e-6)


@torch.no_grad()
def test_a_head_that_looks_at_all_alike_has_the_induction_score_of_shares():
    model = text_model()
    model.transformer.h[0].attn.c_attn.weight[:8] = 0  # no queries of head 0
    model.transformer.h[0].attn.c_attn.bias[:8] = 0
    induction = found(model, "abc").numbers()["induction"][0][0]
    # A context of 12: a period of 6, after which tokens 6 to 11 look at 7 to 12 tokens.
    assert induction == pytest.approx(sum(1 / n for n in range(7, 13)) / 6, abs=1e-6)


def test_the_head_that_is_shown_is_the_costliest_or_the_one_asked_for():
    model = text_model()
    costs = ablation_costs(model, attention(model, model.speech.encode("abc\nabc")))
    chosen = found(model, "abc\nabc")
    assert costs[chosen.layer, chosen.head] == costs.max()
    asked = found(model, "abc\nabc", layer=1, head=0, token=3)
    assert (asked.layer, asked.head, asked.token) == (1, 0, 3)
    torch.testing.assert_close(asked.chosen, asked.weights[1, 0])


def test_text_begins_with_the_end_of_text_and_shows_what_follows_its_last_token():
    chosen = found(text_model(), "a b\n")
    assert chosen.labels == ["<|endoftext|>", "a", "␣", "b", "↵"]
    assert chosen.token == 4
    assert chosen.text.targets[-1] == IGNORE
    assert found(text_model(), "ab", add_start_token=False).labels == ["a", "b"]


def test_an_empty_prompt_is_the_token_that_text_begins_with():
    chosen = found(text_model(), None)
    numbers = chosen.numbers()
    assert numbers["tokens"] == ["<|endoftext|>"]
    assert numbers["attention"] == [[[[1.0]], [[1.0]]]] * 2
    assert numbers["loss"] == [None]
    assert numbers["ablation_cost"] == [[None, None]] * 2
    assert numbers["previous_token"] == [[None, None]] * 2


def test_of_a_longer_prompt_the_last_tokens_are_read_with_a_warning():
    with pytest.warns(UserWarning, match="has 6 tokens, max_tokens=4; its last 4 are read"):
        labels = found(text_model(), "abcabc", max_tokens=4).labels
    assert labels == ["<|endoftext|>", "c", "a", "b", "c"]
    with pytest.warns(
        UserWarning, match="has 14 tokens, the context of 12 leaves 11; its last 11 are read"
    ):
        labels = found(text_model(), "abcabcabcabcab").labels
    assert labels == ["<|endoftext|>", *"abcabcabcabcab"[-11:]]
    with pytest.warns(UserWarning, match="its last 2 are read"):
        assert found(text_model(), "abc", max_tokens=2, add_start_token=False).labels == ["b", "c"]


def test_a_prompt_of_max_tokens_keeps_the_token_that_text_begins_with():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = found(text_model(), "abca", max_tokens=4).labels
    assert labels == ["<|endoftext|>", "a", "b", "c", "a"]


def test_a_sort_model_is_judged_by_the_right_answer():
    text = judged([2, 0, 1], [0, 2, 2], right=[0, 1, 2])
    assert text.token_ids == [2, 0, 1, 0, 2]
    assert text.targets == [IGNORE, IGNORE, 0, 1, 2]


def test_a_question_is_read_with_the_models_own_answer():
    model = sort_model()
    chosen = found(model, "2 0 1 0")
    answer = generate(model, torch.tensor([2, 0, 1, 0]), max_new_tokens=4, strip_prompt=True)
    assert chosen.text.answer == answer.tolist()
    assert chosen.text.right == [0, 0, 1, 2]
    assert chosen.text.token_ids == [2, 0, 1, 0, *answer.tolist()[:-1]]
    assert chosen.token == 3  # behind which the answer begins
    assert chosen.numbers()["right_answer"] == ["0", "0", "1", "2"]


@pytest.mark.filterwarnings("ignore:prompt:")  # it may say no end
def test_of_other_questions_no_answer_is_known_to_be_right():
    chosen = found(pairs_model(), "abc")
    assert chosen.labels[:4] == ["a", "b", "c", "="]
    assert chosen.text.right is None
    assert chosen.numbers()["question_tokens"] == 4
    assert {*chosen.text.marks} == {""}
    assert chosen.text.wanted == "token that it said"
    assert found(sort_model(), "2 0 1 0").text.wanted == "right next token"
    assert found(text_model(), "abc").text.wanted == "actual next token"


def test_an_answer_that_does_not_end_is_cut_with_a_warning():
    model = pairs_model()
    with torch.no_grad():  # the end is never said
        model.transformer.wte.weight[model.speech.tokenizer.end_of_text] = 0
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[0])
    with pytest.warns(UserWarning, match="answer is cut after 3 by max_tokens of 6; add max_"):
        assert len(found(model, "abc", max_tokens=6).text.answer) == 3
    with pytest.warns(UserWarning, match="answer is cut after 9 by the model's context of 12"):
        found(model, "abc")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"layer": 2, "head": 0}, "layer: 2 is beyond the model's 2 layers, counted from 0; "),
        ({"layer": 0, "head": 5}, "head: 5 is beyond the model's 2 heads"),
        ({"token": 9}, "token: 9 is none of the 4 that are read, counted from 0; choose 0 to 3"),
    ],
)
def test_what_the_model_does_not_have_is_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        found(text_model(), "abc", **settings)


@pytest.mark.parametrize(
    ("make", "prompt", "problem"),
    [
        (text_model, "xyz", "prompt: .*'x'.* is none of the 13"),
        (sort_model, "2 0 1 7", "prompt: .*'7' is none of the digits"),
        (sort_model, None, "prompt: has 0 digits, the model knows questions of 4"),
        (pairs_model, "abcabcabcabc", "more than the model's context of 12; ask a shorter"),
    ],
)
def test_what_the_model_cannot_read_is_refused(make, prompt, problem):
    with pytest.raises(DataError, match=problem):
        found(make(), prompt)


def test_a_question_beyond_max_tokens_is_not_cut():
    with pytest.raises(DataError, match="more than max_tokens of 5; add max_tokens="):
        found(sort_model(), "2 0 1 0", max_tokens=5)
