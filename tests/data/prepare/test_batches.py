"""A text may be cut without changing its ids."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2lab.data.prepare.batches import between, pieces
from gpt2lab.tokenizer import gpt2_tokenizer


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(" \n\t\r\x1c\x85\u3000a1'sé🤗.<|>", max_size=40) | st.text(" \na") | st.text(),
    width=st.integers(1, 9),
    size=st.integers(1, 9),
)
@example(text="a\n\n\n b", width=3, size=1)
def test_a_text_in_pieces_has_the_ids_of_the_whole(text, width, size):
    chunks = [text[i : i + width] for i in range(0, len(text), width)]
    found = list(pieces(chunks, size))
    assert "".join(found) == text
    encode = gpt2_tokenizer().encode
    assert [i for piece in found for i in encode(piece)] == encode(text)


def test_a_long_text_is_cut_as_soon_as_it_can_be():
    words = "word " * 100
    assert max(map(len, pieces([words[i : i + 10] for i in range(0, 500, 10)], 20))) <= 30
    assert list(pieces(["ab", "cd", "ef gh", " ij"], 2)) == ["abcdef", " gh", " ij"]


@given(st.text(max_size=20), st.integers(0, 22), st.integers(0, 22), st.integers(1, 5))
def test_between_is_a_slice(text, start, stop, width):
    chunks = [text[i : i + width] for i in range(0, len(text), width)]
    assert "".join(between(chunks, start, stop)) == text[start:stop]
