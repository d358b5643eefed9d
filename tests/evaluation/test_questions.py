"""LAMBADA, HellaSwag, the Children's Book Test and sorting: what is asked, and what counts."""

import json
import math

import numpy as np
import pytest
import torch

from gpt2lab.config import EvaluateConfig, GPT2Config, Task
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation.scoring import score
from gpt2lab.evaluation.tasks import task_of
from gpt2lab.evaluation.tasks.hellaswag import cleaned
from gpt2lab.generation import Speech
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import DigitTokenizer, gpt2_tokenizer
from tests.evaluation.models import ours, plainly, saved, text_model

PASSAGES = [
    'She took the lamp.\n\n"Give me the lamp," said Diana',
    "No need to change. We won't be that long at the docks",
    "In my palm is a clear stone, and inside it is a small statuette-like unquestionableness",
    "Two  blanks before the  word",
]
SWAG = {
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "label": "3",
    "endings": [
        "is using wrap to wrap a pair of skis.",
        "is ripping tiles.",
        "[step] is  holding a rubik's cube.",
        "starts [title] pulling.",
    ],
}
SENTENCES = [f"{n} The king 's man said , `` Come {n} ! ''" for n in range(1, 21)]
QUESTION = "The XXXXX 's name was not known ."
OPTIONS = "king|queen|man|river|forest|day|name|house|dog|bird"
CBT = "\n".join([*SENTENCES, f"21 {QUESTION}\tqueen\t\t{OPTIONS}", "", ""])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = saved(folder, n_positions=400)
    return model, ours(folder)


def asked(name, model, data=None, **settings):
    """A task with its items, their scores and metrics by name."""
    task = task_of(EvaluateConfig("x", Task[name], data and str(data), **settings))
    task.read()
    items = task.items(model)
    scores = score(model, items, 500)
    records = [task.record(i, found) for i, found in enumerate(scores)]
    metrics = {metric.name: metric.interval.value for metric in task.metrics(records, model)}
    return task, items, records, metrics


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def encode(text):
    return gpt2_tokenizer().encode(text)


def test_lambada_is_that_of_a_plain_loop_with_transformers(models, tmp_path):
    theirs, model = models
    path = jsonl(tmp_path / "a.jsonl", *({"text": text} for text in PASSAGES))
    _, _, records, metrics = asked("lambada", model, path)
    nats, right, last_nats, last_right = [], [], [], []
    for text in PASSAGES:
        context = " ".join(text.split(" ")[:-1]).rstrip()
        whole = encode(text)
        nll, greedy = plainly(theirs, encode(context), whole[len(encode(context)) :])
        nats.append(nll.sum())
        right.append(greedy.all())
        last_nats.append(nll[-1])
        last_right.append(greedy[-1])
    np.testing.assert_allclose([record["nll"] for record in records], nats, atol=1e-4)
    assert math.log(metrics["word_perplexity"]) == pytest.approx(np.mean(nats), abs=1e-5)
    assert metrics["word_accuracy"] == np.mean(right)
    assert math.log(metrics["last_token_perplexity"]) == pytest.approx(np.mean(last_nats), abs=1e-5)
    assert metrics["last_token_accuracy"] == np.mean(last_right)


def test_a_word_is_right_if_each_of_its_tokens_is_the_likeliest(tmp_path):
    """A model whose likeliest token is always the same: words of it alone are right."""
    model = text_model()
    (one,) = encode(" the")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.transformer.wte.weight[one] = 1.0
    texts = ["that is the", "that is not", "so many xxthe"]
    path = jsonl(tmp_path / "a.jsonl", *({"text": text} for text in texts))
    _, _, records, metrics = asked("lambada", model, path)
    assert [record["right"] for record in records] == [True, False, False]
    assert metrics["word_accuracy"] == pytest.approx(1 / 3)


def test_lambada_takes_a_start_token_only_if_it_is_wanted(models, tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "a dog"})
    assert asked("lambada", models[1], path)[1][0].context.tolist() == encode("a")
    with_start = asked("lambada", models[1], path, add_start_token=True)[1][0].context
    assert with_start.tolist() == [50256, *encode("a")]


def test_a_single_word_follows_the_start_token(models, tmp_path):
    (item,) = asked("lambada", models[1], jsonl(tmp_path / "a.jsonl", {"text": "dog"}))[1]
    assert item.context.tolist() == [50256]


def test_a_long_passage_keeps_its_end(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "the " * 50 + "unquestionableness"})
    (item,) = asked("lambada", text_model(), path)[1]
    assert item.cost() == 32
    assert len(item.continuations[0]) > 1


