"""What a user does with a text, and what becomes of it."""

from urllib.parse import parse_qs

import pytest
import torch

from gpt2lab.config import SamplingConfig
from gpt2lab.errors import DataError
from gpt2lab.explorer.session import (
    MOST_CHARACTERS,
    MOST_UNDONE,
    Explorer,
    Reading,
    Side,
    Text,
    remembered,
)
from gpt2lab.generation import Speech, generate
from gpt2lab.tokenizer import CharTokenizer, gpt2_tokenizer
from tests.insight.models import CHARACTERS, made, pairs_model, sort_model, text_model


@pytest.fixture
def text():
    return Explorer([Side("a", text_model())])


@pytest.fixture
def sort():
    return Explorer([Side("sort", sort_model())])


def ids_of(session, side=0):
    return session.now.readings[side].token_ids


def character(explorer, c):
    return explorer.sides[0].speech.tokenizer.encode(c)[0]


def test_a_chosen_token_stands_behind_the_text(text):
    session = text.typed(text.opened(""), "ab")
    session = text.chosen(session, 0, character(text, "c"))
    assert session.now.text == "abc"
    assert ids_of(session) == text.sides[0].read("abc").token_ids


def test_undo_takes_back_a_choice_and_all_that_was_typed_at_once(text):
    session = text.opened("")
    for typed in ("a", "ab", "abc"):
        session = text.typed(session, typed)
    session = text.chosen(session, 0, character(text, "d"))
    session = text.chosen(session, 0, character(text, "a"))
    shown = []
    while session.past:
        session = text.undone(session)
        shown.append(session.now.text)
    assert shown == ["abcd", "abc", ""]
    assert text.undone(session).note == "There is nothing to undo."


def test_what_is_done_keeps_the_count_of_what_was_typed(text):
    session = text.typed(text.opened(""), "ab", num_typed=3)
    chosen = text.chosen(session, 0, character(text, "c"))
    (sampled,) = text.sampled(chosen, 0, 1, SamplingConfig())
    assert [s.num_typed for s in (session, chosen, sampled, text.undone(sampled))] == [3] * 4
    assert text.typed(session, "ab", num_typed=4).num_typed == 4


def test_what_is_remembered_has_an_end(text):
    session = text.opened("")
    for _ in range(MOST_UNDONE + 5):
        session = text.chosen(session, 0, character(text, "a"))
    assert len(session.past) == MOST_UNDONE


def test_of_long_texts_fewer_are_remembered(monkeypatch):
    def text(token_ids):
        return Text("", (Reading((0,) * token_ids), Reading((0,) * token_ids)))

    monkeypatch.setattr("gpt2lab.explorer.session.MOST_TOKENS_UNDONE", 20)
    past = tuple(map(text, (1, 2, 3, 6)))
    assert remembered(past) == past[2:]  # 18 tokens
    assert remembered((*past, text(11))) == ()


def test_an_address_leads_to_the_same_text(text):
    for typed in ("", "ab <c>&$\n", "é'\""):
        session = text.typed(text.opened(""), typed)
        again = text.opened(text.address(session))
        assert (again.now, "ids=" in text.address(session)) == (session.now, False)


def test_ids_stand_in_the_address_only_where_the_text_would_be_read_otherwise(text):
    end = text.sides[0].speech.tokenizer.end_of_text
    session = text.chosen(text.typed(text.opened(""), "ab"), 0, end)
    assert session.now.text == "ab"  # the end of a document has no text
    assert parse_qs(text.address(session)[1:])["ids"] == [".".join(map(str, ids_of(session)))]
    assert text.opened(text.address(session)).now == session.now


def test_a_text_that_is_too_long_for_an_address_is_in_none(text):
    session = text.typed(text.opened(""), "a" * 9000)
    assert text.address(session) == "?"


def test_half_a_character_is_in_no_address(text):
    session = text.typed(text.opened(""), "a\ud800")
    assert "half a character" in session.now.readings[0].problem
    assert text.address(session) == "?"


def test_an_address_of_too_many_fields_leads_to_the_prompt(text):
    assert text.opened("?" + "text=ab&" * 30).now == text.opened("").now


def test_gpt2s_tokens_come_back_as_they_were_chosen():
    speech = Speech.of_text(gpt2_tokenizer())
    explorer = Explorer([Side("a", made(speech))])
    session = explorer.typed(explorer.opened(""), "l")
    session = explorer.chosen(session, 0, speech.tokenizer.encode("ow")[0])
    assert session.now.text == "low"
    assert ids_of(session) != explorer.sides[0].read("low").token_ids
    assert explorer.opened(explorer.address(session)).now == session.now


@pytest.mark.parametrize(
    "ids", ["x", "-1", "1.2", "99999", "1..2", "9" * 5000, ".".join(["1"] * 200_000)]
)
def test_ids_that_do_not_belong_to_the_text_are_passed_over(text, ids):
    assert text.opened(f"?text=ab&ids={ids}").now == text.text_of("ab")


def test_the_page_begins_with_the_prompt_unless_the_address_says_otherwise():
    explorer = Explorer([Side("a", text_model())], prompt="ab")
    assert explorer.opened("").now.text == "ab"
    assert explorer.opened("?text=").now.text == ""
    emptied = explorer.typed(explorer.opened(""), "")
    assert explorer.opened(explorer.address(emptied)).now == emptied.now


def test_what_cannot_be_read_is_said_and_nothing_follows(text):
    session = text.typed(text.opened(""), "x")
    problem = session.now.readings[0].problem
    assert problem.startswith("prompt: ")
    with pytest.raises(DataError, match="prompt: "):
        text.chosen(session, 0, 0)
    with pytest.raises(DataError, match="prompt: "):
        next(text.sampled(session, 0, 1, SamplingConfig()))


