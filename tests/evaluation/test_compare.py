"""Two checkpoints at the same text, from their files to a verdict."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from gpt2lab.config import EvaluateConfig, GPT2Config, Task
from gpt2lab.config.check import problems
from gpt2lab.errors import ConfigError
from gpt2lab.evaluation.compare import sorts
from gpt2lab.evaluation.compare.sides import Side
from gpt2lab.evaluation.compare.sort import compare_sort
from gpt2lab.evaluation.compare.text import compare_text
from gpt2lab.evaluation.compare.verdict import span, verdict
from gpt2lab.evaluation.pieces import Reading, cut, joined
from gpt2lab.evaluation.tasks.text import Document
from gpt2lab.generation import Speech
from gpt2lab.model import GPT2
from gpt2lab.statistics import Interval, Paired, paired
from gpt2lab.tokenizer import CharTokenizer, DigitTokenizer
from tests.evaluation.models import saved, text_model

TEXT = "the cat sat on the mat and the dog sat on the cat " * 20


def reading(bounds, nll):
    return Reading(np.array(bounds), np.array(nll, float))


def test_pieces_end_where_both_have_ended_a_token_by_hand():
    words = reading([0, 4, 9, 11, 16], [1, 2, 3, 4])
    letters = reading([1, 2, 4, 6, 7, 9, 12, 16], [1, 1, 1, 1, 1, 1, 1])  # its first is not scored
    # Both have ended a token at bytes 4, 9 and 16; what is before 4 only one has predicted whole.
    nll, tokens, num_bytes = cut((words, letters), (1, 2))
    assert (nll == [[2, 7], [3, 2]]).all()
    assert (tokens == [[1, 2], [3, 2]]).all()
    assert num_bytes.tolist() == [5, 7]
    assert cut((words, letters), None).num_bytes.tolist() == [12]


def test_a_piece_is_as_long_as_a_context_and_a_rest_goes_with_the_last():
    same = reading(range(0, 24, 2), range(11))
    nll, tokens, _ = cut((same, same), (4, 4))
    assert (tokens == [[4, 7]] * 2).all()
    assert (nll == [[6, 49]] * 2).all()
    assert cut((same, same), (12, 12)).num_bytes.tolist() == [22]


def test_texts_without_a_common_place_make_no_piece():
    nll, _, num_bytes = cut((reading([0, 2], [1]), reading([1, 2], [1])), (1, 1))
    assert nll.shape == (2, 0)
    assert not len(num_bytes)


def test_neighbours_are_joined_evenly():
    pieces = [cut((reading(range(4), [1, 2, 3]),) * 2, (1, 1)) for _ in range(3)]
    nll, tokens, num_bytes = joined(pieces, 4)
    assert nll[0].tolist() == [3, 4, 5, 6]
    assert tokens[0].tolist() == num_bytes.tolist() == [2, 2, 2, 3]
    assert len(joined(pieces, 50).num_bytes) == 9


def test_joining_neighbours_keeps_false_alarms_near_one_in_twenty():
    """Of pieces whose difference is half that of their neighbour; alone they raise five times so
    many."""
    rng = np.random.default_rng(0)
    alone = united = 0
    for _ in range(200):
        d = rng.normal(size=500)
        for i in range(1, 500):
            d[i] += 0.5 * d[i - 1]
        alone += paired(d, np.ones(500)).is_shown
        united += paired(d.reshape(50, 10).sum(1), np.full(50, 10)).is_shown
    assert alone > 40
    assert united < 24


def side(key, tmp_path, model):
    path = tmp_path / f"{key}.ckpt"
    path.write_bytes(model.transformer.wte.weight.detach().numpy().tobytes())
    return Side(key, path, model)


def changed(model, size):
    with torch.no_grad():
        model.transformer.wte.weight += size * torch.randn_like(model.transformer.wte.weight)
    return model


def char_model(block_size=16, seed=0):
    torch.manual_seed(seed)
    tokenizer = CharTokenizer("".join(sorted(set(TEXT))))
    config = GPT2Config(
        n_layer=1, n_head=1, n_embd=8, block_size=block_size, vocab_size=tokenizer.vocab_size,
        dropout=0.0,
    )  # fmt: skip
    model = GPT2(config).eval()
    model.speech = Speech.of_text(tokenizer)
    return model


def compared(tmp_path, a, b, texts=(TEXT,), **settings):
    config = EvaluateConfig(task=Task.compare, data="given", **settings)
    documents = [Document.plain(f"text {n}", text) for n, text in enumerate(texts)]
    sides = side("a", tmp_path, a), side("b", tmp_path, b)
    return compare_text(config, sides, documents, tmp_path)


def test_the_loss_of_each_is_that_of_a_plain_loop(tmp_path):
    a, b = char_model(8), char_model(16, seed=1)
    found = compared(tmp_path, a, b)
    ids = torch.tensor(a.speech.tokenizer.encode(TEXT))
    total = 0.0
    for begin in range(0, len(ids) - 1, 8):  # windows of the shorter context, for both
        inputs, targets = ids[begin : begin + 8], ids[begin + 1 : begin + 9]
        logits = b(inputs[None, : len(targets)])[0].double()
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    assert found["metrics"]["nats_per_token"]["b"] == pytest.approx(total / (len(ids) - 1))
    assert found["contexts"] == [8, 8]


def test_which_is_called_a_changes_nothing(tmp_path):
    a, b = char_model(), changed(char_model(), 0.3)
    found, turned = compared(tmp_path, a, b), compared(tmp_path, b, a)
    assert found["p"] == turned["p"]
    per_token, other = found["metrics"]["nats_per_token"], turned["metrics"]["nats_per_token"]
    assert per_token["difference"] == pytest.approx(-other["difference"])
    assert per_token["low"] == pytest.approx(-other["high"])
    assert {found["winner"], turned["winner"]} in ({None}, {"a", "b"})


def test_a_model_that_knows_the_text_wins(tmp_path):
    a, b = char_model(), char_model()
    optimizer = torch.optim.AdamW(b.parameters(), lr=0.01)
    ids = torch.tensor(b.speech.tokenizer.encode(TEXT))[:960].view(60, 16)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(b(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = compared(tmp_path, a, b)
    assert found["winner"] == "b"
    assert found["p"] < 0.001
    assert found["verdict"].startswith("b is better at p = 0.0001: ")
    assert found["metrics"]["nats_per_token"]["high"] < 0


def test_the_same_model_twice_has_no_winner(tmp_path):
    found = compared(tmp_path, char_model(), char_model())
    assert (found["winner"], found["p"]) == (None, 1)
    assert found["verdict"] == "no difference shown at p = 1"
    assert found["metrics"]["nats_per_token"]["difference"] == 0


def test_one_window_cannot_tell(tmp_path):
    found = compared(tmp_path, char_model(), char_model(seed=1), ["the cat sat"])
    assert found["winner"] is None
    assert found["verdict"].startswith("cannot tell: too few pieces of text (1, ")
    assert found["metrics"]["bits_per_byte"]["low"] is None


def test_many_documents_are_what_is_paired(tmp_path):
    found = compared(tmp_path, char_model(), char_model(seed=1), ["the cat sat on a mat"] * 40)
    assert found["units"] == {"kind": "documents", "count": 40, "before_joining": 40}


def test_two_tokenizers_are_compared_by_bytes_alone(tmp_path):
    a, b = char_model(), text_model()
    found = compared(tmp_path, a, b, add_start_token=False)
    assert found["metrics"].keys() == {"bits_per_byte"}
    # GPT-2's first token, `the`, is not scored, which holds for the character model then too.
    assert found["bytes"] == len(TEXT) - 3
    assert found["tokens"][0] == len(TEXT) - 3
    nll = found["metrics"]["bits_per_byte"]["b"] * found["bytes"] * math.log(2)
    assert nll / found["tokens"][1] == pytest.approx(math.log(50257), rel=0.05)  # untrained


def test_a_limit_compares_what_both_have_read(tmp_path):
    found = compared(tmp_path, char_model(), text_model(), limit=3)
    assert 16 <= found["bytes"] <= 48


def sorter(length, seed):
    torch.manual_seed(seed)
    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=3, dropout=0.0)
    model = GPT2(config).eval()
    model.speech = Speech.of_sort(DigitTokenizer(3), length)
    return model


def test_models_that_sort_are_compared_by_their_answers(tmp_path):
    sides = side("a", tmp_path, sorter(4, 0)), side("b", tmp_path, sorter(4, 1))
    assert sorts(*sides)
    found = compare_sort(EvaluateConfig(task=Task.compare), sides, tmp_path)
    assert found["metrics"].keys() == {"exact_match"}
    assert found["units"]["kind"] == "held-out inputs"
    other = side("b", tmp_path, sorter(5, 1))
    with pytest.raises(ConfigError, match="b: sorts 5 digits of 3, a sorts 4 digits of 3"):
        compare_sort(EvaluateConfig(task=Task.compare), (sides[0], other), tmp_path)
    with pytest.raises(ConfigError, match="a: sorts digits, the other one reads text"):
        sorts(sides[0], side("b", tmp_path, char_model()))


@pytest.mark.parametrize(
    ("p", "value", "winner"),
    [(0.05, -1.0, "b"), (0.0501, -1.0, None), (0.01, 1.0, "a"), (0.31, 5.0, None)],
)
def test_no_winner_is_named_above_one_in_twenty(p, value, winner):
    found = Paired(Interval(value, value - 0.5, value + 0.5), p)
    said = verdict(found, f"{span(found)} less", 20, "documents")
    assert said["winner"] == winner
    assert ("no difference shown" in said["verdict"]) == (winner is None)
    if winner:
        assert said["verdict"].endswith(": 1 (0.5 to 1.5) less")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": Task.compare}, "a: is null; give a run folder"),
        ({"task": Task.compare, "a": "x"}, "b: is null; give a run folder"),
        ({"task": Task.compare, "a": "", "b": "x"}, "a: is empty"),
        ({"task": Task.compare, "a": "x", "b": "y", "checkpoint": "z"}, "checkpoint: z is none of"),
        ({"task": Task.sort, "checkpoint": "x", "b": "y"}, "b: y is for task=compare"),
        ({"task": Task.sort, "checkpoint": "x", "num_fewshot": 1}, "num_fewshot: 1 is for task=lm"),
        ({"task": Task.lm_eval, "checkpoint": "x"}, "lm_eval_tasks: is null"),
        (
            {"task": Task.lm_eval, "checkpoint": "x", "lm_eval_tasks": "y", "stride": 4},
            "stride: 4 is up to each task of lm_eval",
        ),
    ],
)
def test_settings_of_another_task_are_refused_by_name(settings, message):
    assert any(problem.startswith(message) for problem in problems(EvaluateConfig(**settings)))


def test_the_command_line_writes_and_shows_a_comparison(tmp_path):
    saved(tmp_path / "a=1")
    saved(tmp_path / "b")
    (tmp_path / "text.txt").write_text(TEXT)
    command = [sys.executable, "-m", "gpt2lab.evaluate", "task=compare", "a=a=1", "b=b"]
    ran = subprocess.run(
        [*command, "data=text.txt", "json=true"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["verdict"] == "no difference shown at p = 1"
    assert found["verdict"] in ran.stdout
    written = json.loads((tmp_path / found["file"]).read_text())
    assert written == {key: value for key, value in found.items() if key != "file"}
    assert not [*tmp_path.rglob("*.journal")]
