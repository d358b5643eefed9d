"""Perplexity of whole texts, by token, word and byte, equal to a plain loop's."""

import json
import math

import numpy as np
import pytest

from gpt2lab.config import EvaluateConfig, Task
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation.scoring import score
from gpt2lab.evaluation.tasks import TASKS, task_of
from gpt2lab.evaluation.tasks.benchmarks import TEST_BYTES, WHOLE_BYTES, Enwik8, whole_characters
from gpt2lab.generation import Speech
from gpt2lab.tokenizer import CharTokenizer, gpt2_tokenizer
from tests.evaluation.models import CONTEXT, ours, plainly, saved, text_model

TEXT = "The dog's bone, she said, is 3.5 inches long: naïve? No!\n\nYes. " * 4
WIKI = " \n = Red = \n \n The dog 's bone , she said , is 3 @.@ 5 <unk> long . \n" * 5


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = saved(folder)
    return model, ours(folder)


def run(name, model, data=None, limit=None, **settings):
    """A task's metrics by name."""
    task = task_of(EvaluateConfig("x", Task[name], data and str(data), limit=limit, **settings))
    task.read()
    items = task.items(model)[:limit]
    records = [task.record(i, scores) for i, scores in enumerate(score(model, items, 500))]
    return {metric.name: metric for metric in task.metrics(records, model)}


def plain_nats(model, stream, stride):
    """The sum of nats over a stream, by the loop of transformers' guide to perplexity; each window
    predicts the token behind it, too."""
    total, counted = 0.0, 1
    for begin in range(0, len(stream), stride):
        end = min(begin + CONTEXT, len(stream) - 1)
        if counted > end:
            break
        total += plainly(model, stream[begin:counted], stream[counted : end + 1])[0].sum()
        counted = end + 1
    return total


@pytest.mark.parametrize("stride", [CONTEXT, 16, 5])
def test_perplexity_is_that_of_a_plain_loop_with_transformers(models, tmp_path, stride):
    theirs, model = models
    (tmp_path / "a.txt").write_text(TEXT)
    found = run("perplexity", model, tmp_path / "a.txt", stride=stride)
    stream = [50256, *gpt2_tokenizer().encode(TEXT)]
    nats = plain_nats(theirs, stream, stride)
    values = {name: metric.interval.value for name, metric in found.items()}
    assert math.log(values["token_perplexity"]) == pytest.approx(nats / (len(stream) - 1), abs=1e-5)
    assert math.log(values["word_perplexity"]) == pytest.approx(nats / len(TEXT.split()), abs=1e-5)
    bits = nats / math.log(2) / len(TEXT.encode())
    assert values["bits_per_byte"] == pytest.approx(bits, abs=1e-5)
    assert {metric.over for metric in found.values()} == {"windows"}


def test_wikitext_is_scored_as_people_write_it_and_counted_as_it_was_cut(models, tmp_path):
    theirs, model = models
    (tmp_path / "wiki.test.tokens").write_text(WIKI)
    found = run("wikitext2", model, tmp_path / "wiki.test.tokens")
    read = "\n= Red =\n\nThe dog's bone, she said, is 3.5 <unk> long.\n" * 5
    nats = plain_nats(theirs, [50256, *gpt2_tokenizer().encode(read)], CONTEXT)
    words = 5 * (3 + 15 + 4)  # and the ends of lines
    assert words == len(WIKI.split()) + WIKI.count("\n")
    found_nats = math.log(found["word_perplexity"].interval.value)
    assert found_nats == pytest.approx(nats / words, abs=1e-4)


def test_without_a_start_token_the_first_token_is_read_alone(models, tmp_path):
    theirs, model = models
    (tmp_path / "a.txt").write_text(TEXT)
    found = run("perplexity", model, tmp_path / "a.txt", add_start_token=False)
    stream = gpt2_tokenizer().encode(TEXT)
    nats = plain_nats(theirs, stream, CONTEXT) / (len(stream) - 1)
    assert math.log(found["token_perplexity"].interval.value) == pytest.approx(nats, abs=1e-5)


