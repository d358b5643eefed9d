"""python -m gpt2lab.train as a user starts it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gpt2lab.config.commands import COMMAND_LINES
from gpt2lab.config.conf_dir import groups
from gpt2lab.config.help import help_text
from tests.machine import needs_dev_full

QUICK = [
    "model=nano",
    "data=sort",
    "max_steps=2",
    "eval_every=2",
    "batch_size=4",
    "stop_at=null",
]


def start(*arguments, cwd, **options):
    command = [sys.executable, "-m", "gpt2lab.train", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


def test_help_names_every_group_option_and_setting():
    text = help_text("train", "Train.")
    words = set(text.replace(",", " ").split())
    for group, options in groups().items():
        assert {group, *options} <= words
    assert "n_layer=12" in text
    assert "momentum=0.95" in text
    assert "micro_batch_size=null" in text
    entries = [line for line in text.splitlines() if line[:2] == "  " and line[2:3] != " "]
    assert all(len(line.split()) > 1 for line in entries)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_fits_its_lines_and_hangs_what_goes_on(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    for name in COMMAND_LINES:
        lines = help_text(name, "Do.").splitlines()
        assert max(map(len, lines)) <= int(columns)
    assert any(line.startswith(" " * 35) for line in lines)


def test_help_and_settings_come_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    shown = start("--help", cwd=tmp_path, env=environment)
    assert shown.returncode == 0
    assert "usage: python -m gpt2lab.train" in shown.stdout
    composed = start("--cfg", "job", "model=xl", cwd=tmp_path, env=environment)
    assert composed.returncode == 0
    assert OmegaConf.create(composed.stdout).model.n_layer == 48
    refused = start("model.n_layr=2", "seed=x", cwd=tmp_path, env=environment)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "error: model.n_layr: there is no such setting; did you mean n_layer?",
        "error: seed: 'x' is not a whole number; give a whole number",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["torch.py"]


def test_the_last_line_is_the_run_folder(tmp_path):
    done = start(*QUICK, "name=a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "runs/a"
    assert (tmp_path / "runs" / "a" / "summary.json").exists()
    assert done.stderr == ""
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("flag", ["--hepl", "--cfg=all"])
def test_a_misspelt_flag_is_one_line(tmp_path, flag):
    refused = start(flag, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: command line: ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_fault_is_one_line_and_a_traceback_only_for_debug(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import gpt2lab.lightning_module as m\n"
        "def fail(*_): raise RuntimeError('broken\\non purpose')\n"
        "m.GPT2LightningModule.training_step = fail\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    short = start(*QUICK, cwd=tmp_path, env=environment)
    assert short.returncode == 1
    assert short.stderr.splitlines()[-1] == (
        "error: RuntimeError: broken on purpose; add debug=true to see where"
    )
    assert "Traceback" not in short.stderr
    assert "Traceback" in start(*QUICK, "debug=true", cwd=tmp_path, env=environment).stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_says_so(tmp_path, number, code):
    arguments = ["model=nano", "name=a", "max_steps=1000000", "stop_at=null", "eval_every=1000000"]
    command = [sys.executable, "-m", "gpt2lab.train", *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "a" / "metrics.csv"
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert out.splitlines()[-1] == "runs/a"
    assert f"stopped by {signal.Signals(number).name}" in out
    (checkpoint,) = (tmp_path / "runs" / "a" / "checkpoints").glob("*.ckpt")
    resumed = start("name=a", "resume=last", "max_minutes=1e-9", "checkpoint_keep=1", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert not checkpoint.exists()  # a later one has taken its place


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_to_all_processes_leaves_the_saving_to_the_parent(tmp_path, number, code):
    arguments = ["model=nano", "name=a", "max_steps=1000000", "stop_at=null", "eval_every=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2lab.train", *arguments, "data.num_workers=2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    metrics = tmp_path / "runs" / "a" / "metrics.csv"
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert list((tmp_path / "runs" / "a" / "checkpoints").glob("*.ckpt"))


def test_a_multirun_makes_one_folder_a_job(tmp_path):
    done = start("-m", *QUICK, "name=grid", "optim.lr=1e-3,1e-4", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs"
    assert sorted(p.name for p in runs.iterdir()) == ["grid", *(f"grid-{i}" for i in range(4))]
    assert [p.name for p in (runs / "grid").iterdir()] == ["multirun.yaml"]
    found = [OmegaConf.load(runs / f"grid-{i}" / "config.yaml") for i in range(4)]
    assert [(c.optim.lr, c.seed) for c in found] == [(1e-3, 0), (1e-3, 1), (1e-4, 0), (1e-4, 1)]
    assert found[2].name == "grid-2"


def test_a_multirun_with_a_mistake_starts_nothing(tmp_path):
    refused = start("-m", *QUICK, "optim.lr=1e-3,-1", "model=nano,nanno", cwd=tmp_path)
    assert refused.returncode == 2
    assert (
        "error: optim.lr: -1.0 is out of range; choose 0 < optim.lr" in refused.stderr.splitlines()
    )
    assert any("no option 'nanno'" in line for line in refused.stderr.splitlines())
    assert not list(tmp_path.iterdir())


def test_a_multirun_on_text_that_is_not_there_starts_nothing(tmp_path):
    text = ["model=nano", "data=text", "data.path=nowhere.txt"]
    refused = start("-m", *text, "name=grid", "seed=0,1", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: nowhere.txt: does not exist; ")
    assert not list(tmp_path.iterdir())


def test_a_multirun_does_not_resume(tmp_path):
    refused = start("-m", *QUICK, "name=grid", "resume=last", "seed=0,1", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: resume: the jobs of a multirun start afresh; ")
    assert not list(tmp_path.iterdir())


def test_no_secret_reaches_a_file_or_the_terminal(tmp_path):
    canary = "canary-5d41402abc4b"
    environment = {**os.environ, "GPT2LAB_CANARY": canary, "WANDB_MODE": "disabled"}
    secrets = ["+logger.wandb.notes=${oc.env:GPT2LAB_CANARY}", f"+logger.wandb.secret={canary}"]
    for flags in ([], ["-m", "seed=0,1"]):
        done = start(*flags, *QUICK, "logger=wandb", *secrets, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        assert canary not in done.stdout + done.stderr
    files = [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]
    assert any(p.name == "multirun.yaml" for p in files)
    assert not [p for p in files if canary.encode() in p.read_bytes()]


@needs_dev_full
def test_an_output_that_is_full_is_named():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gpt2lab.plan", "--cfg", "job"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: output, or a temporary file, cannot be written (No space")
