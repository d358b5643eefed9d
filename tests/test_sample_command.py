"""python -m gpt2lab.sample as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from omegaconf import OmegaConf

from gpt2lab.config import GPT2Config, SortConfig, TextConfig
from gpt2lab.exit import exit_code
from gpt2lab.loading import load
from gpt2lab.sample import main, title
from gpt2lab.tokenizer import CharTokenizer, gpt2_tokenizer
from tests.test_loading import content, save

CHARS = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz'!,.:=${}[]()\"\\<>|_0123456789HX")
COMMAND = [sys.executable, "-m", "gpt2lab.sample"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Untrained models that are spoken to by character, by GPT-2's tokens and by digits."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny = {"n_layer": 1, "n_head": 1, "n_embd": 8}
    torch.manual_seed(0)
    for name, block_size, data, tokenizer in (
        ("chars", 16, TextConfig(), CHARS),
        ("tokens", 16, TextConfig(), gpt2_tokenizer()),
        ("digits", 11, SortConfig(), None),
    ):
        size = 3 if tokenizer is None else tokenizer.vocab_size
        config = GPT2Config(**tiny, block_size=block_size, vocab_size=size)
        save(content(config, data, tokenizer), folder / f"{name}.ckpt")
    return folder


@pytest.fixture
def sample(checkpoints, monkeypatch, capsys):
    """Runs the command within this process; its exit code, stdout and stderr."""
    monkeypatch.chdir(checkpoints)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(name, *overrides):
        words = ["sample", f"checkpoint={name}.ckpt", "precision=fp32", "device=cpu", *overrides]
        monkeypatch.setattr(sys, "argv", words)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = exit_code(main)
        return code, *capsys.readouterr()

    return run


def lines(sample, name, *overrides):
    """The objects that json_lines=true prints."""
    code, out, err = sample(name, "json_lines=true", *overrides)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_one_sample_is_the_text_alone(sample):
    code, out, err = sample("chars", "prompt=the ", "max_new_tokens=8")
    assert (code, err) == (0, "")
    assert out.startswith("the ")
    assert len(out) == len("the ") + 8 + 1
    assert sample("chars", "prompt=the ", "max_new_tokens=8", "stream=true")[1] == out
    assert sample("chars", "prompt=the ", "max_new_tokens=8", "strip_prompt=true")[1] == out[4:]
    assert sample("chars", "prompt=the ", "max_new_tokens=8", "seed=1")[1] != out


def test_without_a_prompt_it_begins_with_nothing(sample):
    code, out, _ = sample("chars", "max_new_tokens=8")
    assert (code, len(out)) == (0, 9)
    assert sample("chars", "max_new_tokens=8", "prompt=")[1] == out


def test_several_samples_have_a_title_each_and_are_what_they_are_alone(sample):
    given = ["max_new_tokens=6", "prompt=ab"]
    _, out, _ = sample("chars", *given, "num_samples=3", "batch_size=2")
    texts = [found["text"] for found in lines(sample, "chars", *given, "num_samples=3")]
    assert len(set(texts)) == 3
    assert out == "".join(f"--- {i} of 3\n{text}\n" for i, text in enumerate(texts, 1))
    assert sample("chars", *given)[1] == texts[0] + "\n"


def test_prompts_of_a_file_are_named_above_their_samples(sample, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"the \r\n\n a b\n" + b"x" * 70)
    found = lines(sample, "chars", f"prompts={path}", "max_new_tokens=2")
    assert [each["prompt"] for each in found] == ["the ", "", " a b", "x" * 70]
    given = [f"prompts={path}", "max_new_tokens=2", "num_samples=2"]
    titles = [line for line in sample("chars", *given)[1].splitlines() if line.startswith("---")]
    assert titles[:3] == [
        "--- 1 of 4, sample 1 of 2: the ",
        "--- 1 of 4, sample 2 of 2: the ",
        "--- 2 of 4, sample 1 of 2: ",
    ]
    assert titles[-1] == f"--- 4 of 4, sample 2 of 2: {'x' * 57}..."
    assert title(1, ["a", "b\nc"], 1) == "--- 2 of 2: b\\nc\n"


def test_prompts_of_a_jsonl_file_may_hold_line_ends(sample, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a\\nb"}\n\n{"prompt": "c", "id": 3}\n')
    found = lines(sample, "chars", f"prompts={path}", "max_new_tokens=1")
    assert [each["prompt"] for each in found] == ["a\nb", "c"]


def test_a_json_line_says_all_of_a_sample(sample):
    given = ["prompt=the ", "max_new_tokens=3"]
    (found,) = lines(sample, "chars", *given)
    assert found == {
        "prompt": "the ",
        "text": "the " + CHARS.decode(found["token_ids"]),
        "token_ids": found["token_ids"],
        "stop_reason": "length",
    }
    assert len(found["token_ids"]) == 3
    (more,) = lines(sample, "chars", *given, "logprobs=true")
    assert {**more, **found} == more
    assert len(more["logprobs"]) == len(more["alternatives"]) == 3
    for token, logprob, likeliest in zip(
        more["token_ids"], more["logprobs"], more["alternatives"], strict=True
    ):
        assert len(likeliest) == 10
        assert likeliest == sorted(likeliest, key=lambda each: -each["logprob"])
        assert all(each["piece"] == CHARS.decode([each["token_id"]]) for each in likeliest)
        for each in likeliest:
            if each["token_id"] == token:
                assert each["logprob"] == pytest.approx(logprob)


def test_json_is_the_usual_text_and_one_object_on_the_last_line(sample):
    given = ["prompt=the ", "max_new_tokens=3", "num_samples=2"]
    code, out, _ = sample("chars", *given, "json=true")
    assert code == 0
    *text, last = out.splitlines(keepends=True)
    assert "".join(text) == sample("chars", *given)[1]
    found = json.loads(last)
    assert found["samples"] == lines(sample, "chars", *given)
    assert found["checkpoint"] == "chars.ckpt"
    assert found["tokens_per_second"] == pytest.approx(6 / found["seconds"])


def test_digits_are_answered(sample):
    code, out, _ = sample("digits", "prompt=2 0 1 1 0 2")
    assert code == 0
    assert len(out.split()) == 6
    assert set(out.split()) <= {"0", "1", "2"}
    code, _, err = sample("digits", "prompt=2 0 1")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: prompt: has 3 digits, the model knows questions of 6; ")


@pytest.mark.parametrize(
    "text", ["a, b: it's {1}", "[a", "x = ${y}", "007", "1", "true", ' "a" ', "\\n", "a\nb"]
)
def test_what_is_typed_reaches_the_model_as_it_is(sample, text):
    (found,) = lines(sample, "chars", f"prompt={text}", "max_new_tokens=1")
    assert found["prompt"] == text
    assert found["text"].startswith(text)


def test_a_prompt_that_the_model_cannot_read_is_one_line(sample):
    code, out, err = sample("chars", "prompt=grüße")
    assert (code, out) == (2, "")
    assert err.startswith("error: prompt: ")
    assert "U+00FC" in err


def test_a_warning_is_one_line(sample):
    code, out, err = sample("chars", "prompt=" + "a" * 40, "max_new_tokens=1")
    assert (code, len(out)) == (0, 42)
    assert err.startswith("warning: prompt: has 40 tokens, the model's context is 16; ")
    assert err.count("\n") == 1


def test_beams_are_searched(sample):
    model = load("chars.ckpt", precision="fp32", device="cpu")
    given = ["sampling=greedy", "sampling.num_beams=3", "prompt=ab", "max_new_tokens=4"]
    (found,) = lines(sample, "chars", *given)
    assert sample("chars", *given, "stream=true")[1] == found["text"] + "\n"
    assert model.speech.tokenizer.decode(found["token_ids"]) == found["text"][2:]


def start(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


def test_help_and_settings_come_without_torch(tmp_path, without_torch):
    shown = start("--help", cwd=tmp_path, env=without_torch)
    assert shown.returncode == 0
    assert "usage: python -m gpt2lab.sample" in shown.stdout
    shown = start("--cfg", "job", "checkpoint=a", "prompt=${x}: 7", cwd=tmp_path, env=without_torch)
    assert shown.returncode == 0
    assert OmegaConf.to_container(OmegaConf.create(shown.stdout))["prompt"] == "${x}: 7"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=small", "checkpoint=a"], "model: there is no such setting; choose one of"),
        (["checkpoint=a", "sampling.top_p=1.1"], "sampling.top_p: 1.1 is out of range; choose"),
        (["checkpoint=nowhere"], "nowhere: there is no such file or folder; give a run folder"),
        (["checkpoint=."], ".: holds neither a run nor published weights; give a run folder"),
        (["checkpoint=a", "prompts=no.txt"], "no.txt: there is no such file; check prompts"),
        (["checkpoint=a", "prompts=."], ".: cannot be read (Is a directory); name a text file"),
        (["checkpoint=a", "prompts=empty.txt"], "empty.txt: is empty; write one prompt a line"),
        (
            ["checkpoint=a", "prompts=bytes.txt"],
            "bytes.txt:2: byte 4 (0xff) is not UTF-8; save the file as UTF-8",
        ),
        (
            ["checkpoint=a", "prompts=bad.jsonl"],
            "bad.jsonl:1: has no field prompt (its fields: text); add it",
        ),
        (["checkpoint=a", "prompts=text.jsonl"], "text.jsonl:1: is not JSON (Expecting value: "),
        (["-m", "checkpoint=a"], "--multirun: sample takes one set of settings at a time; leave"),
    ],
)
def test_bad_input_is_one_line_without_torch(tmp_path, without_torch, arguments, expected):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bytes.txt").write_bytes(b"ab\nc\xff\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "text.jsonl").write_text("Hello\n")
    refused = start(*arguments, cwd=tmp_path, env=without_torch)
    assert refused.returncode == 2
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {expected}")


@pytest.mark.parametrize(
    "given",
    [
        ["stream=true", "max_new_tokens=100000"],
        ["json_lines=true", "max_new_tokens=9", "num_samples=100000"],
    ],
)
def test_a_reader_that_leaves_is_no_fault(checkpoints, given):
    command = [*COMMAND, "checkpoint=chars.ckpt", *given]
    process = subprocess.Popen(
        command, cwd=checkpoints, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.read(5)
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait(60) == 1
    assert not [line for line in told.splitlines() if not line.startswith("warning: ")]


def test_ctrl_c_ends_the_text_and_its_line(checkpoints):
    command = [*COMMAND, "checkpoint=chars.ckpt", "max_new_tokens=1000000", "stream=true"]
    process = subprocess.Popen(
        command, cwd=checkpoints, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.read(5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=30)
    assert time.monotonic() - began < 8
    assert process.returncode == 130
    assert out.endswith("\n")
    assert told.splitlines()[-1].startswith("error: Ctrl-C: ")
    assert "Traceback" not in told
