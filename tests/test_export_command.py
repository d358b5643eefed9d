"""python -m gpt2lab.export as a user starts it."""

import json
import os
import re
import subprocess
import sys
import warnings

import pytest
import torch

from gpt2lab import export as command
from gpt2lab.exit import exit_code
from gpt2lab.loading import load
from tests.damage import CUTS
from tests.machine import in_mounts, needs_mounts
from tests.test_loading import content, plainly, save

COMMAND = [sys.executable, "-m", "gpt2lab.export"]
FILES = (
    *("README.md", "config.json", "generation_config.json", "gpt2lab.json", "model.safetensors"),
    *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
)


@pytest.fixture
def place(tmp_path):
    """A folder with a checkpoint, where everything happens."""
    save(content(), tmp_path / "a.ckpt")
    return tmp_path


@pytest.fixture
def export(place, monkeypatch, capsys):
    """Runs the command within this process; its exit code, stdout and stderr."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*overrides, checkpoint="a.ckpt"):
        monkeypatch.setattr(sys, "argv", ["export", f"checkpoint={checkpoint}", *overrides])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = exit_code(command.main)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(export, monkeypatch):
    """Runs the command, which must say no before torch is loaded and leave all as it is."""

    def run(*overrides, **options):
        monkeypatch.setitem(sys.modules, "gpt2lab.exporting", None)
        before = everything()
        code, out, err = export(*overrides, **options)
        assert (code, out) == (2, ""), err
        assert everything() == before
        (line,) = err.splitlines()
        return line

    return run


def everything(folder="."):
    found = {}
    for where, folders, files in os.walk(folder):
        found |= {os.path.join(where, name): None for name in folders}  # noqa: PTH118
        for name in files:
            path = os.path.join(where, name)  # noqa: PTH118
            with open(path, "rb") as file:  # noqa: PTH123
                found[path] = file.read()
    return found


def test_it_shows_what_was_written_and_what_was_compared(export, place):
    code, out, err = export("to=new/out")
    assert (code, err) == (0, "")
    *files, ours, theirs, last = out.splitlines()
    assert [line.split()[1] for line in files] == [*FILES]
    sizes = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in files}
    assert sizes == {path.name: path.stat().st_size for path in (place / "new/out").iterdir()}
    assert ours == "read again by gpt2lab, equal: 28 tensors bit for bit, logits of 3 rows of 11"
    assert theirs.startswith("read again by transformers, equal: logits of 3 rows of 11 (largest ")
    assert theirs.endswith("), greedy text of 6 tokens, ids of 3 texts")
    assert last == "new/out"


@torch.no_grad()
def test_what_was_exported_is_a_checkpoint_too(export, place):
    assert export("to=out")[0] == 0
    before, after = plainly(place / "a.ckpt"), plainly(place / "out")
    tokens = torch.tensor([[2, 0, 1, 1, 0]])
    assert torch.equal(before(tokens), after(tokens))
    assert after.speech.encode("2 0 1 1 0 2") == before.speech.encode("2 0 1 1 0 2")
    assert export("to=again", checkpoint="out")[0] == 0
    for name in FILES:
        if name != "README.md":
            assert (place / "again" / name).read_bytes() == (place / "out" / name).read_bytes()


def test_json_is_the_last_line(export):
    _, out, _ = export("to=out", "json=true", "precision=bf16")
    found = json.loads(out.splitlines()[-1])
    assert found["to"] == "out"
    assert [*found["files"]] == [*FILES]
    assert [*found["compared"]] == ["gpt2lab", "transformers"]
    assert found["seconds"] > 0


def test_onnx_lies_beside_a_tokenizer_and_nobody_hears_the_exporter(place):
    done = subprocess.run(
        [*COMMAND, "checkpoint=a.ckpt", "to=out", "format=onnx"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "read again by onnxruntime, equal: logits of 1 x 1, 2 x 11, 3 x 6 tokens" in done.stdout
    assert {path.name for path in (place / "out").iterdir()} == {
        *("README.md", "model.onnx"),
        *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
    }


def test_nothing_but_the_result_is_said(place):
    """Neither transformers' progress nor its advice."""
    done = subprocess.run(
        [*COMMAND, "checkpoint=a.ckpt", "to=out"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(FILES) + 3


def test_an_export_is_replaced_only_where_that_is_asked_for(export, place):
    assert export("to=out")[0] == 0
    (place / "out" / "model-00001-of-00002.safetensors").write_bytes(b"of another one")
    save(content(), place / "b.ckpt")
    before = everything("out")
    code, _, err = export("to=out", checkpoint="b.ckpt")
    assert code == 2
    assert err == (
        "error: to: out holds an export already; choose another folder, or add overwrite=true\n"
    )
    assert everything("out") == before
    assert export("to=out", "overwrite=true", checkpoint="b.ckpt")[0] == 0
    after = everything("out")
    assert {path.removeprefix("out/") for path in after} == {*FILES}
    assert after["out/model.safetensors"] != before["out/model.safetensors"]


def test_an_empty_folder_is_filled(export, place):
    (place / "out").mkdir()
    assert export("to=out")[0] == 0
    assert {path.name for path in place.iterdir()} == {"a.ckpt", "out"}


def test_a_folder_with_anything_else_is_left_alone(refused, place):
    (place / "out").mkdir()
    (place / "out" / "thesis.tex").write_text("x")
    for overwrite in ("overwrite=true", "overwrite=false"):
        assert refused("to=out", overwrite) == (
            "error: to: out holds thesis.tex, which is no export; choose another folder"
        )
    (place / "out" / "thesis.tex").rename(place / "config.json")
    (place / "out" / "config.json").mkdir()
    assert "holds config.json, which is no export" in refused("to=out", "overwrite=true")


def test_a_folder_whose_files_are_called_as_ours_is_left_alone(refused, place):
    (place / "out").mkdir()
    for name in ("README.md", "config.json"):
        (place / "out" / name).write_text("mine")
    for overwrite in ("overwrite=true", "overwrite=false"):
        assert "holds README.md, which is no export" in refused("to=out", overwrite)


def test_a_checkpoint_in_one_file_replaces_nothing_but_such_a_file(refused, place):
    (place / "notes.txt").write_text("mine")
    (place / "run" / "checkpoints").mkdir(parents=True)
    of_a_run = place / "run" / "checkpoints" / "step-000020.ckpt"
    save(content(), of_a_run)
    before = of_a_run.read_bytes()
    told = ["format=checkpoint", "overwrite=true"]
    assert "notes.txt is there, and no checkpoint" in refused("to=notes.txt", *told)
    assert "choose another file, for a run has this one" in refused(f"to={of_a_run}", *told)
    assert of_a_run.read_bytes() == before
    assert (place / "notes.txt").read_text() == "mine"


def test_an_export_is_not_written_over_itself(export, refused, place):
    assert export("to=out")[0] == 0
    line = refused("to=./out", "overwrite=true", checkpoint="out")
    assert line == "error: to: out is what checkpoint= names; choose another folder"


TARGETS = {
    "": "to: is empty; name a folder to write",
    "a.ckpt": r"to: \S+/a\.ckpt is a file; choose a folder",
    "a.ckpt/deeper/out": r"to: \S+/a\.ckpt is a file; choose a folder",
    ".": r"to: \. is the folder that you are in; name one inside of it",
    "/proc/out": r"to: /proc cannot be written to; choose another folder",
    "x" * 300: r"to: x+ cannot be a folder \(File name too long\); choose another one",
}


@pytest.mark.parametrize(("to", "problem"), TARGETS.items(), ids=lambda x: x[:20])
def test_a_target_that_cannot_be_is_refused(refused, to, problem):
    if to.startswith("/proc") and os.access("/proc", os.W_OK):
        pytest.skip("root is let in there, and refused when it writes")
    assert re.fullmatch(f"error: {problem}", refused(f"to={to}"))


@pytest.mark.parametrize("damage", CUTS.values(), ids=CUTS.keys())
def test_a_damaged_checkpoint_is_refused(refused, place, damage):
    path = place / "a.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    assert "a.ckpt: has " in refused("to=out")


def test_a_checkpoint_that_is_not_there_is_refused(refused):
    line = refused("to=out", checkpoint="b.ckpt")
    assert line == "error: b.ckpt: there is no such file or folder; did you mean a.ckpt?"


def test_nan_is_refused_and_nothing_is_left(export, place):
    made = content()
    made["state_dict"]["model.transformer.wpe.weight"][1, 2] = torch.inf
    save(made, place / "a.ckpt")
    code, out, err = export("to=out")
    assert (code, out) == (2, "")
    assert "wpe.weight has 1 of 176 numbers NaN or infinite; take another one, or go on" in err
    assert [path.name for path in place.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize(
    ("form", "package", "extra"),
    [("hf", "safetensors", "hf"), ("onnx", "onnxscript", "onnx"), ("onnx", "onnxruntime", "onnx")],
)
def test_a_missing_package_is_named_with_its_extra(refused, monkeypatch, form, package, extra):
    found = command.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == package else found(name))
    assert refused("to=out", f"format={form}") == (
        f"error: format: {form} needs the package {package}; run pip install 'gpt2lab[{extra}]'"
    )


def test_without_transformers_our_reader_alone_compares(export, monkeypatch):
    monkeypatch.setattr("gpt2lab.exporting.has_transformers", lambda: False)
    code, out, err = export("to=out")
    assert code == 0
    assert "read again by transformers" not in out
    assert err == (
        "warning: transformers: is not installed, so that it has not read what was written; "
        "pip install 'gpt2lab[hf]' adds it\n"
    )


@needs_mounts
@pytest.mark.parametrize("form", ["hf", "onnx"])
def test_a_full_disk_and_a_read_only_one_leave_nothing(place, form):
    script = (
        'mkdir -p "$1/disk"; mount -t tmpfs -o size=%s tmpfs "$1/disk"; shift; '
        'trap \'ls -A "%s/disk"\' EXIT; "$@"'
    )
    words = [*COMMAND, f"checkpoint={place}/a.ckpt", f"to={place}/disk/out", f"format={form}"]
    full = in_mounts(script % ("100k", place), str(place), *words)
    assert full.returncode == 1
    assert full.stdout == ""
    (line,) = full.stderr.splitlines()
    assert line.startswith(f"error: {place}/disk/out: cannot be written (No space left on device)")
    assert "bytes are needed" in line
    read_only = in_mounts(script % ("100k,ro", place), str(place), *words)
    assert read_only.returncode == 2
    assert f"to: {place}/disk cannot be written to; choose another folder" in read_only.stderr
    assert read_only.stdout == ""


@needs_mounts
def test_a_disk_that_fills_up_while_it_is_written_leaves_nothing(place):
    """It has room when that is asked for: another process may be quicker."""
    script = (
        'mkdir -p "$1/disk"; mount -t tmpfs -o size=16k tmpfs "$1/disk"; shift; '
        f'trap \'ls -A "{place}/disk"\' EXIT; "$@"'
    )
    code = (
        "import gpt2lab.durable, sys\n"
        "gpt2lab.durable.check_room = lambda *_: None\n"
        "from gpt2lab import export, exit\n"
        "sys.exit(exit.exit_code(export.main))"
    )
    words = [sys.executable, "-c", code, f"checkpoint={place}/a.ckpt", f"to={place}/disk/out"]
    full = in_mounts(script, str(place), *words)
    assert (full.returncode, full.stdout) == (1, "")
    assert full.stderr.startswith(f"error: {place}/disk/out: cannot be written (No space left on")


def test_load_takes_what_was_exported_in_bf16(export, place):
    assert export("to=out", "precision=bf16")[0] == 0
    assert load(place / "out", device="cpu").vocab_size == 3
