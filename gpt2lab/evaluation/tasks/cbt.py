"""The Children's Book Test: which of ten words is missing (Hill et al. 2016)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.config import EvaluateConfig
from gpt2lab.data.jsonl import Row, field
from gpt2lab.errors import DataError
from gpt2lab.evaluation.detokenize import CHILDRENS_BOOKS, detokenized
from gpt2lab.evaluation.files import files_of, rows_of, text_of, texts
from gpt2lab.evaluation.hub import HubDataset, rows_of_hub
from gpt2lab.evaluation.task import Metric, Record
from gpt2lab.evaluation.tasks.choices import Choice, ChoiceTask, lowest
from gpt2lab.statistics import share_interval

if TYPE_CHECKING:
    from gpt2lab.model import GPT2

BLANK = "XXXXX"
PARTS = ("CN", "NE")
"""Common nouns and named entities, of which the GPT-2 paper speaks."""


class ChildrensBooks(ChoiceTask):
    """Twenty sentences, then one with a gap: each candidate with the rest of the sentence."""

    protocol = (
        "GPT-2 paper, section 3.2: the candidate that makes itself and the rest of the sentence "
        "likeliest, de-tokenized by rules of ours; no start token"
    )
    local = "cbtest_CN_test_2500ex.txt"

    def __init__(self, config: EvaluateConfig) -> None:
        super().__init__(config)
        self.parts: list[str] = []
        """Of each question; empty where its file's name says none."""

    def read_choices(self) -> list[Choice]:
        found = []
        for part, row in self.rows():
            found.append(choice_of(row))
            self.parts.append(part)
        return found

    def rows(self) -> Iterator[tuple[str, Row]]:
        if self.config.data is None:
            for part in PARTS:
                rows = rows_of_hub(HubDataset("cam-cst/cbt", part), self.local)
                yield from ((part, row) for row in rows)
            return
        for path in files_of(self.config.data):
            words = re.split(r"[^A-Z]+", path.stem)
            part = next((part for part in PARTS if part in words), "")
            yield from ((part, row) for row in rows_of_file(path))

    def metrics(self, records: Sequence[Record], model: "GPT2") -> list[Metric]:
        by_part: dict[str, list[bool]] = {}
        for record, choice, part in zip(records, self.choices, self.parts, strict=False):
            by_part.setdefault(part, []).append(lowest(record["nll"]) == choice.answer)
        return [
            Metric(f"acc_{part.lower()}" if part else "acc", share_interval(right), "questions")
            for part, right in by_part.items()
        ]


def rows_of_file(path: Path) -> Iterator[Row]:
    """Questions of a .jsonl file, or as they were published: 21 numbered lines, the last of which
    has the answer and the candidates behind tabs, and an empty line."""
    if ".jsonl" in path.suffixes:
        yield from rows_of(path)
        return
    sentences: list[str] = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        _, _, sentence = line.partition(" ")
        if "\t" not in line:
            sentences.append(sentence)
            continue
        question, answer, *_, options = sentence.split("\t")
        yield Row(
            f"{path}:{number}",
            {
                "sentences": sentences,
                "question": question,
                "answer": answer,
                "options": options.split("|"),
            },
        )
        sentences = []
    if sentences:
        raise DataError(f"{path}: ends without a question; see whether it is whole")


def choice_of(row: Row) -> Choice:
    """
    Raises:
        DataError: if there is not one gap, or the answer is no candidate.
    """
    question, answer = field(row, "question"), field(row, "answer")
    options = [option for option in texts(row, "options") if option]
    if question.count(BLANK) != 1:
        raise DataError(f"{row.place}: has no question with one {BLANK}; mend or remove it")
    if answer not in options:
        raise DataError(f"{row.place}: its answer is none of its options; mend or remove it")
    text = " ".join([*texts(row, "sentences"), question])
    before, _, behind = detokenized(text, CHILDRENS_BOOKS).partition(BLANK)
    return Choice(
        row.place,
        before.rstrip(),
        [before[len(before.rstrip()) :] + option + behind for option in options],
        options.index(answer),
    )
