import itertools
import math
from contextlib import nullcontext

import pytest
import torch
import transformers

from gpt2lab.config import GPT2Config
from gpt2lab.generation.beam import beam_search
from gpt2lab.generation.samplers import log_probabilities, repetition_penalty
from gpt2lab.model import GPT2
from tests.test_model import renamed, theirs

TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.0}


def twins(vocab_size: int, block_size: int = 24) -> tuple[transformers.GPT2LMHeadModel, GPT2]:
    """transformers' model and ours with the same weights, spread so that beams differ much."""
    config = GPT2Config(**TINY, block_size=block_size, vocab_size=vocab_size)
    other, ours = theirs(config).eval(), GPT2(config).eval()
    with torch.no_grad():
        other.transformer.wte.weight *= 5
    state = ours.state_dict()
    for name, tensor in other.transformer.state_dict().items():
        if not name.endswith((".attn.bias", ".attn.masked_bias")):
            state[f"transformer.{name}"] = renamed(name, tensor)
    ours.load_state_dict(state)
    return other, ours


def their_search(model, prompt, stop_token_ids, **settings) -> tuple[list[int], float]:
    found = model.generate(
        prompt[None],
        attention_mask=torch.ones_like(prompt[None]),
        do_sample=False,
        eos_token_id=list(stop_token_ids) or None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    ids = found.sequences[0, len(prompt) :].tolist()
    stops = [place for place, token in enumerate(ids) if token in stop_token_ids]
    return ids[: stops[0] + 1] if stops else ids, found.sequences_scores.item()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("num_beams", "max_new_tokens", "length_penalty", "penalty", "stops"),
    [
        (4, 12, 1.0, 1.0, ()),
        (2, 1, 1.0, 1.0, (5,)),
        (2, 12, 1.0, 1.0, (5,)),
        (3, 15, 0.0, 1.0, (5,)),
        (3, 15, 2.0, 1.0, (5,)),
        (4, 15, -1.0, 1.0, (5, 7)),
        (5, 15, 0.7, 1.3, (5, 7, 9)),
        (5, 15, 1.0, 0.8, (5,)),
        (20, 4, 1.0, 1.0, (5,)),  # more beams than tokens
    ],
)
def test_ids_and_score_equal_those_of_transformers(
    seed, num_beams, max_new_tokens, length_penalty, penalty, stops
):
    torch.manual_seed(seed)
    other, ours = twins(vocab_size=11)
    prompt = torch.randint(0, 11, (1 + seed * 2,))
    ids, score = beam_search(
        ours, prompt, max_new_tokens, num_beams, length_penalty, stops, penalty=penalty
    )
    expected_ids, expected_score = their_search(
        other,
        prompt,
        stops,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        length_penalty=length_penalty,
        repetition_penalty=penalty,
    )
    assert ids.tolist() == expected_ids
    assert score == pytest.approx(expected_score, rel=1e-4)  # fp32 sums in another order


A, B, STOP = 0, 1, 2


class NextTokenTable:
    """In place of a model: the next token's probabilities, by the last token alone."""

    vocab_size = 3
    config = GPT2Config(block_size=24)
    evaluating = nullcontext

    def __init__(self, after_stop, after_a, after_b):
        self.logits = torch.tensor([after_a, after_b, after_stop]).log()

    def head(self, hidden):
        return self.logits[hidden]

    def build_cache(self, token_ids, length):
        return token_ids, torch.zeros(1, 2, len(token_ids), 1, length, 1)

    def call_with_cache(self, token_ids, cache, cache_update_index):
        return self.logits[token_ids], token_ids, cache


def test_a_second_beam_finds_what_the_likeliest_first_token_hides():
    model = NextTokenTable([0.6, 0.4, 0.0], after_a=[0.4, 0.3, 0.3], after_b=[0.05, 0.05, 0.9])
    prompt = torch.tensor([STOP])
    found = [beam_search(model, prompt, 2, num_beams, 2.0, {STOP}) for num_beams in (1, 2)]
    assert [ids.tolist() for ids, _ in found] == [[A, A], [B, STOP]]
    assert [score for _, score in found] == pytest.approx([math.log(0.24) / 4, math.log(0.36) / 4])


def test_a_stop_that_is_not_among_the_best_beams_ends_nothing():
    model = NextTokenTable([0.6, 0.0, 0.4], after_a=[0.1, 0.4, 0.5], after_b=[1.0, 0.0, 0.0])
    ids, score = beam_search(model, torch.tensor([STOP]), 2, 1, 0.0, {STOP})
    assert (ids.tolist(), score) == ([A, STOP], pytest.approx(math.log(0.3)))


