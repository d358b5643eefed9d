"""Every command of README runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.S | re.M)
FENCED = [text for language, text in BLOCKS if not language]
COMMANDS = [line for block in FENCED for line in block.splitlines() if "python -m gpt2lab" in line]
LISTED = re.findall(r"^\| `(python -m gpt2lab[^`]*)` ", README, re.M)
# Those that train to their target or measure for minutes; all others answer in seconds.
LONG = (
    *("benchmark loop", "benchmark loss", "benchmark prepare", "benchmark generate"),
    "benchmark plan",
    *("train model=small data=sort", "train model=nano data=sort", "train model=char data=builtin"),
)
# Those that download; `data.path=` takes a copy, and a local folder stands for `gpt2`.
NETWORK = ("shakespeare_char_cpu", "shakespeare_char_muon")
ON_THE_HUB = re.compile(r"=gpt2( |$)")


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    return subprocess.run(
        [sys.executable, *words[1:]], cwd=cwd, capture_output=True, text=True, check=False
    )


def short(commands: list[str]) -> list[str]:
    return [
        c
        for c in commands
        if not c.startswith(("$", "pip"))
        and not c.endswith(LONG + NETWORK)
        and not ON_THE_HUB.search(c.replace("data.tokenizer=", ""))
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where every short command has run, in README's order."""
    place = tmp_path_factory.mktemp("readme")
    commands = short([*COMMANDS, *LISTED])
    assert len(commands) >= 6
    for command in commands:
        done = run(command, place)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return place


def test_each_short_command_runs(folder):
    assert (folder / "runs" / "first" / "summary.json").exists()


def test_the_mistakes_shown_are_answered_as_shown(tmp_path):
    (block,) = [block for block in FENCED if block.startswith("$ ")]
    command, *expected = block.splitlines()
    done = run(command.removeprefix("$ "), tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == expected


def test_the_python_examples_run(folder):
    explaining, training, sampling, looking = [
        text for language, text in BLOCKS if language == "python"
    ]
    assert re.search(r"ĠðŁ\S+ .* 12520 97 245$", run_code(explaining, folder), re.M)
    assert re.search(r"^runs/\S+ [01]\.\d+$", run_code(training, folder), re.M)
    assert run_code(sampling, folder).startswith("The function")
    assert run_code(looking, folder).startswith("torch.Size([4, 4, 13, 13])")


def run_code(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if "checkpoint=gpt2" in c])
def test_what_needs_the_hub_says_so_without_a_network(tmp_path, monkeypatch, command):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    done = run(command, tmp_path)
    assert done.returncode == 2
    assert "openai-community/gpt2 is not in the cache" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in LISTED if c.endswith(LONG)])
def test_each_long_command_runs(tmp_path, command):
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    if "data=sort" in command:
        assert "stopped by stop_at=val/exact_match:1.0" in done.stdout


def test_the_tree_names_files_that_exist():
    (tree,) = [block for block in FENCED if block.startswith("conf/")]
    package = Path(__file__).parent.parent / "gpt2lab"
    for name in re.findall(r"\b([a-z_]+\.py)\b", tree):
        assert [*package.rglob(name)], name