def test_hellaswag_is_that_of_a_plain_loop_with_transformers(models, tmp_path):
    theirs, model = models
    rows = [{**SWAG, "label": label, "ctx_b": f"he {'and ' * label}"} for label in range(4)]
    _, _, records, metrics = asked("hellaswag", model, jsonl(tmp_path / "a.jsonl", *rows))
    endings = [
        "is using wrap to wrap a pair of skis.",
        "is ripping tiles.",
        " is holding a rubik's cube.",
        "starts.  pulling.".replace("  ", " "),
    ]
    acc, norm = [], []
    for row, record in zip(rows, records, strict=True):
        context = f"Roof shingle removal: A man is sitting on a roof. {row['ctx_b'].capitalize()}"
        context = context.strip()
        nats = []
        for ending in endings:
            whole = encode(f"{context} {ending}")
            nats.append(plainly(theirs, encode(context), whole[len(encode(context)) :])[0].sum())
        np.testing.assert_allclose(record["nll"], nats, atol=1e-4)
        acc.append(np.argmin(nats) == row["label"])
        norm.append(np.argmin(np.divide(nats, list(map(len, endings)))) == row["label"])
    assert metrics == {"acc": np.mean(acc), "acc_norm": np.mean(norm)}


def test_the_blank_before_an_ending_is_none_of_its_characters(models, tmp_path):
    row = {**SWAG, "endings": ["a", "abcd"], "label": 1}
    task, *_ = asked("hellaswag", models[1], jsonl(tmp_path / "a.jsonl", row))
    # 1 and 0.75 nats a character; with the blank it would be 0.5 and 0.6
    acc, norm = task.metrics([{"nll": [1.0, 3.0]}], models[1])
    assert (acc.interval.value, norm.interval.value) == (0, 1)


def test_marks_of_wikihow_are_taken_out():
    assert cleaned(" Do it [title] Now. [step] Take  two. ") == "Do it. Now. Take two."


def test_the_childrens_book_test_asks_for_the_rest_of_the_sentence(models, tmp_path):
    theirs, model = models
    path = tmp_path / "cbtest_NE_test_2500ex.txt"
    path.write_text(CBT * 2)
    task, items, records, metrics = asked("cbt", model, path)
    assert task.parts == ["NE", "NE"]
    context = " ".join(f'The king\'s man said, "Come {n}!"' for n in range(1, 21)) + " The"
    assert items[0].context.tolist() == encode(context)
    nats = []
    for option in OPTIONS.split("|"):
        behind = encode(f" {option}'s name was not known.")
        nats.append(plainly(theirs, encode(context), behind)[0].sum())
    np.testing.assert_allclose(records[1]["nll"], nats, atol=2e-4)
    assert metrics == {"acc_ne": float(np.argmin(nats) == 1)}


def test_parts_of_the_childrens_book_test_are_told_apart_by_their_files_names(models, tmp_path):
    (tmp_path / "cbtest_CN_test_2500ex.txt").write_text(CBT)
    (tmp_path / "cbtest_NE_test_2500ex.txt").write_text(CBT)
    assert asked("cbt", models[1], tmp_path)[3].keys() == {"acc_cn", "acc_ne"}
    row = {
        "sentences": [line.partition(" ")[2] for line in SENTENCES],
        "question": QUESTION,
        "answer": "queen",
        "options": OPTIONS.split("|"),
    }
    other = asked("cbt", models[1], jsonl(tmp_path / "some.jsonl", row))
    assert other[3].keys() == {"acc"}
    assert other[1][0].context.tolist() == encode(
        " ".join(f'The king\'s man said, "Come {n}!"' for n in range(1, 21)) + " The"
    )


def sorter(rightly=False):
    """A model of the sorting task; a right one only by luck."""
    model = GPT2(GPT2Config(2, 2, 16, block_size=7, vocab_size=3, dropout=0.0)).eval()
    model.speech = Speech.of_sort(DigitTokenizer(3), 4)
    return model


def test_sorting_is_judged_alike_by_generation_and_by_teacher_forcing():
    model = sorter()
    with torch.no_grad():
        model.transformer.ln_f.bias[:] = 3 * model.transformer.wte.weight[2]  # it says 2 mostly
    task, items, _, metrics = asked("sort", model)
    assert metrics["exact_match"] == metrics["exact_match_generated"]
    assert len(items) == len(task.questions)
    assert 0 < metrics["exact_match"] < 1
    assert asked("sort", model, batch_tokens=8)[3] == metrics


