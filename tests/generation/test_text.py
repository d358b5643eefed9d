"""Text in, text out."""

import warnings
from dataclasses import replace

import pytest
import torch

from gpt2lab.config import GPT2Config, SampleConfig, SamplingConfig
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.generation import Speech, generate, pack, samples, stream
from gpt2lab.generation.speech import Pieces, cropped
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import CharTokenizer, DigitTokenizer, gpt2_tokenizer

CHARS = CharTokenizer("\nabcdefg", end_of_text=True)
BOOK = CharTokenizer("\nabcdefgh")
SETTINGS = SampleConfig(max_new_tokens=8, sampling=SamplingConfig(temperature=1.0))


def model_of(speech: Speech, block_size: int = 32) -> GPT2:
    torch.manual_seed(1)
    vocab_size = speech.tokenizer.vocab_size
    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=16, block_size=block_size, vocab_size=vocab_size, dropout=0
    )
    model = GPT2(config).eval()
    for parameter in model.parameters():
        parameter.data *= 4
    model.speech = speech
    return model


@pytest.fixture
def model() -> GPT2:
    return model_of(Speech.of_text(CHARS))


def test_a_prompt_begins_with_a_start_token_and_ends_without_one():
    speech = Speech.of_text(gpt2_tokenizer())
    assert speech.encode("Hello world") == [50256, 15496, 995]
    assert speech.encode("Hello world", add_start_token=False) == [15496, 995]
    assert speech.encode("") == [50256] == speech.encode("", add_start_token=False)


def test_the_name_of_a_special_token_is_plain_text_unless_allowed():
    speech = Speech.of_text(gpt2_tokenizer())
    plain = speech.encode("<|endoftext|>", add_start_token=False)
    assert 50256 not in plain
    assert speech.encode("<|endoftext|>", add_start_token=False, allow_special=True) == [50256]


def test_a_character_model_begins_with_a_newline_or_else_its_first_character():
    assert Speech.of_text(BOOK).encode("") == BOOK.encode("\n")
    assert Speech.of_text(BOOK).encode("abc") == BOOK.encode("abc")
    assert Speech.of_text(CharTokenizer("xyz")).encode("") == [0]
    assert Speech.of_text(CHARS).encode("") == [CHARS.end_of_text]


def test_a_question_has_its_separator_and_needs_words():
    speech = Speech.of_pairs(CHARS, "\n")
    assert speech.encode("ab") == CHARS.encode("ab\n")
    with pytest.raises(DataError, match="prompt: is empty"):
        Speech.of_pairs(CHARS, "").encode("")


def test_a_sorting_model_takes_as_many_digits_as_it_sorts():
    speech = Speech.of_sort(DigitTokenizer(3), 6)
    assert speech.encode("2 0 1 1 0 2") == [2, 0, 1, 1, 0, 2]
    with pytest.raises(DataError, match=r"prompt: has 2 digits, .* questions of 6"):
        speech.encode("2 0")
    with pytest.raises(DataError, match=r"prompt: .*'7'"):
        speech.encode("2 0 1 1 0 7")


def test_what_a_model_does_not_know_is_named(model):
    with pytest.raises(DataError, match=r"prompt: text: the character 'z'.* at index 1"):
        generate(model, "az")


def test_packing_pads_on_the_right():
    packed = pack([[3, 1], [4]], length=3)
    assert packed["token_ids"].tolist() == [[3, 1, 0], [4, 0, 0]]
    assert packed["padding_mask"].tolist() == [[True, True, False], [True, False, False]]


def test_one_text_gives_one_text_and_several_a_list(model):
    one = generate(model, "abc", max_new_tokens=5, seed=1)
    assert one.startswith("abc")
    first, second = generate(model, ["abc", "d"], max_new_tokens=5, seed=1)
    assert first == one
    assert second.startswith("d")
    assert len(generate(model, "abc", max_new_tokens=5, num_samples=3)) == 3
    assert generate(model, []) == []


