"""The rules of the tree, read off its import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2lab

PACKAGE = Path(gpt2lab.__file__).parent


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import hides its layer"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


BELOW = {"batch", "config", "durable", "errors", "heap", "progress", "tokenizer"}
MODEL_WING = {
    *("backends", "flops", "generation", "loss", "measure", "meta", "model", "optim", "peak"),
    *("precision", "ranks", "weights"),
}


def files_of(name: str) -> list[Path]:
    """A module of gpt2lab, or all of those in a folder."""
    file = PACKAGE / f"{name}.py"
    return [file] if file.exists() else sorted((PACKAGE / name).rglob("*.py"))


def of_ours(file: Path) -> set[str]:
    """The modules and folders of gpt2lab that a file imports."""
    return {name.split(".")[1] for name in imported(file) if name.startswith("gpt2lab.")}


@pytest.mark.parametrize("file", sorted((PACKAGE / "data").rglob("*.py")), ids=lambda f: f.stem)
def test_data_imports_what_lies_below_it_and_never_the_model(file):
    assert of_ours(file) <= BELOW | {"data"}


@pytest.mark.parametrize("name", sorted(MODEL_WING))
def test_the_model_never_imports_data_or_lightning(name):
    assert files_of(name)
    for file in files_of(name):
        assert of_ours(file) <= BELOW | MODEL_WING, file
        assert not [m for m in imported(file) if m.split(".")[0] == "lightning"], file


def test_checkpoints_know_the_model_and_nothing_above_themselves():
    for file in files_of("checkpoint"):
        assert of_ours(file) <= BELOW | MODEL_WING | {"checkpoint"}, file


def test_loading_stands_on_checkpoints_and_the_model():
    assert of_ours(PACKAGE / "loading.py") <= BELOW | MODEL_WING | {"checkpoint"}


def test_what_a_run_begins_with_stands_on_loading():
    assert of_ours(PACKAGE / "init_from.py") <= BELOW | MODEL_WING | {"checkpoint", "loading"}


def test_nothing_below_the_command_lines_imports_evaluation():
    """It stands beside experiment: what it needs lies below both."""
    for file in files_of("evaluation"):
        assert not of_ours(file) & {"experiment", "training", "lightning_module", "launch"}, file
    for file in PACKAGE.rglob("*.py"):
        if "evaluation" not in file.parts and file.name != "evaluate.py":
            assert "evaluation" not in of_ours(file), file


def test_a_plan_stands_on_model_and_data_and_nothing_stands_on_it():
    for file in files_of("planning"):
        assert of_ours(file) <= BELOW | MODEL_WING | {"checkpoint", "data", "planning"}, file
    for file in PACKAGE.rglob("*.py"):
        if file.name != "plan.py" and "planning" not in file.parts:
            assert "planning" not in of_ours(file), file


def test_studies_know_the_command_line_of_a_trial_and_nothing_of_training():
    below = BELOW | {"launch", "lock", "metrics", "run_folder", "signals", "statistics", "sweep"}
    for file in files_of("sweep"):
        if file.name != "__main__.py":
            assert of_ours(file) <= below, file


def test_no_module_hides_a_public_name():
    assert not [name for name in gpt2lab.__all__ if files_of(name)]


@pytest.mark.parametrize(
    "module",
    [
        "gpt2lab",
        "gpt2lab.config",
        "gpt2lab.config.compose",
        "gpt2lab.data.prepare",
        "gpt2lab.data.tokens",
        "gpt2lab.errors",
        "gpt2lab.explore",
        "gpt2lab.explorer.server",
        "gpt2lab.export",
        "gpt2lab.init_from",
        "gpt2lab.insight",
        "gpt2lab.insight.__main__",
        "gpt2lab.evaluate",
        "gpt2lab.evaluation.run",
        "gpt2lab.interactive",
        "gpt2lab.loading",
        "gpt2lab.plan",
        "gpt2lab.prepare",
        "gpt2lab.sample",
        "gpt2lab.sweep.__main__",
        "gpt2lab.sweep.report",
        "gpt2lab.sweep.results",
        "gpt2lab.sweep.run",
        "gpt2lab.tokenizer",
        "gpt2lab.train",
        "gpt2lab.weights.hub",
        "gpt2lab.weights.layout",
        "gpt2lab.weights.target",
        "gpt2lab.weights.tokenizer_files",
    ],
)
def test_settings_and_command_lines_load_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
