"""Checkpoints of whole trainings of a few steps, written while they go on."""

import json
import threading

import pytest
import torch

from gpt2lab.checkpoint import (
    AtomicCheckpointIO,
    Checkpoints,
    callback,
    find_checkpoint,
    load_checkpoint,
)
from gpt2lab.errors import CheckpointError, RunError
from gpt2lab.experiment import fit
from tests.checkpoint.conftest import flip, same

SHORT = [
    "model=nano",
    "data=sort",
    "batch_size=8",
    "max_steps=4",
    "eval_every=3",
    "checkpoint_every=2",
    "checkpoint_keep=9",
    "stop_at=null",
]


@pytest.fixture
def train(tmp_path):
    """A training, or with `resume` the rest of one; its folder of checkpoints."""

    def run(name, *overrides):
        new = [] if "resume=last" in overrides else SHORT
        return (
            fit([*new, f"runs_dir={tmp_path}", f"name={name}", *overrides]).folder / "checkpoints"
        )

    return run


def path(folder, step):
    return folder / f"step-{step:06d}.ckpt"


def test_a_file_written_while_training_goes_on_is_the_one_written_while_it_waits(
    train, monkeypatch
):
    begin, written = threading.Event(), callback.written
    trained_on = []

    def waits(content, path):
        if content["global_step"] == 2:
            assert begin.wait(30)
        return written(content, path)

    def lets_go(self, trainer, *args):
        if trainer.global_step == 3:
            trained_on.append(not path(self.folder, 2).exists())
            begin.set()
        at_batch_end(self, trainer, *args)

    at_batch_end = Checkpoints.on_train_batch_end
    monkeypatch.setattr(callback, "written", waits)
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", lets_go)
    beside = train("beside")
    assert trained_on == [True]

    begin.set()
    monkeypatch.setattr(callback, "free_memory", lambda: 0)
    waiting = train("waiting")
    files = [load_checkpoint(path(folder, 2)) for folder in (beside, waiting)]
    for part in ("state_dict", "optimizer_states"):
        assert same(
            files[0][part], {**files[1]}[part] if part != "state_dict" else dict(files[1][part])
        )
    assert not same(files[0]["state_dict"], load_checkpoint(path(beside, 4))["state_dict"])


def test_content_and_manifest_know_the_run(train):
    folder = train("a")
    receipt = json.loads((folder.parent / "receipt.json").read_text())
    assert load_checkpoint(path(folder, 4))["run"] == receipt["id"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["run"] == {"id": receipt["id"], "name": "a"}


def test_a_damaged_last_checkpoint_costs_its_steps_and_no_bit_more(train):
    straight = load_checkpoint(path(train("a"), 4))
    folder = train("b")
    flip(path(folder, 4))
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        fit([f"resume={path(folder, 4)}"])
    with pytest.warns(UserWarning, match=r"step-000004\.ckpt: .*; going on from step-000002"):
        train("b", "resume=last")
    again = load_checkpoint(path(folder, 4))
    assert same(straight["state_dict"], again["state_dict"])
    assert same(straight["optimizer_states"], again["optimizer_states"])
    assert straight["best"] == again["best"]


def test_a_tensor_with_nan_stops_a_resume_unless_it_is_named(train):
    folder = train("a")
    content = load_checkpoint(path(folder, 4))
    state = content["optimizer_states"][0]["state"][0]
    state["exp_avg_sq"] = state["exp_avg_sq"].clone()
    state["exp_avg_sq"][0, 0] = torch.nan
    name = "optimizer_states.0.state.0.exp_avg_sq"
    AtomicCheckpointIO().save_checkpoint(content, path(folder, 4))
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=f"{name} has 1 of 144 numbers .*={name}"):
        train("a", "resume=last", "max_steps=5")
    train("a", "resume=last", "max_steps=5", f"allow_nonfinite={name}")
    assert path(folder, 5).exists()


def test_a_full_disk_ends_the_training_with_the_last_good_one_whole(train, tmp_path, monkeypatch):
    def needed(content):
        return 2**80 if content["global_step"] > 2 else 2**14

    monkeypatch.setattr("gpt2lab.checkpoint.writing.bytes_needed", needed)
    with pytest.raises(RunError, match=r"step-000004.*No space left.*name=a resume=last"):
        train("a", "max_steps=9")
    assert find_checkpoint(tmp_path / "a", "last") == path(tmp_path / "a" / "checkpoints", 2)