def test_a_text_is_stripped_of_specials_and_on_request_of_its_prompt(model):
    settings = {"max_new_tokens": 20, "stop_at_end": False, "num_samples": 8}
    whole = generate(model, "abc", **settings)
    rest = generate(model, "abc", **settings, strip_prompt=True)
    assert whole == ["abc" + text for text in rest]
    assert set("".join(whole)) <= set(CHARS.characters)
    assert min(map(len, rest)) < 20  # there was an end of text, which shows nowhere


def test_a_sample_ends_with_its_document(model):
    (batch,) = samples(model, ["abc"], replace(SETTINGS, max_new_tokens=20, num_samples=8))
    for sample in batch:
        assert CHARS.end_of_text not in sample.token_ids
        ended = len(sample.token_ids) < 20
        assert sample.stop_reason == ("stop_token" if ended else "length")
    assert len({sample.stop_reason for sample in batch}) == 2


def test_the_longest_length_counts_prompt_and_start_token(model):
    settings = replace(SETTINGS, max_length=6, stop_at_end=False)
    ((sample,),) = samples(model, ["abc"], settings)
    assert len(sample.token_ids) == 2
    with pytest.raises(ConfigError, match="max_length: 4 leaves no room behind a prompt of 4"):
        list(samples(model, ["abc"], replace(settings, max_length=4)))


def test_the_longest_length_counts_what_the_context_cannot_hold(model):
    with pytest.warns(UserWarning, match="its last ones are kept"):
        text = generate(model, "a" * 40, max_length=44, stop_at_end=False)
    assert len(text) == 43  # and the start token
    with pytest.raises(ConfigError, match="max_length: 41 leaves no room behind a prompt of 41"):
        generate(model, "a" * 40, max_length=41)


def test_half_a_question_is_not_answered():
    model = model_of(Speech.of_pairs(CHARS, "\n"))
    with pytest.raises(DataError, match="prompt: has 33 tokens, the model's context is 32"):
        generate(model, "a" * 32)
    with warnings.catch_warnings(action="error"):  # an answer ends by itself
        generate(model, "abc")


def test_samples_come_in_order_and_each_has_draws_of_its_own(model):
    settings = replace(SETTINGS, num_samples=3, batch_size=2, stop_at_end=False)
    batches = list(samples(model, ["abc", "d"], settings))
    assert [len(batch) for batch in batches] == [2, 2, 2]
    made = [sample for batch in batches for sample in batch]
    assert [sample.number for sample in made] == list(range(6))
    assert [sample.prompt for sample in made] == ["abc"] * 3 + ["d"] * 3
    assert len({tuple(sample.token_ids) for sample in made}) == 6


@pytest.mark.parametrize("prompt", ["", "abc"])
def test_pieces_of_a_stream_make_the_text_of_the_same_number(model, prompt):
    ((*_, last),) = samples(model, [prompt], replace(SETTINGS, num_samples=3))
    assert "".join(stream(model, prompt, SETTINGS, number=2)) == last.text


def test_a_stream_by_beams_is_its_best_text(model):
    settings = replace(SETTINGS, sampling=SamplingConfig(num_beams=3))
    ((sample,),) = samples(model, ["abc"], settings)
    assert "".join(stream(model, "abc", settings)) == sample.text


def test_a_character_of_several_tokens_comes_whole():
    speech = Speech.of_text(gpt2_tokenizer())
    text = "naïve 🤗🤗 日本\n"
    ids = speech.tokenizer.encode(text)
    pieces = Pieces(speech, [])
    parts = [pieces.add(i) for i in ids]
    assert "".join(parts) + pieces.rest() == text
    assert "" in parts
    assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_the_text_of_all_whatever_bytes_they_are_made_of(seed):
    speech = Speech.of_text(gpt2_tokenizer())
    draws = torch.randint(262, (200,), generator=torch.Generator().manual_seed(seed))
    ids = [50253 + i if i > 255 else i for i in draws.tolist()]  # bytes, the end, and unknown ones
    pieces = Pieces(speech, [])
    assert "".join(map(pieces.add, ids)) + pieces.rest() == speech.decode(ids)