def test_a_disagreement_is_told(monkeypatch):
    task, _, records, _ = asked("sort", sorter())
    monkeypatch.setattr(task, "generated", lambda model, count: [True] * count)
    with pytest.warns(UserWarning, match="generation and teacher forcing differ at"):
        task.metrics(records, sorter())


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        ("lambada", {"txt": "a b"}, r"a\.jsonl:2: has no field text \(its fields: txt\)"),
        ("lambada", {"text": 3}, r"a\.jsonl:2: text is int, not text"),
        ("lambada", {"text": "a b "}, r"a\.jsonl:2: ends with a blank"),
        ("lambada", {"text": ""}, r"a\.jsonl:2: is empty"),
        ("lambada", {"text": "a \ud800"}, r"a\.jsonl:2: text holds U\+D800, half of a surrogate"),
        ("lambada", [1], r"a\.jsonl:2: is no JSON object"),
        ("hellaswag", {**SWAG, "label": ""}, r"a\.jsonl:2: label '' is none of its endings"),
        ("hellaswag", {**SWAG, "label": "4"}, r"a\.jsonl:2: label '4' is none of its endings"),
        (
            "hellaswag",
            {**SWAG, "endings": ["a", 2]},
            r"a\.jsonl:2: has no list of texts",
        ),
        (
            "hellaswag",
            {**SWAG, "endings": ["a", "[b]", "c", "d"]},
            "2: an ending is empty",
        ),
        ("hellaswag", {"endings": []}, r"a\.jsonl:2: has no field ctx_a"),
        ("cbt", {"question": "a", "answer": "b", "options": ["b"]}, "no question with one XXXXX"),
        (
            "cbt",
            {"question": "XXXXX", "answer": "b", "options": ["c"]},
            "answer is none of its",
        ),
    ],
)
def test_a_row_that_asks_nothing_is_refused_by_its_line(tmp_path, name, row, problem):
    good = {"lambada": {"text": "a b"}, "hellaswag": SWAG}.get(name)
    path = jsonl(tmp_path / "a.jsonl", good, row) if good else jsonl(tmp_path / "a.jsonl", row)
    task = task_of(EvaluateConfig("x", Task[name], str(path)))
    with pytest.raises(DataError, match=problem):
        task.read()


def test_a_cut_file_of_the_childrens_book_test_is_noticed(tmp_path):
    (tmp_path / "a.txt").write_text(CBT + "1 One more .\n")
    with pytest.raises(DataError, match=r"a\.txt: ends without a question"):
        task_of(EvaluateConfig("x", Task.cbt, str(tmp_path / "a.txt"))).read()


@pytest.mark.parametrize("name", ["lambada", "hellaswag", "wikitext2"])
def test_a_model_that_sorts_is_asked_for_no_words(tmp_path, name):
    path = jsonl(tmp_path / "a.jsonl", {**SWAG, "text": "a b"})
    with pytest.raises(ConfigError, match=f"task: {name} needs a model of text, this one sorts"):
        asked(name, sorter(), path)


def test_a_model_of_text_sorts_nothing():
    with pytest.raises(ConfigError, match="task: sort needs a model that was trained to sort"):
        asked("sort", text_model())


def test_ids_that_nobody_knows_cannot_be_asked(tmp_path):
    model = text_model()
    model.speech = None
    with pytest.raises(ConfigError, match="checkpoint: what its 50,257 ids stand for is not known"):
        asked("lambada", model, jsonl(tmp_path / "a.jsonl", {"text": "a b"}))


def test_a_word_longer_than_the_context_is_refused(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "a " + "xq" * 40})
    with pytest.raises(DataError, match=r"a\.jsonl:1: its last word has \d+ tokens, the model's"):
        asked("lambada", text_model(), path)


@pytest.mark.slow
def test_gpt2_small_gives_what_transformers_gives(tmp_path):
    theirs = saved(tmp_path / "small", n_layer=12, n_head=12, n_embd=768, n_positions=1024)
    model = ours(tmp_path / "small")
    path = jsonl(tmp_path / "a.jsonl", *({"text": text} for text in PASSAGES))
    (tmp_path / "wiki.test.tokens").write_text(
        " = Red = \n \n The dog 's bone , she said , is 3 @.@ 5 <unk> long . \n" * 60
    )
    for name, data in (("lambada", path), ("wikitext2", tmp_path / "wiki.test.tokens")):
        _, items, records, _ = asked(name, model, data)
        for item, record in zip(items, records, strict=True):
            nll, _ = plainly(theirs, item.context, item.continuations[0])
            assert record["nll"] / len(nll) == pytest.approx(nll.mean(), abs=1e-4)