def test_what_nothing_precedes_flatters_no_model(models, tmp_path):
    """Without a start token nothing asks for a first token, which does not make its bytes free."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "a b c"}\n' * 20)
    found = run("perplexity", models[1], tmp_path / "a.jsonl", add_start_token=False)
    nats = math.log(found["token_perplexity"].interval.value)  # of " b" and " c"
    tokens, words, num_bytes = 3 + 1, 3 + 1, 5 + 1
    bits = nats / math.log(2) * tokens / num_bytes
    assert found["bits_per_byte"].interval.value == pytest.approx(bits)
    word_nats = math.log(found["word_perplexity"].interval.value)
    assert word_nats == pytest.approx(nats * tokens / words)


def test_the_interval_of_one_text_is_not_narrower_for_more_windows(models, tmp_path):
    """Neighbouring windows resemble each other; at stride 1 each has one token to say."""
    (tmp_path / "a.txt").write_text(TEXT * 4)
    found = run("perplexity", models[1], tmp_path / "a.txt", stride=1, limit=300)
    assert found["token_perplexity"].over == "stretches of windows"
    task = task_of(EvaluateConfig("x", Task.perplexity, "x"))
    task.document_of = [0] * 300
    records = [{"nll": float(n // 6), "tokens": 1} for n in range(300)]
    nll, tokens, _ = task.sums(records)
    assert (nll, tokens) == ([6.0 * n for n in range(50)], [6] * 50)


def test_documents_stand_for_themselves(models, tmp_path):
    theirs, model = models
    lines = [f"Line {i} is here, and the {i * 7} dogs." for i in range(40)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    found = run("perplexity", model, path)
    streams = [[50256, *gpt2_tokenizer().encode(line)] for line in lines]
    nats = [plain_nats(theirs, stream, CONTEXT) for stream in streams]
    mean = sum(nats) / sum(len(stream) - 1 for stream in streams)
    assert math.log(found["token_perplexity"].interval.value) == pytest.approx(mean, abs=1e-5)
    assert found["token_perplexity"].over == "documents"


def test_a_limit_takes_the_first_windows_and_their_share_of_the_words(models, tmp_path):
    theirs, model = models
    (tmp_path / "a.txt").write_text(TEXT)
    found = run("perplexity", model, tmp_path / "a.txt", limit=2)
    stream = [50256, *gpt2_tokenizer().encode(TEXT)]
    nats = plain_nats(theirs, stream[: 2 * CONTEXT + 1], CONTEXT) / (2 * CONTEXT)
    values = {name: math.log(metric.interval.value) for name, metric in found.items()}
    assert values["token_perplexity"] == pytest.approx(nats, abs=1e-5)
    per_word = (len(stream) - 1) / len(TEXT.split())
    assert values["word_perplexity"] == pytest.approx(nats * per_word, abs=1e-4)


def test_sentences_in_no_order_do_not_see_one_another(models, tmp_path):
    theirs, model = models
    (tmp_path / "heldout").write_text("The dog 's bone .\n\nNo , she said .\n")
    found = run("1bw", model, tmp_path / "heldout")
    streams = [gpt2_tokenizer().encode(x) for x in ("The dog's bone.\n", "No, she said.\n")]
    nats = sum(plain_nats(theirs, [50256, *stream], CONTEXT) for stream in streams)
    found_nats = math.log(found["word_perplexity"].interval.value)
    assert found_nats == pytest.approx(nats / (5 + 1 + 5 + 1), abs=1e-4)


def test_bits_are_per_byte_and_per_character(models, tmp_path):
    (tmp_path / "text8").write_text("anarchism originated as a term of abuse " * 3)
    found = run("text8", models[1], tmp_path / "text8")["bits_per_character"].interval
    plain = run("perplexity", models[1], tmp_path / "text8")["bits_per_byte"].interval
    assert found == plain
    assert run("enwik8", models[1], tmp_path / "text8")["bits_per_byte"].interval == plain


def test_of_the_whole_of_enwik8_the_last_part_is_taken(monkeypatch, tmp_path):
    content = "é".encode() * (WHOLE_BYTES // 2 - 1) + b"ab"
    path = tmp_path / "enwik8"
    path.write_bytes(content)
    task = Enwik8(EvaluateConfig("x", Task.enwik8, str(path)))
    task.read()
    (document,) = task.documents
    assert document.text == "é" * (TEST_BYTES // 2 - 1) + "ab"


@pytest.mark.parametrize("text", ["é€😀a", "a", "", "😀"])
def test_a_cut_leaves_whole_characters(text):
    content = text.encode()
    for start in range(len(content) + 1):
        for end in range(start, len(content) + 1):
            kept = whole_characters(content[start:end]).decode()
            assert kept in text
            lost = content[start:end].decode(errors="ignore")
            assert kept == lost


def test_a_model_of_characters_is_asked_in_characters(tmp_path):
    model = text_model(n_embd=16)
    tokenizer = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz")
    model.vocab_size = tokenizer.vocab_size
    model.speech = Speech.of_text(tokenizer)
    path = tmp_path / "a.txt"
    path.write_text("a line of text\n" * 10)
    found = run("perplexity", model, path)
    tokens, bits = found["token_perplexity"].interval, found["bits_per_byte"].interval
    assert math.log2(tokens.value) == pytest.approx(bits.value)
    path.write_text("a Line")
    with pytest.raises(DataError, match=r"a\.txt: the character 'L' \(U\+004C\) at index 2"):
        run("perplexity", model, path)


def test_a_stride_beyond_the_context_is_refused(models, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(ConfigError, match="stride: 33 is more than the model's context of 32"):
        run("perplexity", models[1], tmp_path / "a.txt", stride=33)


def test_what_holds_no_words_is_refused(models, tmp_path):
    (tmp_path / "a.txt").write_text(" \n \n")
    with pytest.raises(DataError, match="holds no words"):
        run("perplexity", models[1], tmp_path / "a.txt")


def test_every_task_has_its_protocol_in_words():
    assert all(task.protocol for task in TASKS.values())
    assert TASKS.keys() | {"compare", "lm_eval"} == Task.__members__.keys()


def test_the_first_of_many_windows_decides_nothing_about_others(models, tmp_path):
    """Sums are exact: a text twice as long, of the same windows, has the same mean."""
    (tmp_path / "a.txt").write_text(TEXT)
    once = run("perplexity", models[1], tmp_path / "a.txt")["token_perplexity"].interval.value
    (tmp_path / "b.txt").write_text(TEXT)
    twice = run("perplexity", models[1], tmp_path)["token_perplexity"].interval.value
    assert np.isclose(once, twice, rtol=1e-6)