def test_no_character_is_lost_behind_bytes_that_are_none():
    speech = Speech.of_text(gpt2_tokenizer())
    encode = speech.tokenizer.encode
    broken = encode("🤗")[:1]
    for number in range(1, 6):
        ids = encode("漢字") + broken * number + encode("漢字")
        pieces = Pieces(speech, [])
        text = "".join(map(pieces.add, ids)) + pieces.rest()
        assert text.replace("\ufffd", "") == "漢字漢字"


def test_digits_are_streamed_with_spaces_between():
    model = model_of(Speech.of_sort(DigitTokenizer(3), 3), block_size=5)
    text = "".join(stream(model, "2 0 1", SampleConfig(strip_prompt=False)))
    assert text == generate(model, "2 0 1", strip_prompt=False)
    assert text.startswith("2 0 1 ")
    assert len(text.split()) == 6


def test_a_question_gets_the_likeliest_answer_alone():
    model = model_of(Speech.of_sort(DigitTokenizer(3), 3), block_size=5)
    answers = generate(model, "2 0 1", num_samples=4)
    assert len(set(answers)) == 1
    assert len(answers[0].split()) == 3
    drawn = generate(model, "2 0 1", num_samples=20, temperature=5.0)
    assert len(set(drawn)) > 1


def test_log_probabilities_and_alternatives_stand_beside_each_token(model):
    ((sample,),) = samples(model, ["ab"], replace(SETTINGS, logprobs=True, stop_at_end=False))
    assert len(sample.logprobs) == len(sample.alternatives) == len(sample.token_ids) == 8
    for token, logprob, others in zip(
        sample.token_ids, sample.logprobs, sample.alternatives, strict=True
    ):
        assert len(others) == CHARS.vocab_size  # there are no ten
        assert [other.logprob for other in others] == sorted(o.logprob for o in others)[::-1]
        (chosen,) = [other for other in others if other.token_id == token]
        assert chosen.logprob == pytest.approx(logprob)
        assert chosen.piece == CHARS.decode([token])


def test_a_text_that_can_outgrow_the_context_is_warned_of(model):
    with pytest.warns(UserWarning, match="a text of 44 tokens outgrows .* context of 32"):
        generate(model, "abc", max_new_tokens=40)


def test_a_longer_prompt_keeps_its_end():
    with pytest.warns(UserWarning, match="prompt: has 5 tokens, the model's context is 3"):
        assert cropped([[1, 2, 3, 4, 5], [6]], 3) == [[3, 4, 5], [6]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature: -1.0 is out of range"),
        ({"top_k": 0}, "top_k: 0 is out of range"),
        ({"top_kk": 3}, "top_kk: there is no such setting"),
        ({"prompt": "abc"}, "prompt: is no setting of generate"),
        ({"num_beams": 2, "top_k": 3}, "sampling.num_beams: 2 beams draw nothing"),
        ({"beyond_context": "wrap"}, "beyond_context: 'wrap' is not an option"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        generate(model, "abc", **settings)


def test_a_model_without_a_vocabulary_takes_ids_alone(tiny_model):
    with pytest.raises(DataError, match="what its 11 ids stand for is not known"):
        generate(tiny_model, "abc")
    assert len(generate(tiny_model, torch.tensor([1, 2]), max_new_tokens=3)) == 5


def test_of_several_prompts_the_one_that_cannot_be_taken_is_named_by_its_number():
    model = GPT2(GPT2Config(n_layer=1, n_head=1, n_embd=8, block_size=11, vocab_size=3))
    model.speech = Speech.of_sort(DigitTokenizer(3), 6)
    with pytest.raises(DataError, match=r"^prompt 2 of 3: has 2 digits"):
        generate(model, ["2 0 1 1 0 2", "2 0", "0 0 0 0 0 0"])
    with pytest.raises(DataError, match=r"^prompt: has 2 digits"):
        generate(model, "2 0")
