r"""Benchmarks of text that was cut into words, put back as people write it.

GPT-2 was trained on text as it is, to which `the dog 's bone , she said` is odd. The GPT-2 paper
(section 3.1) undoes such artifacts before it scores a text, and still counts words as they were
cut; its own rules are not published. These are ours: each is a pattern and what takes its place,
under the artifact that it undoes. None looks beyond its line.
"""

import re

Rule = tuple[str, str]

PUNCTUATION: tuple[Rule, ...] = (
    # a blank before what ends a phrase: `well , yes .`
    (r" ([,.:;!?]+)(?=[\s\"')\]]|$)", r"\1"),
    # blanks within brackets: `( 24 in )`
    (r"([(\[{]) ", r"\1"),
    (r" ([)\]}])", r"\1"),
)
QUOTES: tuple[Rule, ...] = (
    # blanks within a pair of quotation marks: `a " lobster red " shell`
    (r"\" ([^\"\n]*?) \"", r'"\1"'),
)
CLITICS: tuple[Rule, ...] = (
    # endings cut off their word: `it 's`, `do n't`, `don 't`, `they 're`
    (r" ('(?:s|S|m|d|t|re|ve|ll)|n't)(?![\w'])", r"\1"),
    # the plural's possessive: `the boys ' room`
    (r"(?<=s) '(?= )", "'"),
)
MONEY: tuple[Rule, ...] = (
    # signs cut off their number: `$ 5`, `# 1`, `50 %`
    (r"([$£#]) (?=\d)", r"\1"),
    (r"(?<=\d) %", "%"),
)
LINES: tuple[Rule, ...] = (
    # a blank at each end of a line
    (r"(?m)^ +| +$", ""),
)

WIKITEXT: tuple[Rule, ...] = (
    # signs within a word or number: `20 @-@ year`, `1 @,@ 000`, `2 @.@ 5`
    (r" @([-,.])@ ", r"\1"),
    # headings: `= = Size = =` as `== Size ==`
    (r"(?<==) (?==)", ""),
    *MONEY,
    *QUOTES,
    *PUNCTUATION,
    *CLITICS,
    *LINES,
)
"""WikiText-2 and -103, whose `<unk>` stays: nobody can say what it was."""
PTB: tuple[Rule, ...] = (
    # numbers, all of which are `N`: `$ N million`
    (r"\bN\b", "1"),
    *MONEY,
    *CLITICS,
    *LINES,
)
"""Penn Treebank in the form of Mikolov et al.: lower case, without punctuation."""
ONE_BILLION_WORDS: tuple[Rule, ...] = (*MONEY, *QUOTES, *PUNCTUATION, *CLITICS, *LINES)
"""The One Billion Word benchmark: lines of news in no order."""
CHILDRENS_BOOKS: tuple[Rule, ...] = (
    # the Penn Treebank's names for brackets and quotation marks
    (r"-LRB-", "("),
    (r"-RRB-", ")"),
    (r"``|''", '"'),
    *QUOTES,
    *PUNCTUATION,
    *CLITICS,
    *LINES,
)
"""The Children's Book Test."""


def detokenized(text: str, rules: tuple[Rule, ...]) -> str:
    """A text with rules applied one after the other."""
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text
