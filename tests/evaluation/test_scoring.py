"""Items are scored as one by one, whatever stands beside them in a batch, and at little waste."""

import numpy as np
import pytest
import torch

from gpt2lab.evaluation.items import Item, fitted, too_long
from gpt2lab.evaluation.scoring import plan, score
from tests.evaluation.models import ids, ours, plainly, saved

PASS_TOKENS = 15  # what a forward pass costs besides its tokens, measured of GPT-2 small

KINDS = {"rows": (1,), "choices": (4,), "both": (1, 4, 10)}


def some_items(count, kinds=(1, 4), longest=20, vocab_size=11, seed=0):
    rng = np.random.default_rng(seed)

    def row(most):
        return rng.integers(vocab_size, size=rng.integers(1, most + 1))

    return [
        Item(row(longest), [row(longest // 2) for _ in range(rng.choice(kinds))])
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """transformers' model, and ours with the same weights."""
    folder = tmp_path_factory.mktemp("tiny")
    model = saved(folder, vocab_size=11, bos_token_id=None, eos_token_id=None)
    return model, ours(folder)


@pytest.mark.parametrize("kinds", KINDS)
def test_scores_are_those_of_a_plain_loop(models, kinds):
    theirs, model = models
    items = some_items(40, KINDS[kinds])
    for item, found in zip(items, score(model, items, 128), strict=True):
        assert len(found) == len(item.continuations)
        for continuation, scores in zip(item.continuations, found, strict=True):
            nll, right = plainly(theirs, item.context, continuation)
            np.testing.assert_allclose(scores.nll, nll, atol=1e-4)
            assert scores.right.tolist() == right.tolist()


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_the_size_of_batches_changes_no_score(models, batch_tokens):
    items = some_items(60, KINDS["both"])
    for found, wanted in zip(
        score(models[1], items, batch_tokens), score(models[1], items, 300), strict=True
    ):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a.nll, b.nll, atol=1e-5)
            assert a.right.tolist() == b.right.tolist()


def test_a_continuation_of_one_token_needs_nothing_but_its_context(models):
    """And with several of them nothing is read behind the context."""
    theirs, model = models
    item = Item(ids(1, 2, 3), [ids(4), ids(5), ids(6)])
    ((a, b, c),) = score(model, [item], 100)
    for scores, token in ((a, 4), (b, 5), (c, 6)):
        assert scores.nll == pytest.approx(plainly(theirs, item.context, [token])[0], abs=1e-5)


def test_nothing_to_score_gives_nothing(models):
    assert score(models[1], [], 100) == []


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("count", [20, 200])
@pytest.mark.parametrize("batch_tokens", [300, 1000])
def test_no_more_than_a_tenth_is_read_above_what_is_needed(models, kinds, count, batch_tokens):
    """What is needed: each item by itself, its context once. A pass costs its tokens and some."""
    items = some_items(count, KINDS[kinds])
    read = []
    hook = models[1].transformer.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    score(models[1], items, batch_tokens)
    hook.remove()
    tokens, needed = sum(x.numel() for x in read), sum(item.cost() for item in items)
    assert needed <= tokens
    passes = [1 + (len(item.continuations) > 1) for item in items]
    assert tokens + PASS_TOKENS * len(read) <= 1.1 * (needed + PASS_TOKENS * sum(passes))


@pytest.mark.parametrize("kinds", KINDS)
def test_of_many_items_no_more_than_a_tenth_of_the_tokens_is_waste(models, kinds):
    items = some_items(400, KINDS[kinds])
    read = []
    hook = models[1].transformer.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    score(models[1], items, 2000)
    hook.remove()
    assert sum(x.numel() for x in read) <= 1.1 * sum(item.cost() for item in items)


def test_items_of_one_length_fill_their_batches():
    items = [Item(ids(*range(6)), [ids(1, 2, 3)])] * 10  # 8 tokens each are read
    assert [len(batch) for batch in plan(items, 32)] == [4, 4, 2]
    assert [len(batch) for batch in plan(items, 1)] == [1] * 10


def test_every_item_is_in_one_batch_and_the_longest_come_first():
    items = some_items(100, KINDS["both"])
    batches = plan(items, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(100))
    costs = [items[i].cost() for batch in batches for i in batch if len(items[i][1]) == 1]
    assert costs == sorted(costs, reverse=True)


def test_a_batch_holds_no_more_tokens_than_asked_for(models):
    items = some_items(100, KINDS["both"])
    read = []
    hook = models[1].transformer.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    score(models[1], items, 64)
    hook.remove()
    assert max(tokens.numel() for tokens in read) <= 64


def test_a_cost_is_the_context_once_and_all_but_the_last_token_of_each_continuation():
    assert Item(ids(1, 2, 3), [ids(4)]).cost() == 3
    assert Item(ids(1, 2, 3), [ids(4, 5), ids(6, 7, 8)]).cost() == 3 + 1 + 2


def test_a_context_keeps_as_much_of_its_end_as_fits():
    item = Item(ids(1, 2, 3, 4, 5), [ids(6), ids(7, 8)])
    assert fitted(item, 6) is item  # five tokens, and all but the last of two
    assert fitted(item, 4).context.tolist() == [3, 4, 5]
    assert fitted(item, 2).context.tolist() == [5]
    assert not too_long(item, 2)
    assert too_long(item, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_are_scored_too(models, dtype):
    items = some_items(10, KINDS["both"])
    model = models[1].to(dtype)
    try:
        found = score(model, items, 100)
    finally:
        models[1].to(torch.float32)
    for a, b in zip(found, score(models[1], items, 100), strict=True):
        for one, two in zip(a, b, strict=True):
            # bf16 keeps 8 significant bits
            np.testing.assert_allclose(one.nll, two.nll, atol=0.2 if dtype.itemsize == 2 else 1e-4)
