"""Weights & Biases without a network: what a run has written for `wandb sync`."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt2lab import fit
from gpt2lab.checkpoint.manifest import Entry, Manifest, name_of
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.launch import cpus
from gpt2lab.targets import build_loggers
from gpt2lab.wandb_logger import aliases, chosen
from tests.wandb_log import logged

TINY = [
    "model=nano",
    "data=sort",
    "trainer=cpu",
    "precision=fp32",
    "data.eval_examples=32",
    "batch_size=8",
    "stop_at=null",
    "schedule.warmup_steps=1",
    "eval_every=2",
    "checkpoint_every=2",
    "trainer.log_every_n_steps=1",
    "+callbacks.samples.examples=2",
]
WANDB = ["logger=wandb", "logger.wandb.offline=true", "logger.wandb.log_model=all"]
FAST = ["+logger.wandb.settings.x_stats_sampling_interval=0.1"]  # wandb's lower limit, in seconds


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """The folder of a run of 4 steps that then went back to step 2, and on to step 6."""
    runs = tmp_path_factory.mktemp("runs")
    fit(
        [*TINY, *WANDB, *FAST, "max_steps=4", f"runs_dir={runs}", "name=a", "logger.wandb.tags=[x]"]
    )
    checkpoint = runs / "a" / "checkpoints" / "step-000002.ckpt"
    again = ["trainer=cpu", "trainer.log_every_n_steps=1", "max_steps=6"]
    fit([*WANDB, *again, f"runs_dir={runs}", f"resume={checkpoint}"])
    return runs / "a"


def test_a_resumed_run_is_the_same_run(resumed):
    first, second = logged(resumed)
    receipt = json.loads((resumed / "receipt.json").read_text())
    assert first.run.run_id == second.run.run_id == receipt["id"]
    assert first.run.display_name == "a"
    assert first.run.project == "gpt2lab"
    assert list(first.run.tags) == ["x"]
    assert second.run.resume


def test_a_row_is_a_step_and_none_is_logged_twice(resumed):
    first, second = logged(resumed)
    steps = [[row["_step"] for row in leg.rows] for leg in (first, second)]
    assert steps == [[1, 2, 3, 4], [5, 6]]
    for row in first.rows + second.rows:
        assert row["trainer/global_step"] == row["_step"]
        assert {"train/loss", "train/tokens_per_second"} <= row.keys()
        assert ("val/loss" in row) == (row["_step"] % 2 == 0)


def test_its_config_is_that_of_the_run_folder(resumed):
    (config, _) = (leg.config for leg in logged(resumed))
    assert config["model"]["n_layer"] == 3
    assert config["max_steps"] == 4
    assert config["name"] == "a"


def test_the_last_and_the_best_of_an_evaluation_are_its_summary(resumed):
    (leg, _) = logged(resumed)
    losses = [row["val/loss"] for row in leg.rows if "val/loss" in row]
    shares = [row["val/token_accuracy"] for row in leg.rows if "val/loss" in row]
    assert leg.summary["val/loss"] == {"last": losses[-1], "min": min(losses)}
    assert leg.summary["val/token_accuracy"] == {"last": shares[-1], "max": max(shares)}
    assert leg.metrics["val/loss"].step_metric == "trainer/global_step"


def test_samples_and_curves_are_shown_and_the_hardware_is_watched(resumed):
    for leg, file in zip(logged(resumed), sorted(resumed.glob("wandb/*run-*/files")), strict=True):
        evaluated = [row for row in leg.rows if "val/loss" in row]
        texts = [(file / row["samples.path"]).read_text() for row in evaluated]
        assert all("GPT-2's answer".replace("'", "&#x27;") in text for text in texts)
        (picture,) = leg.rows[-1]["curves.filenames"]
        assert (file / picture).read_bytes()[:4] == b"\x89PNG"
    assert any("memory_percent" in values for values in logged(resumed)[0].system)


def test_checkpoints_become_versions_of_one_artifact(resumed):
    first, second = logged(resumed)
    found = {a.aliases[1]: a for leg in (first, second) for a in leg.artifacts}
    assert {a.name for a in found.values()} == {f"model-{first.run.run_id}"}
    assert {a.type for a in found.values()} == {"model"}
    last = second.artifacts[-1]
    assert {"latest", "last", "step-6"} <= set(last.aliases)
    assert sum("best" in a.aliases for a in second.artifacts) == 1
    metadata = json.loads(last.metadata)
    assert metadata["step"] == 6
    assert metadata["val/loss"] == second.rows[-1]["val/loss"]
    (content,) = last.manifest.contents
    assert Path(content.local_path) == resumed / "checkpoints" / "step-000006.ckpt"


def test_the_end_is_told_and_the_machine_is_not(resumed):
    for leg in logged(resumed):
        assert leg.exit_code == 0
        assert not leg.run.host
    name = socket.gethostname().encode()
    if len(name) > 4:  # a shorter one may occur by chance
        for file in resumed.glob("wandb/*run-*/*.wandb"):
            assert name not in file.read_bytes()


def test_wandb_sync_finds_both_legs(resumed):
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", str(resumed / "wandb")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=resumed)
    assert "Would sync 2 run(s)" in done.stdout + done.stderr


def test_two_runs_of_one_process_are_two(tmp_path):
    short = [*TINY, "logger=wandb", "logger.wandb.offline=true", "max_steps=1"]
    for name in "ab":
        fit([*short, f"runs_dir={tmp_path}", f"name={name}"])
    (a,), (b,) = logged(tmp_path / "a"), logged(tmp_path / "b")
    assert a.run.run_id != b.run.run_id
    assert (a.run.display_name, b.run.display_name) == ("a", "b")
    assert len(a.rows) == len(b.rows) == 1
    assert not a.artifacts  # which nobody has asked for


@pytest.mark.skipif(cpus() < 2, reason="two ranks need two CPU cores")
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_two_ranks_are_one_run_and_leave_no_process(tmp_path):
    environment = {**os.environ, "GPT2LAB_TEST": str(tmp_path)}
    command = [sys.executable, "-m", "gpt2lab.train", *TINY, *WANDB, "max_steps=2"]
    done = subprocess.run(
        [*command, "devices=2", "strategy=fsdp", f"runs_dir={tmp_path}", "name=a"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (leg,) = logged(tmp_path / "a")
    assert [row["_step"] for row in leg.rows] == [1, 2]
    assert leg.exit_code == 0
    artifact = leg.artifacts[-1]
    checkpoint = tmp_path / "a" / "checkpoints" / "step-000002.ckpt"
    files = {file.path: Path(file.local_path) for file in artifact.manifest.contents}
    assert files == {f"step-000002.ckpt/{file.name}": file for file in checkpoint.iterdir()}
    mark = f"GPT2LAB_TEST={tmp_path}".encode()
    assert not [p for p in Path("/proc").glob("[0-9]*/environ") if mark in readable(p)]


def readable(path):
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile, or somebody else's
        return b""


def test_the_jobs_of_a_multirun_are_a_group(tmp_path):
    from gpt2lab.config.multirun import launch
    from gpt2lab.train import job

    short = [*TINY, "logger=wandb", "logger.wandb.offline=true", "max_steps=1"]
    assert launch("train", [*short, f"runs_dir={tmp_path}", "name=m", "seed=0,1"], [], job) == [
        0,
        0,
    ]
    for name in ("m-0", "m-1"):
        (leg,) = logged(tmp_path / name)
        assert (leg.run.display_name, leg.run.run_group) == (name, "m")


@pytest.mark.parametrize("value", ["true", "first", "1"])
def test_a_choice_of_checkpoints_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match=r"^logger\.wandb\.log_model: .* best, last, all, false"):
        settings_from("train", [*TINY, "logger=wandb", f"logger.wandb.log_model={value}"])


def test_settings_of_wandb_may_be_changed_one_by_one(tmp_path):
    overrides = ["logger=wandb", "+logger.wandb.settings.init_timeout=3"]
    (logger,) = build_loggers(settings_from("train", [*TINY, *overrides]).settings, tmp_path, "x1")
    settings = logger.inner._wandb_init["settings"]
    assert (settings["init_timeout"], settings["finish_timeout"]) == (3, 30)


def entries(**metrics):
    return Manifest(
        run={},
        monitor="val/loss",
        checkpoints=[
            Entry(name_of(int(step[1:])), int(step[1:]), 1, "", metric)
            for step, metric in metrics.items()
        ],
    )


def test_which_checkpoints_are_logged_and_what_they_are_called():
    manifest = entries(s30=0.5, s20=0.25, s10=0.75)  # newest first
    called = SimpleNamespace(
        **{w: [e.step for e in chosen(manifest, w)] for w in ("best", "last", "all")}
    )
    assert (called.best, called.last, called.all) == ([20], [30], [10, 20, 30])
    assert [aliases(e, manifest) for e in chosen(manifest, "all")] == [
        ["step-10"],
        ["step-20", "best"],
        ["step-30", "last"],
    ]
    assert [e.step for e in chosen(entries(s20=None, s10=None), "best")] == [20]
    assert chosen(entries(), "all") == chosen(entries(), "best") == []
