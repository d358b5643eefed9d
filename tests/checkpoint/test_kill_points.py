"""A save that ends at any of its calls: by an error, a kill or a power cut."""

import os
import stat
import warnings
from pathlib import Path

import pytest
import torch

from gpt2lab.checkpoint import clean, find_checkpoint, load_checkpoint
from tests.checkpoint.conftest import Run, content, same

CALLS = ("mkdir", "open", "fsync", "replace", "unlink")


class Ended(BaseException):
    pass


class Machine:
    """Calls of the system, of which the n-th does not come to pass.

    - interrupted: that call raises, and what we do about it works;
    - killed: no later call works either;
    - without power: besides, what was not flushed to the disk is lost. What a file had
      not flushed is missing; new names in a folder that was not flushed are gone; removals, which
      may reach the disk at any time, have reached it.
    """

    def __init__(self, patch, way, n):
        self.way, self.left = way, n
        self.synced, self.renamed = {}, []
        self.works = {name: getattr(os, name) for name in CALLS}
        self.open_file = Path.open
        for name in CALLS:
            patch.setattr(os, name, getattr(self, name))
        patch.setattr(Path, "open", lambda path, *args, **kwargs: self.file(path, *args, **kwargs))
        self.torch_save = torch.save
        patch.setattr(torch, "save", self.save)

    def tick(self):
        self.left -= 1
        if self.left == 0 or (self.left < 0 and self.way != "interrupted"):
            raise Ended

    def mkdir(self, *args, **kwargs):
        self.tick()
        return self.works["mkdir"](*args, **kwargs)

    def open(self, *args, **kwargs):
        self.tick()
        return self.works["open"](*args, **kwargs)

    def file(self, path, mode="r", *args, **kwargs):
        if "w" in mode:
            self.tick()
            file = self.open_file(path, mode, *args, **kwargs)
            self.synced[os.fstat(file.fileno()).st_ino] = 0
            return file
        return self.open_file(path, mode, *args, **kwargs)

    def save(self, content, file):
        self.tick()
        self.torch_save(content, file)

    def fsync(self, descriptor):
        self.tick()
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.renamed.clear()
        self.synced[status.st_ino] = status.st_size
        return self.works["fsync"](descriptor)

    def replace(self, old, new):
        self.tick()
        before = new.read_bytes() if new.exists() else None
        self.renamed.append((old, new, before))
        return self.works["replace"](old, new)

    def unlink(self, *args, **kwargs):
        self.tick()
        return self.works["unlink"](*args, **kwargs)

    def cut_power(self, folder):
        for path in folder.glob("*"):
            os.truncate(path, self.synced.get(path.stat().st_ino, path.stat().st_size))
        for old, new, before in reversed(self.renamed):
            if new.exists():
                new.rename(old)
            if before is not None:
                new.write_bytes(before)


def found(run, quiet):
    with warnings.catch_warnings():
        warnings.simplefilter("error" if quiet else "ignore")
        return find_checkpoint(run.folder, "last")


@pytest.mark.parametrize("way", ["interrupted", "killed", "without power"])
@pytest.mark.parametrize(("before", "keep"), [((), 1), ((5,), 1), ((5, 6), 1), ((5, 6), 2)])
def test_wherever_a_save_ends_a_whole_checkpoint_is_found(tmp_path, monkeypatch, before, keep, way):
    best = 5 if len(before) > 1 else None  # the last alone is not kept for being the best
    point = 0
    done = False
    while not done:
        point += 1
        run = Run(tmp_path / f"{point}")
        run.start(keep=keep)
        for step in before:
            run.save(step, metric=1.0 if step == best else None)
        with monkeypatch.context() as patch:
            machine = Machine(patch, way, point)
            try:
                run.save(7)
                done = True
            except Ended:
                pass
        if way == "without power" and not done:
            machine.cut_power(run.checkpoints)

        quiet = way != "without power"
        path = found(run, quiet)
        allowed = {run.path(7), *(run.path(step) for step in before[-1:])}
        assert path in allowed or (path is None and not before), point
        # and the run goes on from there, whatever was left lying around
        clean(run.checkpoints)
        assert found(run, quiet) == path, point
        resumed = load_checkpoint(path) if path else None
        if resumed is not None:
            wanted = content(resumed["global_step"])
            assert all(same(resumed[name], wanted[name]) for name in wanted), point
        run.start(resumed, keep=keep)
        run.save(8)
        assert found(run, quiet=True) == run.path(8), point
        assert not list(run.checkpoints.glob(".*"))
    assert point > 12
