import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gpt2lab.checkpoint import AtomicCheckpointIO, Checkpoints


def content(step=5, value=None):
    """What a training at a step would save."""
    weight = torch.full((2, 3), float(step if value is None else value))
    optimizer = {
        "state": {0: {"step": torch.tensor(float(step)), "exp_avg": weight.clone()}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.95), "params": [0]}],
    }
    return {
        "state_dict": {"h.0.weight": weight, "h.0.bias": torch.ones(3, dtype=torch.bfloat16)},
        "settings": {"seed": 1, "model": {"n_layer": 1}},
        "global_step": step,
        "optimizer_states": [optimizer],
    }


class Trainer:
    """As much of Lightning's as saving asks for: a step, and the tensors that change with it."""

    def __init__(self):
        self.content = content(0)
        self.should_stop = True  # saved in the foreground
        self.is_global_zero = True
        self.loggers = []
        self.lightning_module = SimpleNamespace(
            update_lock=threading.RLock(), evaluated_step=None, latest={}
        )
        self.strategy = SimpleNamespace(save_checkpoint=AtomicCheckpointIO().save_checkpoint)
        self._checkpoint_connector = SimpleNamespace(dump_checkpoint=self.dump)

    @property
    def global_step(self):
        return self.content["global_step"]

    def dump(self, weights_only):
        dumped = dict(self.content)
        self.callback.on_save_checkpoint(self, self.lightning_module, dumped)
        return dumped

    def step_to(self, step):
        self.content["global_step"] = step
        self.content["state_dict"]["h.0.weight"].fill_(step)
        self.content["optimizer_states"][0]["state"][0]["exp_avg"].fill_(step)
        self.content["optimizer_states"][0]["state"][0]["step"].fill_(step)


class Run:
    """A run folder, and a training in it that saves when told."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.start()

    def start(self, resumed=None, **settings):
        """Begin, or go on from a checkpoint's content."""
        settings = {"monitor": "val/loss", "keep": 2} | settings
        self.trainer = Trainer()
        self.callback = Checkpoints(
            self.checkpoints, every=1, eval_every=1, content={}, run="abc", **settings
        )
        self.trainer.callback = self.callback
        if resumed is not None:
            self.trainer.step_to(resumed["global_step"])
            self.callback.on_load_checkpoint(self.trainer, None, resumed)

    def save(self, *steps, metric=None):
        for step in steps:
            self.trainer.step_to(step)
            self.callback.save(self.trainer, metric)

    def path(self, step):
        return self.checkpoints / f"step-{step:06d}.ckpt"

    def steps(self):
        return sorted(int(path.stem[5:]) for path in self.checkpoints.glob("*.ckpt"))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def saved(tmp_path):
    """A checkpoint without a manifest."""
    path = tmp_path / "step-000005.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(), path)
    return path


def age(path):
    """Let a file look old enough for its checksum to be remembered."""
    then = time.time() - 60
    os.utime(path, (then, then))


def flip(path, place=100):
    """Change a bit; at byte 100, one of the pickle."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def same(a, b):
    """Whether two contents are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
