"""Every number of the page is the model's own, to the digits shown; text cannot act as HTML."""

import json
import re
from html import unescape

import pytest
import torch

from gpt2lab.explorer import views
from gpt2lab.explorer.session import Explorer, Side
from gpt2lab.generation import Speech
from gpt2lab.insight import attention
from gpt2lab.tokenizer import gpt2_tokenizer
from tests.insight.models import made, pairs_model, sort_model, text_model

HALF = 0.5 * 10**-views.DIGITS + 1e-6
"""Rounding, and sums in another order."""


def opened(model, text):
    explorer = Explorer([Side("a", model)])
    return explorer.sides[0], explorer.typed(explorer.opened(""), text)


def shown_next(html):
    return {
        int(token): float(p)
        for token, p in re.findall(r'data-token="(\d+)".*?class="p">([\d.]+)<', html)
    }


@pytest.mark.parametrize("text", ["ab c", "abcd" * 10])
def test_the_ten_likeliest_tokens_have_the_models_probabilities(text):
    side, session = opened(text_model(), text)
    ids = session.now.readings[0].token_ids[-12:]
    with torch.no_grad():
        own = side.model(torch.tensor([ids]))[0, -1].softmax(-1)
    html = views.now(side, session.now, 0)
    found = shown_next(html)
    assert list(found) == own.topk(10).indices.tolist()
    assert all(abs(p - own[token]) <= HALF for token, p in found.items())
    rest = float(re.search(r"other tokens together: ([\d.]+)", html)[1])
    assert abs(rest - (1 - own.topk(10).values.sum())) <= HALF
    assert ("its last 12 are read" in html) == (len(text) > 12)


def test_a_leading_space_is_visible():
    side, session = opened(text_model(), "a b")
    assert '<span class="token" title="id' in views.now(side, session.now, 0)
    assert ">␣<" in views.now(side, session.now, 0)


@pytest.mark.parametrize("head", ["0", "1", views.MEAN])
def test_attention_is_the_models_own(head):
    side, session = opened(text_model(), "ab cd")
    html = views.attention_view(side, session.now, 0, 1, head)
    rows = json.loads(unescape(re.search(r'data-rows="(.*?)"', html)[1]))
    weights = attention(side.model, session.now.readings[0].token_ids).weights[1]
    own = weights.mean(0) if head == views.MEAN else weights[int(head)]
    for t, row in enumerate(rows):
        assert len(row) == t + 1
        assert all(abs(w - own[t, s]) <= HALF for s, w in enumerate(row))
    below = [float(w) for w in re.findall(r"<small>([\d.]+)</small></button>", html)]
    assert below == [float(views.number(w)) for w in rows[-1]]


def test_the_lens_ends_with_the_models_own_prediction():
    side, session = opened(text_model(), "ab cd")
    ids = session.now.readings[0].token_ids
    with torch.no_grad():
        own = side.model(torch.tensor([ids]))[0].softmax(-1).amax(-1)
    html = views.lens_view(side, session.now, 0)
    body = html.split("<tbody>")[1]
    rows = [re.findall(r"<small>([\d.]+)<", row) for row in body.split("</tr>")[:-1]]
    assert len(rows) == len(ids)
    for row, p in zip(rows, own, strict=True):
        assert len(row) == side.model.config.n_layer + 1
        assert abs(float(row[-1]) - p) <= HALF


def test_a_square_has_labels_and_colours_in_which_small_weights_can_be_told_apart():
    side, session = opened(text_model(), "ab<")
    html = views.attention_view(side, session.now, 0, 0, "0")
    labels = re.findall(r"<text.*?>(.*?)</text>", html)
    assert labels == 2 * ["⟨end⟩", "a", "b", "&lt;"]
    weights = attention(side.model, session.now.readings[0].token_ids).weights[0, 0]
    seen = re.findall(r'x="(\d)" y="(\d)" width="1" height="1" fill-opacity="(.*?)"', html)
    for s, t, opacity in seen:
        assert abs(float(opacity) - weights[int(t), int(s)].sqrt()) <= 0.01
    scale = re.findall(r"left:([\d.]+)%.>([\d.]+)<", html)
    assert scale == [
        ("0.0", "0"),
        ("31.6", "0.1"),
        ("50.0", "0.25"),
        ("70.7", "0.5"),
        ("100.0", "1"),
    ]


def test_the_lens_marks_the_token_that_follows():
    side, session = opened(text_model(), "ab cd")
    ids = session.now.readings[0].token_ids
    assert views.actual(side, session.now, ids) == [*ids[1:], None]
    (cell,) = {views.lens_cell(side, [ids[1], 0], [0.5, 0.25], ids[1])}
    assert 'class="token actual"' in cell
    assert "actual" not in views.lens_cell(side, [ids[1], 0], [0.5, 0.25], None)
    side, session = opened(sort_model(), "2 0 1 1")
    assert views.actual(side, session.now, [2, 0, 1, 1, 0, 1]) == [*[None] * 3, 0, 1, None]