def likelihoods(model: GPT2, prompt: torch.Tensor, stop: int, longest: int) -> dict[tuple, float]:
    """The log-probability of every continuation that stops, or is as long as can be."""
    V, found = model.vocab_size, {}
    for length in range(1, longest + 1):
        for ids in itertools.product(range(V), repeat=length):
            if stop in ids[:-1] or (length < longest and ids[-1] != stop):
                continue
            row = torch.cat([prompt, torch.tensor(ids)])
            logprobs = log_probabilities(model(row[None, :-1])[0, len(prompt) - 1 :])
            found[ids] = logprobs.gather(1, torch.tensor(ids)[:, None]).sum().item()
    return found


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 3.0])
@torch.no_grad()
def test_enough_beams_find_the_best_of_all_continuations(length_penalty):
    _, model = twins(vocab_size=3)
    prompt = torch.tensor([0, 2])
    scores = {
        ids: logprob / len(ids) ** length_penalty
        for ids, logprob in likelihoods(model, prompt, stop=1, longest=4).items()
    }
    ids, score = beam_search(model, prompt, 4, 3**4, length_penalty, {1})
    best = max(scores, key=scores.__getitem__)
    assert tuple(ids.tolist()) == best
    assert score == pytest.approx(scores[best], rel=1e-5)


@torch.no_grad()
def test_a_short_text_wins_by_its_sum_and_a_long_one_by_its_mean():
    _, model = twins(vocab_size=3)
    found = [beam_search(model, torch.tensor([0, 2]), 4, 81, p, {1})[0] for p in (0.0, 3.0)]
    assert len(found[0]) < len(found[1]) == 4


@pytest.mark.parametrize("penalty", [1.0, 1.5])
@pytest.mark.parametrize("length_penalty", [-1.0, 1.0])
@torch.no_grad()
def test_one_beam_is_greedy(penalty, length_penalty):
    _, model = twins(vocab_size=11)
    row, stop = torch.tensor([3, 1, 4]), 7
    ids, score = beam_search(model, row, 10, 1, length_penalty, {stop}, penalty=penalty)
    total, expected = 0.0, []
    while len(expected) < 10 and stop not in expected:
        seen = torch.zeros(1, 11, dtype=torch.bool)
        seen[0, row] = True
        logprobs = repetition_penalty(log_probabilities(model(row[None])[:, -1]), seen, penalty)
        expected.append(logprobs.argmax().item())
        total += logprobs.max().item()
        row = torch.cat([row, torch.tensor(expected[-1:])])
    assert ids.tolist() == expected
    assert score == pytest.approx(total / len(expected) ** length_penalty, rel=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_the_search_ends_as_early_as_that_of_transformers(length_penalty):
    other, ours = twins(vocab_size=11)
    calls = {other: 0, ours: 0}
    for model in calls:
        model.transformer.wte.register_forward_hook(
            lambda *_, model=model: calls.update({model: calls[model] + 1})
        )
    prompt, stops = torch.tensor([3, 1]), (5, 7)
    beam_search(ours, prompt, 20, 2, length_penalty, stops)
    settings = {"num_beams": 2, "max_new_tokens": 20, "length_penalty": length_penalty}
    their_search(other, prompt, stops, **settings)
    assert calls[ours] == calls[other] < 20


def test_the_search_ends_at_the_context(tiny_model):
    ids, _ = beam_search(tiny_model, torch.arange(9), 50, 3)  # 12 positions
    assert len(ids) == 4  # the last one is not read
    ids, _ = beam_search(tiny_model, torch.arange(12) % 11, 50, 3)
    assert len(ids) == 1


def test_the_search_ends_where_every_token_stops(tiny_model):
    ids, score = beam_search(tiny_model, torch.tensor([1]), 5, 3, stop_token_ids=range(11))
    logprobs = log_probabilities(tiny_model(torch.tensor([[1]]))[0, -1])
    assert (ids.tolist(), score) == (
        [logprobs.argmax().item()],
        pytest.approx(logprobs.max().item()),
    )


def test_the_prompt_is_not_written_to(tiny_model):
    prompt = torch.tensor([3, 1, 4])
    beam_search(tiny_model, prompt, 5, 3)
    assert prompt.tolist() == [3, 1, 4]
