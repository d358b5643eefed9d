"""Data of the hub, as `datasets` would hand it over, is what a local file of it is."""

import json
import sys
from types import SimpleNamespace

import pytest

from gpt2lab.config import EvaluateConfig, Task
from gpt2lab.errors import DataError
from gpt2lab.evaluation.hub import PARQUET, HubDataset, rows_of_hub
from gpt2lab.evaluation.tasks import task_of
from tests.evaluation.test_questions import OPTIONS, QUESTION, SENTENCES, SWAG

CBT_ROW = {
    "sentences": [line.partition(" ")[2] for line in SENTENCES],
    "question": QUESTION,
    "answer": "queen",
    "options": OPTIONS.split("|"),
}


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for `datasets`: rows by the dataset's name; what was asked for."""
    rows, asked = {}, []

    def load_dataset(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        if name not in rows:
            raise ConnectionError("no\nnetwork")
        return rows[name]

    module = SimpleNamespace(
        load_dataset=load_dataset,
        disable_progress_bars=lambda: None,
        config=SimpleNamespace(HF_DATASETS_CACHE="/cache"),
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("gpt2lab.evaluation.hub.is_reachable", lambda: True)
    return SimpleNamespace(rows=rows, asked=asked)


def read(name, data=None):
    task = task_of(EvaluateConfig("x", Task[name], data and str(data)))
    task.read()
    return task


def test_wikitext_has_its_line_ends_back(hub, tmp_path):
    lines = [" \n", " = Red = \n", " \n", " The dog . \n"]
    hub.rows["Salesforce/wikitext"] = [{"text": "" if x == " \n" else x} for x in lines]
    (tmp_path / "wiki.test.tokens").write_text("".join(lines))
    (ours,) = read("wikitext2", tmp_path / "wiki.test.tokens").documents
    (theirs,) = read("wikitext2").documents
    assert (theirs.text, theirs.words, theirs.num_bytes) == (ours.text, ours.words, ours.num_bytes)
    assert hub.asked == [("Salesforce/wikitext", "wikitext-2-v1", "test", None)]
    read("wikitext103")
    assert hub.asked[-1][1] == "wikitext-103-v1"


@pytest.mark.parametrize(
    ("name", "dataset", "column"),
    [
        ("ptb", "ptb-text-only/ptb_text_only", "sentence"),
        ("1bw", "billion-word-benchmark/lm1b", "text"),
    ],
)
def test_lines_are_put_together_as_in_a_file(hub, tmp_path, name, dataset, column):
    hub.rows[dataset] = [{column: "no it was n't"}, {column: "it 's $ N"}]
    (tmp_path / "a.txt").write_text("no it was n't\nit 's $ N\n")
    ours, theirs = read(name, tmp_path / "a.txt").documents, read(name).documents
    assert [(d.text, d.words) for d in ours] == [(d.text, d.words) for d in theirs]
    assert hub.asked[0][3] == PARQUET


@pytest.mark.parametrize(("name", "dataset"), [("text8", "afmck/text8"), ("enwik8", "LTCB/enwik8")])
def test_one_row_is_the_whole_text(hub, name, dataset):
    hub.rows[dataset] = [{"text": " anarchism originated"}]
    assert read(name).documents[0].text == " anarchism originated"


@pytest.mark.parametrize(
    ("name", "dataset", "row"),
    [
        ("lambada", "EleutherAI/lambada_openai", {"text": "a b"}),
        ("hellaswag", "Rowan/hellaswag", SWAG),
    ],
)
def test_rows_are_the_lines_of_a_file(hub, tmp_path, name, dataset, row):
    hub.rows[dataset] = [row, row]
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    ours, theirs = read(name, tmp_path / "a.jsonl"), read(name)
    for a, b in zip(vars(ours).values(), vars(theirs).values(), strict=True):
        if isinstance(a, list):
            assert [x[1:] for x in a] == [x[1:] for x in b]  # all but the place


def test_both_parts_of_the_childrens_book_test_are_taken(hub):
    hub.rows["cam-cst/cbt"] = [CBT_ROW]
    assert read("cbt").parts == ["CN", "NE"]
    assert [asked[1] for asked in hub.asked] == ["CN", "NE"]


def test_what_cannot_be_had_is_told_in_one_line(hub):
    with pytest.raises(DataError) as error:
        rows_of_hub(HubDataset("a/b", "c", "test", "v1"), "b.txt")
    assert error.value.problems == (
        "data: a/b@v1, config c, split test was looked for on the Hugging Face hub and in its "
        "cache (/cache), and cannot be had: no network; give a local file instead: data=b.txt",
    )
