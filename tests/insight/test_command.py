"""python -m gpt2lab.insight as a user starts it."""

import json
import subprocess
import sys
import warnings

import pytest

from gpt2lab.exit import exit_code
from gpt2lab.insight import __main__ as command
from tests.test_export_command import everything
from tests.test_loading import content, plainly, save

PROMPT = "prompt=2 0 1 1 0 2"
FILES = {f"{n}.png" for n in ("answer", "arcs", "head", "heads", "last_block", "lens", "loss")}
FILES |= {"next.png", "scores.png", "index.html"}


@pytest.fixture
def place(tmp_path):
    save(content(), tmp_path / "a.ckpt")
    return tmp_path


@pytest.fixture
def insight(place, monkeypatch, capsys):
    """Runs the command within this process; its exit code, stdout and stderr."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*overrides, checkpoint="a.ckpt"):
        monkeypatch.setattr(sys, "argv", ["insight", f"checkpoint={checkpoint}", *overrides])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = exit_code(command.main)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(insight):
    """Runs the command, which must say no in one line and leave all as it is."""

    def run(*overrides, **options):
        before = everything()
        code, out, err = insight(*overrides, **options)
        assert (code, out) == (2, ""), err
        assert everything() == before
        (line,) = err.splitlines()
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def before_it_looks(refused, monkeypatch):
    """The same, before what looks into a model is imported."""
    monkeypatch.setitem(sys.modules, "gpt2lab.insight.folder", None)
    return refused


def test_a_folder_of_pictures_and_the_numbers(insight, place):
    code, out, err = insight(PROMPT, "to=new/out", "json=true")
    assert (code, err) == (0, "")
    *files, summary, page, last = out.splitlines()
    assert {path.name for path in (place / "new/out").iterdir()} == FILES
    sizes = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in files}
    assert sizes == {path.name: path.stat().st_size for path in (place / "new/out").iterdir()}
    assert summary.startswith("11 tokens; after 2: ")
    assert page == "new/out/index.html"
    numbers = json.loads(last)
    assert numbers["files"] == sizes
    assert numbers["tokens"][:6] == ["2", "0", "1", "1", "0", "2"]
    assert len(numbers["attention"]) == plainly(place / "a.ckpt").config.n_layer


def test_it_runs_as_a_module(place):
    done = subprocess.run(
        [sys.executable, "-m", "gpt2lab.insight", "checkpoint=a.ckpt", PROMPT, "to=out"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "out/index.html"


def test_an_earlier_insight_is_replaced_only_where_that_is_asked_for(insight, refused, place):
    assert insight(PROMPT, "to=out")[0] == 0
    assert refused(PROMPT, "to=out") == (
        "to: out holds an insight already; choose another folder, or add overwrite=true"
    )
    (place / "out" / "head.png").write_bytes(b"old")
    assert insight(PROMPT, "to=out", "overwrite=true")[0] == 0
    assert (place / "out" / "head.png").read_bytes() != b"old"


def test_a_folder_with_anything_else_is_left_alone(before_it_looks, place):
    (place / "out").mkdir()
    (place / "out" / "holiday.png").write_bytes(b"x")
    assert before_it_looks(PROMPT, "to=out", "overwrite=true") == (
        "to: out holds holiday.png, which is no insight; choose another folder"
    )


def test_what_is_missing_or_a_file_is_said_before_it_looks(before_it_looks):
    assert before_it_looks(PROMPT, "to=out", checkpoint="b.ckpt") == (
        "b.ckpt: there is no such file or folder; did you mean a.ckpt?"
    )
    assert before_it_looks(PROMPT, "to=a.ckpt").endswith("a.ckpt is a file; choose a folder")


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            [PROMPT, "layer=2", "head=0"],
            "layer: 2 is beyond the model's 2 layers, counted from 0; ",
        ),
        ([PROMPT, "layer=0", "head=2"], "head: 2 is beyond the model's 2 heads, counted from 0; "),
        ([PROMPT, "token=11"], "token: 11 is none of the 11 that are read"),
        (["prompt=2 0 x"], "prompt: text: 'x' is none of the digits 0 to 2"),
        ([], "prompt: has 0 digits, the model knows questions of 6"),
    ],
)
def test_what_the_model_does_not_know_is_refused(refused, overrides, problem):
    assert refused(*overrides, "to=out").startswith(problem)


def test_without_plotly_it_says_so_and_draws(insight, place, monkeypatch):
    monkeypatch.setattr("gpt2lab.insight.page.has_plotly", lambda: False)
    code, _, err = insight(PROMPT, "to=out")
    assert code == 0
    assert "pip install 'gpt2lab[insight]' adds it" in err
    assert (place / "out/index.html").stat().st_size < 20_000
    assert (place / "out/heads.png").read_bytes().startswith(b"\x89PNG")


def test_a_failure_leaves_nothing(insight, place, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt2lab.insight.folder.write_whole", fail)
    code, out, err = insight(PROMPT, "to=out")
    assert (code, out) == (1, "")
    assert err.startswith("error: out: cannot be written (No space left on device): ")
    assert [path.name for path in place.iterdir()] == ["a.ckpt"]
