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
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


MODEL_WING = ("model", "loss", "optim", "generation")


@pytest.mark.parametrize("file", sorted((PACKAGE / "data").glob("*.py")), ids=lambda f: f.stem)
def test_data_never_imports_the_model(file):
    assert not {f"gpt2lab.{name}" for name in MODEL_WING} & imported(file)


@pytest.mark.parametrize("name", MODEL_WING)
def test_the_model_never_imports_data_or_lightning(name):
    found = imported(PACKAGE / f"{name}.py")
    assert not [m for m in found if m.startswith(("gpt2lab.data", "lightning"))]


@pytest.mark.parametrize(
    "module",
    ["gpt2lab", "gpt2lab.config", "gpt2lab.config.compose", "gpt2lab.errors", "gpt2lab.train"],
)
def test_settings_and_command_lines_load_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
