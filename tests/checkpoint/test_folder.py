"""A checkpoint that two ranks write, here the two as threads, or the second's part at the first's
word: whole or not there at all, on all ranks or on none."""

import threading

import pytest
import torch

from gpt2lab.checkpoint import (
    AtomicCheckpointIO,
    clean,
    find_checkpoint,
    load_checkpoint,
    writing,
)
from gpt2lab.checkpoint.folder import INDEX, read_index
from gpt2lab.checkpoint.manifest import temporary_of
from gpt2lab.checkpoint.reading import load_facts, load_rows, load_shapes
from gpt2lab.checkpoint.writing import save_rows
from gpt2lab.errors import CheckpointError, RunError
from gpt2lab.ranks import rows_of
from tests.checkpoint.conftest import Run, age, content, flip, same
from tests.checkpoint.test_kill_points import Ended, Machine, found

ROWS = 5


def whole(step):
    """A content of 5 rows, which neither two nor three ranks have as many of."""
    made = content(step)
    weight = torch.arange(3.0 * ROWS).view(ROWS, 3) + step
    made["state_dict"] = {"h.0.weight": weight, "h.0.bias": weight[:, 0].contiguous()}
    made["optimizer_states"][0]["state"][0]["exp_avg"] = weight / 2
    return made


def part(value, rank, count):
    """One rank's rows."""
    if isinstance(value, torch.Tensor):
        return value[rows_of(len(value), rank, count)].clone() if value.dim() else value
    if isinstance(value, dict):
        return {key: part(inner, rank, count) for key, inner in value.items()}
    return [part(inner, rank, count) for inner in value] if isinstance(value, list) else value


class Board:
    """Notes within this process."""

    def __init__(self, rank=0, size=2, notes=None):
        self.rank, self.size = rank, size
        self.notes, self.change = notes or ({}, threading.Condition())

    def post(self, name, note):
        with self.change:
            assert name not in self.notes
            self.notes[name] = note
            self.change.notify_all()

    def read(self, name):
        with self.change:
            assert self.change.wait_for(lambda: name in self.notes, timeout=30)
            return self.notes[name]


