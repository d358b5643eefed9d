"""Gradio, loaded without its stubs."""

import subprocess
import sys

import pytest

pytest.importorskip("gradio")

PROGRAM = """
import sys
from pathlib import Path

opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))

from gpt2lab.explorer.gradio_import import import_gradio

import_gradio().join()
assert "gradio" in sys.modules
import gradio

print(len([path for path in opened if path.endswith(".pyi")]))
assert callable(gradio.Button("go on").click) and callable(gradio.Textbox().submit)
"""


def test_no_stub_is_read_or_written_and_its_components_have_their_events():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
