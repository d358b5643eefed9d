import os
import pickle
from types import SimpleNamespace

import pytest
import torch

from gpt2lab.checkpoint import (
    AtomicCheckpointIO,
    Checkpoints,
    check_fits,
    find_checkpoint,
    load_checkpoint,
    read_manifest,
)
from gpt2lab.errors import CheckpointError

CONTENT = {
    "state_dict": {"w": torch.arange(3.0)},
    "settings": {"seed": 1},
    "global_step": 5,
    "optimizer_states": [],
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "step-000005.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def test_what_was_saved_is_loaded(saved):
    loaded = load_checkpoint(saved)
    assert torch.equal(loaded["state_dict"]["w"], torch.arange(3.0))
    assert loaded["settings"] == {"seed": 1}
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("size", [0, 1, 8, 0.5, -1])
def test_a_cut_checkpoint_is_refused_by_name(saved, size):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(size * len(content)) if size == 0.5 else size])
    with pytest.raises(CheckpointError, match=r"step-000005\.ckpt: \d+ bytes that are not a whole"):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", [b"\0" * 1000, os.urandom(1000)], ids=["zeros", "noise"])
def test_a_file_of_something_else_is_refused(saved, content):
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(saved)


class RunsCode:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("protocol", ["zip", "pickle"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, protocol):
    path, canary = tmp_path / "bad.ckpt", tmp_path / "canary"
    content = {**CONTENT, "evil": RunsCode(canary)}
    if protocol == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    canary.unlink(missing_ok=True)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not canary.exists()


WHOLE = {"state_dict": {}, "settings": {}, "global_step": 3, "optimizer_states": []}


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"state_dict": {}},
        {**WHOLE, "settings": [1]},
        {**WHOLE, "global_step": "3"},
        {name: value for name, value in WHOLE.items() if name != "optimizer_states"},
    ],
)
def test_a_checkpoint_of_another_program_is_refused(saved, content):
    torch.save(content, saved)
    with pytest.raises(CheckpointError, match="not a checkpoint of gpt2lab"):
        load_checkpoint(saved)


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_a_failed_save_leaves_the_old_file_and_no_other(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({**CONTENT, "global_step": 6}, saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_the_first_tensor_that_differs_is_named_with_both_shapes(tmp_path):
    module = torch.nn.Linear(2, 3)
    state = {**module.state_dict(), "weight": torch.zeros(3, 4)}
    with pytest.raises(
        CheckpointError, match=r"weight is \(3, 4\) there and \(3, 2\) in the model"
    ):
        check_fits(module, state, tmp_path)
    with pytest.raises(CheckpointError, match=r"bias is missing there and \(3,\) in the model"):
        check_fits(module, {"weight": torch.zeros(3, 2)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"more is \(1,\) there and missing in the model"):
        check_fits(module, {**module.state_dict(), "more": torch.zeros(1)}, tmp_path)


def saving(folder, step, metric, callback):
    def save_checkpoint(path):
        AtomicCheckpointIO().save_checkpoint({**CONTENT, "global_step": step}, path)

    callback.save(SimpleNamespace(global_step=step, save_checkpoint=save_checkpoint), metric)


@pytest.mark.parametrize(
    ("monitor", "metrics", "best"),
    [
        ("val/loss", [3.0, 1.0, 2.0], 2),
        ("val/exact_match", [0.5, 0.9, 0.7], 2),
        ("val/loss", [3.0, None, None], 1),
        ("val/loss", [1.0, 1.0, 1.0], 1),
    ],
)
def test_last_and_best_are_kept_and_found(tmp_path, monitor, metrics, best):
    folder = tmp_path / "checkpoints"
    callback = Checkpoints(folder, every=1, eval_every=1, monitor=monitor, content={"settings": {}})
    for step, metric in enumerate(metrics, start=1):
        saving(folder, step, metric, callback)
    assert find_checkpoint(tmp_path, "last") == folder / "step-000003.ckpt"
    assert find_checkpoint(tmp_path, "best") == folder / f"step-00000{best}.ckpt"
    assert sorted(p.name for p in folder.glob("*.ckpt")) == sorted(
        {"step-000003.ckpt", f"step-00000{best}.ckpt"}
    )


def test_a_checkpoint_that_the_manifest_does_not_name_yet_is_still_found(saved):
    folder = saved.parent / "checkpoints"
    folder.mkdir()
    saved.rename(folder / saved.name)
    assert read_manifest(folder) == {}
    assert find_checkpoint(saved.parent, "last") == folder / saved.name
    assert find_checkpoint(saved.parent, "best") is None
