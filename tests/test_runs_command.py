"""python -m gpt2lab.runs as a user starts it, over folders as a run leaves them."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest

from gpt2lab.config import RunsConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.config.help import help_text
from gpt2lab.runs.run import Run, compared, differences, runs_in
from gpt2lab.runs.table import duration, number, show_difference, show_list

COMMAND = [sys.executable, "-m", "gpt2lab.runs"]
METRICS = """\
step,train/loss,val/loss,val/perplexity,val/exact_match
10,1.5,2.0,7.39,0.25
20,1.25,1.5,4.48,0.75
30,1.0,1.75,5.75,0.5
"""

BEST = ["1.5", "0.75"]
"""The least loss, and the greatest exact match."""

HOLD = """
import sys
from pathlib import Path
from gpt2lab.lock import lock
with lock(Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def start(*arguments, cwd, **options):
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False, **options
    )


def leave(folder, *, rate=0.001, started="2026-01-31T15:45:00+0000", ended_by="itself", **receipt):
    """A run's folder, as far as this command reads it."""
    folder.mkdir(parents=True)
    facts = {"started": started, "parameters": 85_584, "machine": {"host": "a", "cpus": 2}}
    (folder / "receipt.json").write_text(json.dumps(facts | receipt))
    (folder / "config.yaml").write_text(
        f"name: {folder.name}\ndata: {{kind: sort}}\noptim: {{lr: {rate}}}\nseed: 0\n"
    )
    (folder / "metrics.csv").write_text(METRICS)
    if ended_by is not None:
        summary = {"ended_by": ended_by, "stop_reason": "max_steps", "steps": 35, "seconds": 65.2}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def lines(done):
    return [line.split() for line in done.stdout.splitlines()]


def test_runs_yaml_says_what_the_dataclass_says():
    assert settings_from("runs").settings == RunsConfig()


def test_help_names_every_setting():
    text = help_text("runs", "Runs.")
    for field in dataclasses.fields(RunsConfig):
        assert f"  {field.name}=" in text


