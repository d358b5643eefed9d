"""Tokenizers in files: transformers reads them, and gives the same ids and texts."""

import hashlib
import json

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.errors import DataError
from gpt2lab.tokenizer import CharTokenizer, DigitTokenizer, gpt2_tokenizer
from gpt2lab.weights.reread import known_texts
from gpt2lab.weights.tokenizer_files import tokenizer_files

# The space, signs that are special somewhere, what is beyond 16 bits, a combining accent.
CHARACTERS = '\n\t\r !"$.<>?[\\]^_`{|}~abcdenoftx▁ĠÄß東🤗\u0301\u00a0'
TOKENIZERS = {
    "gpt2": gpt2_tokenizer(),
    "characters": CharTokenizer(CHARACTERS),
    "characters and an end": CharTokenizer(CHARACTERS, end_of_text=True),
    "digits": DigitTokenizer(3),
    "numbers": DigitTokenizer(12),
}


@pytest.fixture(scope="module", params=TOKENIZERS.values(), ids=TOKENIZERS.keys())
def pair(request, tmp_path_factory):
    """A tokenizer of ours, and transformers' of its files."""
    return request.param, loaded(request.param, tmp_path_factory.mktemp("tokenizer"))


def loaded(tokenizer, folder, context=64):
    for name, content in tokenizer_files(tokenizer, context).items():
        (folder / name).write_bytes(content)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_known_texts_have_the_same_ids_and_come_back(pair):
    ours, theirs = pair
    for text in known_texts(ours):
        ids = ours.encode(text, allow_special=True)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == ours.decode(ids)


def test_every_id_has_the_same_text(pair):
    ours, theirs = pair
    for token in range(0, ours.vocab_size, 1 + ours.vocab_size // 5000):
        assert theirs.decode([token]) == ours.decode([token]), token
    assert len(theirs) == ours.vocab_size
    assert theirs.eos_token_id == theirs.bos_token_id == ours.end_of_text
    assert theirs.model_max_length == 64


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return loaded(TOKENIZERS["gpt2"], tmp_path_factory.mktemp("gpt2"))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cn"])))
def test_any_text_has_gpt2s_ids(gpt2, text):
    assert gpt2.encode(text) == gpt2_tokenizer().encode(text, allow_special=True)


@settings(max_examples=200, deadline=None)
@given(st.text(CHARACTERS))
def test_any_text_of_the_characters_has_their_ids(characters, text):
    ours, theirs = characters
    ids = ours.encode(text)
    assert theirs.encode(text) == ids
    assert theirs.decode(ids) == text


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    ours = TOKENIZERS["characters"]
    return ours, loaded(ours, tmp_path_factory.mktemp("characters"))


@pytest.mark.parametrize(
    ("kind", "text"), [("characters", "aZ"), ("digits", "0 3"), ("digits", "0 1a")]
)
def test_what_has_no_id_is_refused_by_both(tmp_path, kind, text):
    ours = TOKENIZERS[kind]
    with pytest.raises(DataError):
        ours.encode(text)
    with pytest.raises(Exception, match=r"\[UNK\]"):
        loaded(ours, tmp_path).encode(text)


@pytest.mark.parametrize("between", [" ", ",", ", ", "\n", "\t \u2003", "\x1c", "\x85", "\u3000"])
def test_digits_may_be_apart_by_whatever_ours_takes(tmp_path, between):
    text = f" 2{between}0{between}11 "
    ours = TOKENIZERS["numbers"]
    assert loaded(ours, tmp_path).encode(text) == ours.encode(text) == [2, 0, 11]


def test_gpt2s_own_two_files_are_those_that_were_published():
    files = tokenizer_files(gpt2_tokenizer(), 1024)
    vocabulary = json.loads(files["vocab.json"])
    assert vocabulary["Ġlow"] == 1877
    assert vocabulary["<|endoftext|>"] == 50256
    published = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    assert hashlib.sha256(files["merges.txt"]).hexdigest() == published


def test_an_end_of_text_within_a_text_is_the_special_token_only_where_there_is_one(tmp_path):
    text = "to<|endoftext|>to"
    without = TOKENIZERS["characters"]
    assert loaded(without, tmp_path).encode(text) == without.encode(text)
    assert len(without.encode(text)) == len(text)
