import pytest

from gpt2lab.generation import Speech
from gpt2lab.insight import label
from gpt2lab.tokenizer import CharTokenizer, DigitTokenizer, gpt2_tokenizer

GPT2 = Speech.of_text(gpt2_tokenizer())


@pytest.mark.parametrize(
    ("token_id", "shown"),
    [
        (1877, "␣low"),
        (198, "↵"),
        (220, "␣"),
        (50256, "<|endoftext|>"),
        (50257, "<|50257|>"),
        (12520, r"\x20\xf0\x9f"),  # a space and half an emoji
        (188, r"\x00"),
    ],
)
def test_what_would_not_show_is_made_visible(token_id, shown):
    assert label(GPT2, token_id) == shown


def test_characters_and_digits_are_themselves():
    assert label(Speech.of_text(CharTokenizer("ab\n", end_of_text=True)), 3) == "<|endoftext|>"
    assert label(Speech.of_text(CharTokenizer("ab\n")), 0) == "↵"
    assert label(Speech.of_sort(DigitTokenizer(12), 6), 11) == "11"


def test_ids_are_numbers_where_nothing_says_what_they_stand_for():
    assert label(None, 7) == "7"