class Alone(Board):
    """The first rank's, to which the second's part is brought when it asks for it."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def read(self, name):
        if name.endswith("/1"):
            step = self.run.trainer.global_step
            folder = temporary_of(self.run.path(step))
            file = save_rows(part(whole(step), 1, 2), folder, Board(rank=1))
            return {"name": file.name, "bytes": file.bytes, "sha256": file.sha256}
        return super().read(name)


def started(folder, board, resumed=None, **settings):
    run = Run(folder)
    run.start(resumed, **settings)
    run.callback.board = board if board is not None else Alone(run)
    return run


def save(run, *steps, metric=None):
    for step in steps:
        board = run.callback.board
        run.trainer.content = part(whole(step), board.rank, board.size)
        run.callback.save(run.trainer, metric)


def both(folder, *steps, count=2, fails=None):
    """All ranks at once; what each of them raised."""
    notes = ({}, threading.Condition())
    runs = [started(folder, Board(rank, count, notes)) for rank in range(count)]
    raised = [None] * count

    def one(rank):
        try:
            save(runs[rank], *steps)
        except Exception as error:
            raised[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return runs, raised


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_parts_of_any_number_of_ranks_are_the_whole_and_what_any_other_number_needs(
    tmp_path, count
):
    runs, raised = both(tmp_path, 5, count=count)
    assert raised == [None] * count
    assert [run.callback.saved for run in runs] == [runs[0].callback.saved] * count
    path = runs[0].path(5)
    loaded = load_checkpoint(path)
    assert all(same(loaded[name], value) for name, value in whole(5).items())
    for others in (1, 2, 3, 7):
        for rank in range(others):
            own = load_rows(path, rank, others)
            assert same(own["state_dict"], part(whole(5)["state_dict"], rank, others))
    assert load_shapes(path)["h.0.weight"].shape == (ROWS, 3)
    assert load_facts(path)["global_step"] == 5
    assert "state_dict" not in load_facts(path)


def test_rows_are_cut_from_a_single_file_as_well(tmp_path):
    path = tmp_path / "step-000005.ckpt"
    AtomicCheckpointIO().save_checkpoint(whole(5), path)
    own = load_rows(path, 1, 2)
    assert all(same(own[name], value) for name, value in part(whole(5), 1, 2).items())
    assert own["state_dict"]["h.0.weight"].untyped_storage().resizable()  # not mapped from it


@pytest.mark.parametrize("rank", [0, 1])
def test_what_fails_on_one_rank_fails_on_all_and_leaves_nothing(tmp_path, monkeypatch, rank):
    both(tmp_path, 5)
    works = save_rows

    def fails(content, folder, board):
        if board.rank == rank:
            raise OSError(28, "No space left on device")
        return works(content, folder, board)

    monkeypatch.setattr(writing, "save_rows", fails)
    runs, raised = both(tmp_path, 6)
    for error in raised:
        assert isinstance(error, RunError)
        assert "cannot be written (No space left on device)" in str(error)
    assert not runs[0].path(6).exists()
    assert not [*runs[0].checkpoints.glob(".*")]
    assert find_checkpoint(tmp_path, "last") == runs[0].path(5)


def test_old_folders_give_way_and_a_folder_takes_the_place_of_a_file_and_of_a_folder(tmp_path):
    run = started(tmp_path, None, keep=1)
    run.checkpoints.mkdir(parents=True)
    run.path(5).write_bytes(b"")
    save(run, 5)
    assert run.path(5).is_dir()
    save(run, 6)
    assert run.steps() == [6]
    again = started(tmp_path, None)
    save(again, 6)
    assert same(load_checkpoint(run.path(6))["state_dict"], whole(6)["state_dict"])
    alone = Run(tmp_path)
    alone.save(6)
    assert alone.path(6).is_file()
    assert not [*run.checkpoints.glob(".*")]


DAMAGE = {
    "a bit of rows": lambda path: flip(path / "rank-00001-of-00002.ckpt"),
    "a bit of the rest": lambda path: flip(path / "common.ckpt"),
    "a bit of the index": lambda path: flip(path / INDEX, 30),
    "rows gone": lambda path: (path / "rank-00000-of-00002.ckpt").unlink(),
    "index gone": lambda path: (path / INDEX).unlink(),
    "an older index": lambda path: (path / INDEX).write_bytes(
        (path.with_name("step-000005.ckpt") / INDEX).read_bytes()
    ),
}


@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damage_is_noticed_and_the_one_before_it_taken(tmp_path, damage, has_manifest):
    run = started(tmp_path, None)
    save(run, 5, 6)
    for file in run.path(6).iterdir():
        age(file)
    load_checkpoint(run.path(6))
    DAMAGE[damage](run.path(6))
    if not has_manifest:
        (run.checkpoints / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="take another one"):
        load_checkpoint(run.path(6))
    with pytest.warns(UserWarning, match=r"step-000006\.ckpt: .*; going on from step-000005\.ckpt"):
        assert find_checkpoint(tmp_path, "last") == run.path(5)


def test_code_in_a_part_never_runs(tmp_path):
    run = started(tmp_path, None)
    save(run, 5)
    canary = tmp_path / "canary"

    class Code:
        def __reduce__(self):
            return canary.touch, ()

    path = run.path(5)
    torch.save({"state_dict": Code(), "optimizer_states": []}, path / "rank-00001-of-00002.ckpt")
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    (run.checkpoints / "manifest.json").unlink()
    files = [writing.File(f.name, f.stat().st_size, writing.sha256(f)) for f in path.glob("*.ckpt")]
    writing.write_index(path, files)
    assert read_index(path) is not None
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(path)
    assert not canary.exists()


def test_parts_of_two_checkpoints_are_no_whole(tmp_path):
    run = started(tmp_path, None)
    save(run, 5)
    path = run.path(5)
    file = path / "rank-00001-of-00002.ckpt"
    parts = torch.load(file, weights_only=True)
    parts["state_dict"]["h.0.weight"] = torch.zeros(2, 4)
    torch.save(parts, file)
    (run.checkpoints / "manifest.json").unlink()
    writing.write_index(
        path,
        [writing.File(f.name, f.stat().st_size, writing.sha256(f)) for f in path.glob("*.ckpt")],
    )
    with pytest.raises(CheckpointError, match="no parts of one"):
        load_checkpoint(path)


@pytest.mark.parametrize("way", ["interrupted", "killed"])
@pytest.mark.parametrize(("before", "keep"), [((), 1), ((5,), 1), ((5, 6), 2)])
def test_wherever_a_save_of_ranks_ends_a_whole_checkpoint_is_found(
    tmp_path, monkeypatch, before, keep, way
):
    point, done = 0, False
    while not done:
        point += 1
        run = started(tmp_path / f"{point}", None, keep=keep)
        save(run, *before)
        with monkeypatch.context() as patch:
            Machine(patch, way, point)
            try:
                save(run, 7)
                done = True
            except Ended:
                pass
        path = found(run, quiet=True)
        assert path in {run.path(7), *map(run.path, before[-1:])} or (path is None and not before)
        clean(run.checkpoints)
        assert found(run, quiet=True) == path, point
        resumed = load_checkpoint(path) if path else None
        if resumed is not None:
            wanted = whole(resumed["global_step"])
            assert all(same(resumed[name], wanted[name]) for name in wanted), point
        run = started(run.folder, None, resumed, keep=keep)
        save(run, 8)
        assert found(run, quiet=True) == run.path(8), point
        assert not [*run.checkpoints.glob(".*")]
    assert point > 20
