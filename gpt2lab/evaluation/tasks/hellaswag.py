"""HellaSwag: which of four endings goes on with a text (Zellers et al. 2019)."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2lab.data.jsonl import Row, field
from gpt2lab.errors import DataError
from gpt2lab.evaluation.files import texts
from gpt2lab.evaluation.hub import HubDataset, rows_given
from gpt2lab.evaluation.task import Metric, Record
from gpt2lab.evaluation.tasks.choices import Choice, ChoiceTask, lowest
from gpt2lab.statistics import share_interval

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


class HellaSwag(ChoiceTask):
    """Completion style: the likeliest ending, as a whole (acc) and per character (acc_norm)."""

    protocol = (
        "as lm-eval's hellaswag: activity, colon, context, and each ending behind a blank; acc by "
        "the ending's log-probability, acc_norm by it over the ending's characters; no start token"
    )
    hub = HubDataset("Rowan/hellaswag", split="validation")
    local = "hellaswag_val.jsonl"

    def read_choices(self) -> list[Choice]:
        return [choice_of(row) for row in rows_given(self.config.data, self.hub, self.local)]

    def metrics(self, records: Sequence[Record], model: "GPT2") -> list[Metric]:
        plain, normed = [], []
        for record, choice in zip(records, self.choices, strict=False):
            nll = record["nll"]
            # Of the ending itself: the blank before it is none of its characters.
            per_character = [x / (len(c) - 1) for x, c in zip(nll, choice[2], strict=True)]
            plain.append(lowest(nll) == choice.answer)
            normed.append(lowest(per_character) == choice.answer)
        return [
            Metric("acc", share_interval(plain), "questions"),
            Metric("acc_norm", share_interval(normed), "questions"),
        ]


def choice_of(row: Row) -> Choice:
    """
    Raises:
        DataError: if a field is missing, or the label is none of the endings.
    """
    context = f"{field(row, 'ctx_a')} {field(row, 'ctx_b').capitalize()}"
    endings = [cleaned(ending) for ending in texts(row, "endings")]
    label = row.fields.get("label")
    if str(label) not in map(str, range(len(endings))):
        raise DataError(f"{row.place}: label {label!r} is none of its endings; give 0 to 3")
    if not all(endings):
        raise DataError(f"{row.place}: an ending is empty; remove the question")
    text = cleaned(f"{field(row, 'activity_label')}: {context}")
    return Choice(row.place, text, [f" {ending}" for ending in endings], int(str(label)))


def cleaned(text: str) -> str:
    """Without the marks of the part that is from WikiHow: `[title]` between steps becomes a full
    stop, `[step]` and the like go, and two blanks become one."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")