def test_a_long_text_is_looked_into_at_its_end():
    side, session = opened(text_model(block_size=200), "abcd" * 30)
    html = views.attention_view(side, session.now, 0, 0, "0")
    assert "Here it reads the last 64 of 121 tokens alone." in html
    assert html.count("data-t=") == 64
    lens = views.lens_view(side, session.now, 0)
    assert "Here it reads the last 64 of 121 tokens alone." in lens
    assert "After each of the last 16 of these 64 tokens, " in lens
    assert lens.split("<tbody>")[1].count("<tr>") == 16


def test_a_long_question_is_looked_into_at_its_beginning():
    side, session = opened(pairs_model(block_size=200), "ab" * 40)
    html = views.attention_view(side, session.now, 0, 0, "0")
    assert "Here it reads the first 64 of 81 tokens alone." in html
    assert html.count("data-t=") == 64


def test_a_model_that_sorts_shows_its_answer_and_whether_it_is_right():
    side, session = opened(sort_model(), "2 0 1 1")
    answer = side.answer((2, 0, 1, 1))
    html = views.now(side, session.now, 0)
    assert ("verdict right" if answer == (0, 1, 1, 2) else "verdict wrong") in html
    tokens = re.findall(r'class="token (?:right|wrong)">(\d)<', html)
    assert tuple(map(int, tokens)) == answer


def test_a_complete_answer_can_be_looked_into():
    explorer = Explorer([Side("a", sort_model())])
    session = explorer.typed(explorer.opened(""), "2 0 1 1")
    for token in (0, 1, 1, 2):
        session = explorer.chosen(session, 0, token)
    side = explorer.sides[0]
    assert "data-token" not in views.now(side, session.now, 0)
    assert views.attention_view(side, session.now, 0, 0, "0").count("data-t=") == 7


def test_a_problem_is_shown_in_place_of_numbers():
    side, session = opened(sort_model(), "2 0")
    for html in (
        views.now(side, session.now, 0),
        views.attention_view(side, session.now, 0, 0, "0"),
        views.lens_view(side, session.now, 0),
        views.tokenizer_view(side, session.now, 0),
    ):
        assert html.startswith('<p class="problem">prompt: has 2 digits')


def test_text_is_text_whatever_it_holds():
    side, session = opened(text_model(), "<b>&\"'$")
    for html in (
        views.now(side, session.now, 0),
        views.attention_view(side, session.now, 0, 0, "0"),
        views.lens_view(side, session.now, 0),
        views.tokenizer_view(side, session.now, 0),
    ):
        assert "&lt;" in html
        assert "<b>" not in html
    side, session = opened(made(Speech.of_text(gpt2_tokenizer())), "<script>x</script> ${x} {{x}}")
    assert "<script" not in views.tokenizer_view(side, session.now, 0)


def test_the_stages_of_byte_pair_encoding_are_shown_one_by_one():
    side, session = opened(made(Speech.of_text(gpt2_tokenizer()), block_size=64), " low")
    html = views.tokenizer_view(side, session.now, 0)
    rows = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", html)
    steps = [(name, re.findall(r">([^<]+)<", cells)) for name, cells in rows]
    assert steps == [
        ("bytes", ["Ġ", "l", "o", "w"]),
        ("Ġ+l", ["Ġl", "o", "w"]),
        ("o+w", ["Ġl", "ow"]),
        ("Ġl+ow", ["Ġlow"]),
        ("ids", ["1877"]),
    ]


def test_of_a_long_piece_the_ids_are_shown_and_of_many_pieces_the_first():
    side, session = opened(made(Speech.of_text(gpt2_tokenizer())), "a" * 100_000)
    html = views.tokenizer_view(side, session.now, 0)
    assert len(html) < 1_000_000
    assert "It has 100,000 bytes; merges are shown of 64 at most." in html
    ids = side.speech.tokenizer.encode("a" * 100_000)
    assert f">{ids[0]}</span>" in html
    assert f"{len(ids) - views.MOST_IN_STRIP:,} more" in html
    side, session = opened(side.model, " a" * 50_000)
    assert "49,960 more pieces follow." in views.tokenizer_view(side, session.now, 0)


def test_what_would_show_as_nothing_in_a_piece_is_visible():
    side, session = opened(made(Speech.of_text(gpt2_tokenizer())), "\r\x00")
    html = views.tokenizer_view(side, session.now, 0)
    assert re.findall("<h4.*?>(.*?)</h4>", html) == ["␍", "\\x00"]


def test_chosen_tokens_that_the_tokenizer_would_not_make_are_told_of():
    explorer = Explorer([Side("a", made(Speech.of_text(gpt2_tokenizer())))])
    session = explorer.typed(explorer.opened(""), "l")
    ow = explorer.sides[0].speech.tokenizer.encode("ow")[0]
    session = explorer.chosen(session, 0, ow)
    assert "Tokens were chosen one by one" in views.tokenizer_view(
        explorer.sides[0], session.now, 0
    )
