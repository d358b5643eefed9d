"""python -m gpt2lab lists what there is."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gpt2lab
from gpt2lab.__main__ import COMMANDS
from gpt2lab.config.commands import COMMAND_LINES


def test_every_command_line_is_listed_and_is_there():
    assert set(COMMAND_LINES) | {"benchmark"} == set(COMMANDS)
    assert all(find_spec(f"gpt2lab.{name}") for name in COMMANDS)


def test_it_is_shown_at_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gpt2lab"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(gpt2lab.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "  train      train a GPT-2\n" in done.stdout
    assert "hydra" not in done.stderr