def test_a_text_that_is_too_long_is_refused(text):
    problem = text.text_of("a" * (MOST_CHARACTERS + 1)).readings[0].problem
    assert problem == "text: is longer than 100,000 characters; give a shorter one"


@pytest.mark.parametrize("token", [-1, 10_000])
def test_a_token_that_is_none_is_refused(text, token):
    with pytest.raises(DataError, match=f"token: {token} is none of the model's"):
        text.chosen(text.opened(""), 0, token)


def test_a_sample_is_the_one_that_sampling_makes():
    explorer = Explorer([Side("a", made(Speech.of_text(CharTokenizer(CHARACTERS))))])
    session = explorer.typed(explorer.opened(""), "ab")
    sampling = {"temperature": 0.8, "top_k": 5, "top_p": 0.9}
    *_, last = explorer.sampled(session, 0, 8, SamplingConfig(**sampling))
    wanted = generate(explorer.sides[0].model, "ab", max_new_tokens=8, seed=0, **sampling)
    assert last.now.text == wanted
    assert explorer.undone(last).now == session.now  # one step


def test_a_sample_beyond_the_context_is_the_one_that_sampling_makes():
    speech = Speech.of_text(CharTokenizer(CHARACTERS))
    explorer = Explorer([Side("a", made(speech, block_size=32))])  # from which 4 go at a time
    *_, last = explorer.sampled(explorer.opened("?text=ab"), 0, 50, SamplingConfig())
    with pytest.warns(UserWarning, match="its oldest tokens are dropped"):
        wanted = generate(explorer.sides[0].model, "ab", max_new_tokens=50, seed=0)
    assert last.now.text == wanted


def test_a_sample_ends_with_its_document(text, monkeypatch):
    side = text.sides[0]
    certain = torch.full((side.model.vocab_size,), -30.0)
    certain[side.speech.tokenizer.end_of_text] = 30.0
    monkeypatch.setattr(side.reader, "logits", lambda ids: certain)
    (after,) = text.sampled(text.opened("?text=ab"), 0, 5, SamplingConfig())
    assert (after.now.text, after.note) == ("ab", "The document ends here, says the model.")
    assert after.drawn == 1  # again, it takes other draws


def test_another_sample_of_the_same_text_takes_other_draws(text):
    session = text.typed(text.opened(""), "ab")
    *_, first = text.sampled(session, 0, 6, SamplingConfig(temperature=1.0))
    *_, second = text.sampled(text.undone(first), 0, 6, SamplingConfig(temperature=1.0))
    assert first.now != second.now


def test_beyond_the_context_the_last_tokens_are_read(text):
    side = text.sides[0]
    long = tuple(side.read("abcd" * 6).token_ids)
    assert side.window(long) == long[-12:]
    with torch.no_grad():
        own = side.model(torch.tensor([long[-12:]]))[0, -1]
    torch.testing.assert_close(side.logits(long), own, rtol=1e-5, atol=1e-5)


def test_an_answer_is_said_token_by_token_and_then_complete(sort):
    session = sort.typed(sort.opened(""), "2 0 1 1")
    for token in (0, 1, 1, 2):
        assert not sort.sides[0].is_over(session.now, ids_of(session))
        session = sort.chosen(session, 0, token)
    assert session.now.text == "2 0 1 1"  # the question stays
    assert sort.sides[0].is_over(session.now, ids_of(session))
    with pytest.raises(DataError, match="the answer is complete"):
        sort.chosen(session, 0, 0)
    with pytest.raises(DataError, match="the answer is complete"):
        next(sort.sampled(session, 0, 1, SamplingConfig()))
    assert sort.opened(sort.address(session)).now == session.now


def test_a_sampled_answer_ends_when_it_is_complete(sort):
    session = sort.typed(sort.opened(""), "2 0 1 1")
    made = list(sort.sampled(session, 0, 100, SamplingConfig(temperature=0.0)))
    assert len(made) == 4
    assert ids_of(made[-1])[4:] == sort.sides[0].answer((2, 0, 1, 1))


def test_pairs_answer_behind_their_separator():
    explorer = Explorer([Side("pairs", pairs_model())])
    session = explorer.typed(explorer.opened(""), "ab")
    assert ids_of(session) == tuple(explorer.sides[0].speech.tokenizer.encode("ab="))
    assert explorer.opened(explorer.address(session)).now == session.now


def test_a_question_that_leaves_no_room_for_an_answer_is_refused():
    side = Side("pairs", pairs_model())
    assert side.read("a" * 11).problem is None
    assert side.read("a" * 12).problem == (
        "text: has 13 tokens, and the model reads 12; give a shorter one"
    )


def test_two_models_with_one_tokenizer_read_the_same_ids():
    explorer = Explorer([Side("a", text_model()), Side("b", text_model())])
    end = explorer.sides[0].speech.tokenizer.end_of_text
    session = explorer.chosen(explorer.typed(explorer.opened(""), "ab"), 1, end)
    assert ids_of(session, 0) == ids_of(session, 1)


def test_two_models_with_different_tokenizers_read_the_same_text():
    other = made(Speech.of_text(CharTokenizer(CHARACTERS + "xyz", end_of_text=True)))
    explorer = Explorer([Side("a", text_model()), Side("b", other), Side("sort", sort_model())])
    session = explorer.typed(explorer.opened(""), "ab")
    session = explorer.chosen(session, 1, other.speech.tokenizer.encode("c")[0])
    assert session.now.text == "abc"
    assert ids_of(session, 0) == explorer.sides[0].read("abc").token_ids
    assert session.now.readings[2].problem  # a model that sorts reads no letters
