"""python -m gpt2lab.evaluate as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from gpt2lab.config import GPT2Config, SortConfig, TextConfig
from gpt2lab.evaluate import main
from gpt2lab.evaluation import scoring
from gpt2lab.exit import exit_code
from gpt2lab.tokenizer import CharTokenizer, gpt2_tokenizer
from tests.test_loading import content, save

COMMAND = [sys.executable, "-m", "gpt2lab.evaluate"]
CHARS = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz'!,.")
LAMBADA = "".join(
    json.dumps({"text": f"the dog said {n} words to the cat"}) + "\n" for n in range(9)
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Untrained models that are spoken to by character, by GPT-2's tokens and by digits, and data
    to evaluate them with."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny = {"n_layer": 1, "n_head": 1, "n_embd": 8}
    for name, block_size, data, tokenizer in (
        ("chars", 16, TextConfig(), CHARS),
        ("tokens", 16, TextConfig(), gpt2_tokenizer()),
        ("digits", 11, SortConfig(), None),
    ):
        size = 3 if tokenizer is None else tokenizer.vocab_size
        config = GPT2Config(**tiny, block_size=block_size, vocab_size=size)
        save(content(config, data, tokenizer), folder / f"{name}.ckpt")
    (folder / "lambada.jsonl").write_text(LAMBADA)
    (folder / "text.txt").write_text("the cat said, no!\n" * 20)
    (folder / "long.txt").write_text("the cat said, no!\n" * 20_000)
    (folder / "Upper.txt").write_text("The cat.")
    (folder / "empty.txt").write_text("")
    (folder / "broken.txt").write_bytes(b"abc\xff")
    (folder / "cut.txt").write_bytes("abcé".encode()[:-1])
    (folder / "broken.jsonl").write_text('{"text": "a b"}\n{"text": \n')
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture
def evaluate(checkpoints, tmp_path, monkeypatch, capsys):
    """Runs the command within this process; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for path in checkpoints.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(name, *overrides):
        words = ["evaluate", f"checkpoint={name}.ckpt", "device=cpu", *overrides]
        monkeypatch.setattr(sys, "argv", words)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = exit_code(main)
        return code, *capsys.readouterr()

    return run


def test_the_end_is_a_table_and_the_file_of_results(evaluate, tmp_path):
    code, out, err = evaluate("tokens", "task=lambada", "data=lambada.jsonl")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "evaluations/tokens.ckpt/lambada.json"
    for words in ("word_accuracy", "95 % interval", "0.3256 (124M)", "GPT-2 paper, table 3"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80
    results = json.loads((tmp_path / "evaluations/tokens.ckpt/lambada.json").read_text())
    assert results["metrics"].keys() == {
        "word_accuracy",
        "word_perplexity",
        "last_token_accuracy",
        "last_token_perplexity",
    }


def test_json_is_the_last_line(evaluate):
    _, out, _ = evaluate("chars", "task=perplexity", "data=text.txt", "json=true", "to=here")
    results = json.loads(out.splitlines()[-1])
    assert results["file"] == "here/perplexity.json"
    assert results["metrics"]["token_perplexity"]["value"] == pytest.approx(
        len("abc") * 11, rel=0.3
    )
    assert "published" not in results["metrics"]["token_perplexity"]


def test_a_model_that_sorts_is_evaluated_at_sorting(evaluate):
    code, out, err = evaluate("digits", "task=sort", "json=true")
    assert (code, err) == (0, "")
    found = json.loads(out.splitlines()[-1])["metrics"]
    assert found["exact_match"]["value"] == found["exact_match_generated"]["value"]


@pytest.mark.parametrize(
    ("name", "overrides", "problem"),
    [
        ("tokens", ["task=lambada", "data=none"], "data: none does not exist; give a file"),
        ("tokens", ["task=lambada", "data=nothing"], "data: nothing holds no file; give a file"),
        ("tokens", ["task=lambada", "data=*.none"], "data: *.none holds no file; give a file"),
        ("tokens", ["task=lambada", "data=empty.txt"], "data: empty.txt is empty; give one with"),
        (
            "tokens",
            ["task=lambada", "data=*.txt"],
            "data: *.txt is no single file; give lamb",
        ),
        ("tokens", ["task=ptb", "data=."], "data: . is no single file; give ptb.test.txt"),
        ("tokens", ["task=ptb", "data=broken.txt"], "broken.txt: byte 3 (0xff) is not UTF-8; save"),
        ("tokens", ["task=text8", "data=cut.txt"], "cut.txt: byte 3 (0xc3) is not UTF-8; save"),
        ("tokens", ["task=lambada", "data=broken.jsonl"], "broken.jsonl:2: is not JSON (Expecting"),
        ("tokens", ["task=lambada", "data=text.txt"], "text.txt:1: is not JSON"),
        ("tokens", ["task=cbt", "data=lambada.jsonl"], "lambada.jsonl:1: has no field q"),
        ("tokens", ["task=lambda"], "task: 'lambda' is not an option; did you mean lambada?"),
        (
            "tokens",
            ["task=ptb", "data=text.txt", "stride=17"],
            "stride: 17 is more than the",
        ),
        ("tokens", ["task=sort"], "task: sort needs a model that was trained to sort"),
        ("digits", ["task=lambada", "data=lambada.jsonl"], "task: lambada needs a model of text"),
        (
            "digits",
            ["task=ptb", "data=text.txt"],
            "task: ptb needs a model of text, this one sorts",
        ),
        (
            "chars",
            ["task=ptb", "data=Upper.txt"],
            "Upper.txt: the character 'T' (U+0054) at",
        ),
        ("chars", ["task=lambada", "data=lambada.jsonl"], "lambada.jsonl:1: the character '0'"),
        ("none", ["task=sort"], "none.ckpt: there is no such file or folder"),
        ("tokens", ["task=lambada", "data=lambada.jsonl", "to=text.txt"], "to: "),
    ],
)
def test_a_mistake_ends_with_code_2_and_one_line_and_no_folder(
    evaluate, tmp_path, name, overrides, problem
):
    before = {*tmp_path.iterdir()}
    code, out, err = evaluate(name, *overrides)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {problem}")
    assert "; " in err.splitlines()[0]
    assert {*tmp_path.iterdir()} == before


def run(*overrides, cwd, **kwargs):
    words = [*COMMAND, *overrides]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, **kwargs)