def test_a_list_has_a_line_for_each_run_the_oldest_first_and_leaves_nothing(tmp_path):
    leave(tmp_path / "runs" / "apple", started="2026-01-31T16:45:50+0100")
    leave(tmp_path / "runs" / "first")
    before = sorted(tmp_path.rglob("*"))
    done = start("show=optim.lr, seed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, _, first, second = (line for line in lines(done) if line)
    assert " ".join(head) == (
        "run started state data optim.lr seed parameters steps time val/loss val/exact_match"
    )
    at = ["2026-01-31", "15:45"]
    assert first == [
        "first",
        *at,
        "finished",
        "sort",
        "0.001",
        "0",
        "85,584",
        "35",
        "0:01:05",
        *BEST,
    ]
    assert second[0] == "apple"  # 50 seconds later, east of Greenwich
    assert sorted(tmp_path.rglob("*")) == before


def test_the_best_by_a_metric_comes_first_and_a_run_without_it_last(tmp_path):
    leave(tmp_path / "runs" / "good", started="2026-03-01T00:00:00+0000")
    worse = leave(tmp_path / "runs" / "worse")
    (worse / "metrics.csv").write_text("step,val/loss,val/exact_match\n10,3.0,0.5\n")
    none = leave(tmp_path / "runs" / "none")
    (none / "metrics.csv").unlink()
    for metric in ("val/loss", "val/exact_match"):
        done = start(f"sort={metric}", "json=true", cwd=tmp_path)
        names = [run["name"] for run in json.loads(done.stdout.splitlines()[-1])["runs"]]
        assert names == ["good", "worse", "none"], metric


def test_two_runs_differ_in_settings_circumstances_and_results(tmp_path):
    leave(tmp_path / "runs" / "first", git_revision="abc")
    second = leave(tmp_path / "elsewhere" / "second", rate=0.002, git_revision="abc")
    (second / "metrics.csv").write_text(METRICS + "40,0.5,0.5,1.65,1.0\n")
    resumed = {"step": 30, "git_revision": "def", "precision": "bf16"}
    receipt = json.loads((second / "receipt.json").read_text())
    (second / "receipt.json").write_text(json.dumps(receipt | {"resumed": [{"step": 9}, resumed]}))
    done = start("a=first", f"b={second}", "json=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = lines(done)
    for line in (
        ["optim.lr", "0.001", "0.002"],
        ["git_revision", "abc", "def"],
        ["best", "val/loss", "1.5", "0.5"],
        ["last", "val/loss", "1.75", "0.5"],
        ["seconds", "0:01:05", "0:01:05"],
        ["resumed_at_step", "30"],
    ):
        assert line in shown
    assert not any(line[:1] == ["seed"] for line in shown)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["settings"] == {"optim.lr": [0.001, 0.002]}
    assert found["made_with"] == {
        "git_revision": ["abc", "def"],
        "precision": [None, "bf16"],
        "resumed_at_step": [None, 30],
    }
    assert found["results"]["best.val/loss"] == [1.5, 0.5]
    assert found["a"]["name"] == "first"


def test_where_a_run_is_called_is_no_difference(tmp_path):
    leave(tmp_path / "runs" / "first")
    leave(tmp_path / "runs" / "again")
    done = start("a=first", "b=again", cwd=tmp_path)
    assert done.stdout.startswith("all settings are the same\n")


@pytest.mark.parametrize(
    ("ended_by", "state"),
    [("itself", "finished"), ("signal", "stopped"), ("fault", "failed"), (None, "killed")],
)
def test_a_state_is_how_the_run_ended(tmp_path, ended_by, state):
    assert Run("a", leave(tmp_path / "a", ended_by=ended_by)).state == state


def test_a_run_under_way_is_running_and_as_far_as_its_metrics(tmp_path):
    folder = leave(tmp_path / "a", ended_by=None)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        process.stdout.readline()
        assert (Run("a", folder).state, Run("a", folder).steps) == ("running", 30)
        process.kill()
    assert Run("a", folder).state == "killed"


def test_a_run_of_another_machine_is_said_to_run_there(tmp_path, monkeypatch):
    folder = leave(tmp_path / "a", ended_by=None)
    monkeypatch.setattr("gpt2lab.runs.run.at_work", lambda folder: {"pid": 1, "host": "another"})
    assert Run("a", folder).state == "running on another"


@pytest.mark.parametrize("name", ["receipt.json", "config.yaml", "metrics.csv", "summary.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\0", b"[" * 9999, b'{"a": [', b"step\n1,2,3\n", b"&a {b: *a}"]
)
def test_damaged_files_leave_cells_empty(tmp_path, capsys, name, content):
    whole, damaged = Run("whole", leave(tmp_path / "whole")), Run("bad", leave(tmp_path / "bad"))
    (damaged.folder / name).write_bytes(content)
    show_list([whole, damaged], ["optim.lr"], {})
    show_difference(whole, damaged, compared(whole, damaged))
    shown = capsys.readouterr().out
    assert ("the settings of bad cannot be read" in shown) == (name == "config.yaml")
    assert damaged.as_json()["state"] == ("killed" if name == "summary.json" else "finished")


def test_neither_a_pipe_nor_a_yaml_file_without_end_is_waited_for(tmp_path):
    for name in ("receipt.json", "config.yaml", "summary.json", "metrics.csv", "lock"):
        folder = leave(tmp_path / name)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    aliases = "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 40))
    (leave(tmp_path / "bomb") / "config.yaml").write_text("a0: &a0 {x: 1}\n" + aliases)
    shown = start("runs_dir=.", cwd=tmp_path, timeout=60).stdout
    assert all(name in shown for name in ("receipt.json", "lock", "bomb"))


def test_a_loss_that_is_no_number_is_null_in_json(tmp_path):
    folder = leave(tmp_path / "runs" / "a")
    (folder / "metrics.csv").write_text("step,val/loss\n10,nan\n")
    done = start("json=true", "sort=val/loss", cwd=tmp_path)
    (run,) = json.loads(done.stdout.splitlines()[-1])["runs"]
    assert run["last"] == {"val/loss": None}


def test_the_runs_of_a_study_are_counted_and_listed_in_its_folder(tmp_path):
    for seed in range(2):
        leave(tmp_path / "runs" / "rates" / f"trial-0000-seed-{seed}")
    leave(tmp_path / "runs" / "alone")
    (tmp_path / "runs" / "nothing").mkdir()
    shown = start(cwd=tmp_path).stdout
    assert "runs/rates holds 2 runs; runs_dir=runs/rates lists them" in shown
    assert "nothing" not in shown
    assert "trial-0000-seed-1" in start("runs_dir=runs/rates", cwd=tmp_path).stdout


def test_a_name_cannot_act_on_the_terminal_or_on_the_table(tmp_path):
    leave(tmp_path / "runs" / "a\x1b[31m[bold]b\n")
    assert "a\\x1b[31m[bold]b\\n" in start(cwd=tmp_path).stdout


def test_it_works_without_torch(tmp_path):
    leave(tmp_path / "runs" / "a")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    for arguments in (["--help"], ["--cfg", "job"], [], ["a=a", "b=a"]):
        assert start(*arguments, cwd=tmp_path, env=environment).returncode == 0, arguments


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["runs_dir=rnus"], "runs_dir: there is no folder rnus; name the one that holds runs"),
        (["a=first"], "b: is missing; name two runs to compare, or leave a= out for a list"),
        (["b=first"], "a: is missing; name two runs to compare, or leave b= out for a list"),
        (["a=frist", "b=first"], "a: there is no run frist in runs; did you mean first?"),
        (["a=first", "b=/nowhere"], "b: there is no run /nowhere in runs; choose one of first"),
        (["sort=val/los"], "sort: 'val/los' is no metric; the metrics are val/loss, "),
        (["shwo=seed"], "shwo: there is no such setting; did you mean show?"),
        (["show=sead"], "show: sead is no setting of these; did you mean seed?"),
        (["show="], "show: is empty; give a value, or leave show= out"),
        (["runs_dir="], "runs_dir: is empty; give a value, or leave runs_dir= out"),
        (["a=first", "b=first", "sort=val/loss"], "sort: is for the list of runs; leave it out"),
        (["runs_dir=runs/first"], "runs_dir: runs/first is a run; name the folder that holds it"),
        (["runs_dir=~nobody-at-all"], "runs_dir: there is no folder ~nobody-at-all; name the one"),
        ([f"runs_dir={'x' * 5000}"], "runs_dir: xxx"),
        (["-m", "a=first,first"], "--multirun: runs takes one set of settings at a time"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, line):
    leave(tmp_path / "runs" / "first")
    refused = start(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.splitlines()[-1].startswith(f"error: {line}")


def test_differences_are_of_keys_that_either_has():
    assert differences({"x": 1, "y": 2}, {"y": 3, "z": 4}) == {
        "x": [1, None],
        "y": [2, 3],
        "z": [None, 4],
    }


@pytest.mark.parametrize(
    ("found", "shown"),
    [(None, ""), (1234, "1,234"), (1.86234, "1.862"), (0.00012345, "0.0001234"), ("x", "x")],
)
def test_numbers_have_four_digits_that_count(found, shown):
    assert number(found) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((None, ""), ("x", ""), (float("nan"), ""), (1e20, ""), (-1, "")),
        *((65.2, "0:01:05"), (90_061, "1 day, 1:01:01")),
    ],
)
def test_durations_are_hours_minutes_and_seconds(seconds, shown):
    assert duration(seconds) == shown


def test_a_narrow_terminal_shows_fewer_columns_and_cuts_none(tmp_path, capsys, monkeypatch):
    for name in ("a-run-with-a-name", "another"):
        leave(tmp_path / "runs" / name)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal does
    for width, has_date in (("80", False), ("140", True)):
        monkeypatch.setenv("COLUMNS", width)
        show_list(runs_in(tmp_path / "runs"), ["optim.lr"], {})
        shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= int(width)
        assert len([line for line in shown.splitlines() if "finished" in line]) == 2
        assert all(word in shown for word in ("a-run-with-a-name", "0.001", "val/loss", "1.5"))
        assert ("2026-01-31 15:45" in shown) == has_date
