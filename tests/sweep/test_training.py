"""Studies of real trainings."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt2lab.metrics import read_metrics
from gpt2lab.sweep.run import folder_points

pytestmark = pytest.mark.slow

STUDY = ["sort_lr", "stop_at=null", "study.goal=val/loss", "study.sampler=random", "max_steps=60"]
STUDY += ["checkpoint_every=10", "eval_every=10", "model.dropout=0.1", "callbacks.curves=null"]


def sweep(folder: Path, *told: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gpt2lab.sweep", *STUDY, *told],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> list[str]:
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return out.splitlines()


def curves(folder: Path) -> list[list[tuple[str, str]]]:
    return [
        [(row["train/loss"], row["val/loss"]) for row in read_metrics(one / "metrics.csv")]
        for one in sorted((folder / "runs" / "sort_lr").glob("trial-*"))
    ]


def test_a_study_that_is_killed_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    straight, broken = tmp_path / "a", tmp_path / "b"
    straight.mkdir()
    broken.mkdir()
    assert ended(sweep(straight, "study.trials=2"))[-1] == "runs/sort_lr"
    process = sweep(broken, "study.trials=2")
    while not any(len(curve) >= 2 for curve in curves(broken)):
        time.sleep(0.02)
        assert process.poll() is None
    process.kill()
    process.communicate()
    result = json.loads(ended(sweep(broken, "study.trials=2", "json=true"))[-1])
    assert result["counts"] == {"running": 0, "complete": 2, "pruned": 0, "failed": 0}
    assert curves(broken) == curves(straight)
    receipts = (broken / "runs" / "sort_lr").glob("trial-*/receipt.json")
    assert any("resumed" in json.loads(receipt.read_text()) for receipt in receipts)


def test_a_training_whose_loss_is_nan_is_counted_with_its_error(tmp_path):
    space = "study.space.optim.lr={choice: [1e38]}"
    out, errors = sweep(tmp_path, space, "study.trials=1", "optim.grad_clip=null").communicate()
    (point,) = folder_points(tmp_path / "runs" / "sort_lr")
    assert "every trial has failed" in errors, out
    assert "the loss is nan" in point.trials[0].reason


def test_a_signal_lets_trials_save(tmp_path):
    process = sweep(tmp_path, "study.trials=2", "max_steps=100000")
    while sum(len(curve) >= 2 for curve in curves(tmp_path)) < 2:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    for one in (tmp_path / "runs" / "sort_lr").glob("trial-*"):
        summary = json.loads((one / "summary.json").read_text())
        assert (one / "checkpoints" / f"step-{summary['steps']:06d}.ckpt").exists()