def test_mistakes_in_data_are_answered_without_torch(checkpoints):
    code = (
        "import sys; from gpt2lab.exit import exit_code; from gpt2lab.evaluate import main\n"
        "found = exit_code(main); sys.exit(100 if 'torch' in sys.modules else found)"
    )
    for overrides in (
        ["task=lambda"],
        ["task=lambada", "data=broken.jsonl"],
        ["task=perplexity", "data=broken.txt"],
        ["task=hellaswag", "data=missing"],
    ):
        words = [sys.executable, "-c", code, "checkpoint=tokens.ckpt", *overrides]
        done = subprocess.run(words, cwd=checkpoints, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr


def test_what_needs_the_hub_says_so_in_one_line(checkpoints, tmp_path):
    for task, wanted, local in (
        ("hellaswag", "Rowan/hellaswag, split validation", "hellaswag_val.jsonl"),
        ("1bw", "billion-word-benchmark/lm1b@refs/convert/parquet", "news.en.heldout"),
    ):
        done = run(
            f"checkpoint={checkpoints}/tokens.ckpt",
            f"task={task}",
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: data: {wanted}")
        assert str(tmp_path / "hf") in line
        assert f"; give a local file instead: data={local}" in line


def long_evaluation(checkpoints):
    """Of thousands of windows, one at a time."""
    words = {"checkpoint": "tokens.ckpt", "data": "long.txt"}
    paths = [f"{key}={checkpoints / name}" for key, name in words.items()]
    return [*paths, "task=perplexity", "batch_tokens=16"]


def started(checkpoints, cwd, *more, size=2000):
    """A slow evaluation of a text, one window at a time, whose journal has so many bytes."""
    words = long_evaluation(checkpoints)
    process = subprocess.Popen(
        [*COMMAND, *words, "to=found", *more],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    while not [p for p in (cwd / "found").glob(".*.journal") if p.stat().st_size > size]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_what_the_next_start_goes_on_with(checkpoints, tmp_path, number):
    process = started(checkpoints, tmp_path)
    process.send_signal(number)
    out, told = process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in told
    assert out == ""
    (journal,) = (tmp_path / "found").iterdir()
    assert journal.read_bytes().endswith(b"\n")
    process = started(checkpoints, tmp_path, size=journal.stat().st_size)
    process.kill()
    process.communicate()
    numbers = [int(line.split()[1]) for line in journal.read_text().splitlines()[:-1]]
    assert len(numbers) == len({*numbers})  # nothing was scored twice


@pytest.mark.slow
def test_a_killed_evaluation_ends_as_if_it_had_not_been(checkpoints, tmp_path):
    started(checkpoints, tmp_path, "limit=300").kill()
    words = [*long_evaluation(checkpoints), "limit=300", "json=true"]
    found = [run(*words, f"to={folder}", cwd=tmp_path) for folder in ("found", "fresh")]
    part, whole = [json.loads(done.stdout.splitlines()[-1]) for done in found]
    assert part["metrics"] == whole["metrics"]
    assert [p.name for p in (tmp_path / "found").iterdir()] == ["perplexity.json"]


def test_ctrl_c_ends_with_code_130_and_the_next_start_goes_on(evaluate, tmp_path, monkeypatch):
    words = ["tokens", "task=perplexity", "data=text.txt", "batch_tokens=16", "json=true"]
    whole = json.loads(evaluate(*words, "to=whole")[1].splitlines()[-1])
    real, calls = scoring.score_batch, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(scoring, "score_batch", interrupted)
    code, out, err = evaluate(*words, "to=part")
    assert (code, out) == (130, "")
    assert err == "error: Ctrl-C: stopped at once; what was saved before is whole\n"
    part = json.loads(evaluate(*words, "to=part")[1].splitlines()[-1])
    assert part["metrics"] == whole["metrics"]
    assert len(calls) == 3 + part["items"] - 2
