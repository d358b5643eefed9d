"""Text that was cut into words is put back as people write it."""

import pytest

from gpt2lab.evaluation.detokenize import (
    CHILDRENS_BOOKS,
    ONE_BILLION_WORDS,
    PTB,
    WIKITEXT,
    detokenized,
)


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("a 20 @-@ year @-@ old", "a 20-year-old"),
        ("1 @,@ 000 of 2 @.@ 5", "1,000 of 2.5"),
        (" = = Description = = \n", "== Description ==\n"),
        (" = Homarus gammarus = \n \n Homarus", "= Homarus gammarus =\n\nHomarus"),
        ("known as this , that ; and so : yes .", "known as this, that; and so: yes."),
        ("60 cm ( 24 in ) and [ 1 ]", "60 cm (24 in) and [1]"),
        ('turn " lobster red " on', 'turn "lobster red" on'),
        ('the " vein " ( gut ) .', 'the "vein" (gut).'),
        ("it 's the boys ' room , do n't", "it's the boys' room, don't"),
        ("they 're $ 5 @,@ 000 or 50 % off", "they're $5,000 or 50% off"),
        ("a <unk> – 3 km", "a <unk> – 3 km"),  # noqa: RUF001
        ('one " and\nanother " , too', 'one " and\nanother ", too'),
    ],
)
def test_wikitext(cut, whole):
    assert detokenized(cut, WIKITEXT) == whole


def test_penn_treebank():
    cut = " consumers do n't pay $ N million or # N for mr. allen 's <unk> \n"
    assert detokenized(cut, PTB) == "consumers don't pay $1 million or #1 for mr. allen's <unk>\n"


def test_one_billion_words():
    cut = 'He said : " We ca n\'t ( yet ) pay $ 5 . "'
    assert detokenized(cut, ONE_BILLION_WORDS) == 'He said: "We can\'t (yet) pay $5."'


def test_childrens_books():
    cut = "`` Well , I ca n't , '' said he -LRB- the king 's man -RRB- ."
    assert detokenized(cut, CHILDRENS_BOOKS) == "\"Well, I can't,\" said he (the king's man)."


@pytest.mark.parametrize("rules", [WIKITEXT, PTB, ONE_BILLION_WORDS, CHILDRENS_BOOKS])
def test_lines_stay_lines(rules):
    text = " \n a b \n\n = c = \n ' d \" e \n"
    assert detokenized(text, rules).count("\n") == text.count("\n")
