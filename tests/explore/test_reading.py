"""A reader gives the model's own logits, and reads no token twice."""

import pytest
import torch

from gpt2lab.explorer.reading import Reader, shared
from tests.insight.models import text_model

TEXTS = [
    [0, 5, 6, 7],
    [0, 5, 6, 7, 8],  # goes on
    [0, 5, 6],  # undone
    [0, 5, 9, 9, 9],  # another end
    [3, 3],  # another text
    [3],
    [0, 5, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7],  # the whole context
    [0, 5, 9],
    [0],
]


@pytest.fixture
def model():
    return text_model()


def test_logits_are_the_models_own_whatever_was_read_before(model):
    reader = Reader(model)
    for ids in [*TEXTS, *reversed(TEXTS)]:
        with torch.no_grad():
            own = model(torch.tensor([ids]))[0, -1]
        # Sums in another order, in fp32.
        torch.testing.assert_close(reader.logits(ids), own, rtol=1e-5, atol=1e-5)


def test_only_new_tokens_are_read(model, monkeypatch):
    reader, read = Reader(model), []
    reader.logits([0, 5, 6, 7])
    forward = model.transformer.forward
    monkeypatch.setattr(
        model.transformer,
        "forward",
        lambda ids, **given: read.append(ids.tolist()) or forward(ids, **given),
    )
    reader.logits([0, 5, 6, 7, 8])
    reader.logits([0, 5, 6, 7, 8])
    reader.logits([0, 5, 6, 7])
    assert read == [[[8]], [[7]]]


def test_two_texts_in_turns_are_both_kept(model, monkeypatch):
    reader, counts = Reader(model), []
    first, second = [0, 5, 6, 7], [1, 2, 3, 4]
    reader.logits(first)
    reader.logits(second)
    forward = model.transformer.forward
    monkeypatch.setattr(
        model.transformer,
        "forward",
        lambda ids, **given: counts.append(ids.shape[1]) or forward(ids, **given),
    )
    for token in (8, 9):
        first, second = [*first, token], [*second, token]
        reader.logits(first)
        reader.logits(second)
    assert counts == [1, 1, 1, 1]


def test_what_two_texts_have_in_common():
    assert shared([1, 2, 3], [1, 2, 4, 5]) == 2
    assert shared([], [1]) == 0
    assert shared([1, 2], [1, 2]) == 2


def test_a_model_in_training_goes_on_training(model):
    model.train()
    Reader(model).logits([0, 5])
    assert model.training
