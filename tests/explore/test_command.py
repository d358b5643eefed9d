"""python -m gpt2lab.explore: what is refused before anything heavy is loaded."""

import sys
import warnings
from pathlib import Path

import pytest

from gpt2lab import explore
from gpt2lab.exit import exit_code
from tests.test_loading import content, save


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs the command, which must say no in one line before torch is loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setitem(sys.modules, "gpt2lab.explorer.session", None)
    save(content(), tmp_path / "a.ckpt")

    def run(*overrides):
        monkeypatch.setattr(sys, "argv", ["explore", *overrides])
        code = exit_code(explore.main)
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        (line,) = err.splitlines()
        return line.removeprefix("error: ")

    return run


def test_what_is_missing_or_damaged(refused, tmp_path):
    assert refused("checkpoint=b.ckpt") == (
        "b.ckpt: there is no such file or folder; did you mean a.ckpt?"
    )
    assert refused("checkpoint=a.ckpt", "checkpoint2=c.ckpt").startswith("c.ckpt: there is no")


def test_an_address_that_is_not_this_machines(refused):
    given = ("checkpoint=a.ckpt", "token=a-secret-word")
    assert refused(*given, "host=203.0.113.1").startswith("host: 203.0.113.1 cannot be listened at")
    assert refused(*given, "host=no.such.invalid").startswith("host: no.such.invalid is no address")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a"], ["a"]),
        (["runs/a", "gpt2"], ["a", "gpt2"]),
        (["runs/a/last.ckpt", "runs/b/last.ckpt"], ["a/last.ckpt", "b/last.ckpt"]),
        (["x/a/last.ckpt", "y/a/last.ckpt"], ["x/a/last.ckpt", "y/a/last.ckpt"]),
        (["a", "a"], ["a", "a"]),
    ],
)
def test_a_heading_tells_which_checkpoint_it_is(paths, names):
    assert explore.names_of([Path(path) for path in paths]) == names


def test_without_gradio_it_says_what_to_install(refused, monkeypatch):
    monkeypatch.setattr(explore, "find_spec", lambda name: None)
    assert refused("checkpoint=a.ckpt") == (
        "gradio: is not installed; pip install 'gpt2lab[ui]' adds it"
    )
