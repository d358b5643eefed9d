"""Writing: what is kept, what is said when it fails, and that the state is that of the step."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from gpt2lab.checkpoint import (
    AtomicCheckpointIO,
    callback,
    find_checkpoint,
    load_checkpoint,
    read_manifest,
    writing,
)
from gpt2lab.checkpoint.background import Background, free_memory, snapshot
from gpt2lab.checkpoint.manifest import temporary_of
from gpt2lab.errors import RunError
from tests.checkpoint.conftest import content, flip, same


def test_a_checkpoint_knows_its_run_and_its_best(run):
    run.save(5, metric=1.0)
    run.save(6, metric=2.0)
    loaded = load_checkpoint(run.path(6))
    assert loaded["run"] == "abc"
    best = {"file": "step-000005.ckpt", "step": 5, "metric": 1.0, "monitor": "val/loss"}
    assert loaded["best"] == best
    run.start()
    run.save(7)
    assert load_checkpoint(run.path(7))["best"] is None


@pytest.mark.parametrize(
    ("settings", "metrics", "kept"),
    [
        ({"keep": 1}, [None] * 5, [5]),
        ({"keep": 2}, [None] * 5, [4, 5]),
        ({"keep": 2}, [3, 1, 2, 2, 2], [2, 4, 5]),
        ({"keep": 2}, [3, 1, 2, 0.5, 2], [4, 5]),
        ({"keep": 1, "monitor": "val/exact_match"}, [0.1, 0.3, 0.2, 0.3, 0.1], [2, 5]),
        ({"keep": 1, "keep_every": 2}, [None] * 5, [2, 4, 5]),
        ({"keep": 1}, [float("nan"), 2, float("inf"), float("nan"), 3], [2, 5]),
        ({"keep": 9}, [None] * 5, [1, 2, 3, 4, 5]),
    ],
)
def test_the_newest_the_best_and_every_kth_are_kept(run, settings, metrics, kept):
    run.start(**settings)
    for step, metric in enumerate(metrics, start=1):
        run.save(step, metric=metric)
    assert run.steps() == kept
    assert [e.step for e in read_manifest(run.checkpoints).checkpoints] == kept[::-1]


def test_a_step_is_saved_once(run):
    run.save(5)
    before = run.path(5).stat()
    run.callback.save_now(run.trainer)
    assert run.path(5).stat() == before
    assert run.callback.newest() == run.path(5)
    run.trainer.step_to(6)
    run.callback.save_now(run.trainer)
    assert run.callback.newest() == run.path(6)


def test_an_evaluation_after_the_save_is_put_on_record_and_leaves_the_file(run):
    run.save(5, metric=1.0)
    run.save(6)
    run.start(load_checkpoint(run.path(6)))
    before = files(run)
    run.callback.save(run.trainer, 0.5)
    assert {name for name in before if files(run)[name] != before[name]} == {"manifest.json"}
    assert find_checkpoint(run.folder, "best") == run.path(6)
    run.save(7, metric=2.0)
    assert load_checkpoint(run.path(7))["best"]["step"] == 6
    assert [e.metric for e in read_manifest(run.checkpoints).checkpoints] == [2.0, 0.5]


def test_a_save_upon_a_signal_knows_the_evaluation_of_its_step_and_of_no_other(run):
    run.save(5, metric=1.0)
    run.trainer.lightning_module.latest["val/loss"] = 0.5
    run.trainer.lightning_module.evaluated_step = 6
    for step, metric in ((6, 0.5), (7, None)):
        run.trainer.step_to(step)
        run.callback.save_now(run.trainer)
        assert read_manifest(run.checkpoints).checkpoints[0].metric == metric
    assert find_checkpoint(run.folder, "best") == run.path(6)


def test_a_resume_goes_on_with_the_metrics_and_drops_what_lies_beyond_at_its_first_save(run):
    run.save(2, metric=1.0)
    run.save(4, metric=2.0)
    run.save(6, metric=0.5)
    run.start(load_checkpoint(run.path(4)))
    assert run.callback.newest() == run.path(4)
    assert find_checkpoint(run.folder, "last") == run.path(4)
    assert run.path(6).exists()  # no file is dropped yet
    run.save(5, metric=1.5)
    assert find_checkpoint(run.folder, "last") == run.path(5)
    assert load_checkpoint(run.path(5))["best"]["step"] == 2  # as in a run that never saw step 6,
    assert find_checkpoint(run.folder, "best") == run.path(5)  # but its file gave way to that one
    assert run.steps() == [4, 5]


def test_a_resume_knows_the_best_of_its_checkpoint(run):
    run.save(2, metric=1.0)
    run.save(4, metric=2.0)
    for lost in (False, True):
        if lost:
            (run.checkpoints / "manifest.json").unlink()
        run.start(load_checkpoint(run.path(4)))
        run.save(6, metric=1.5)
        assert load_checkpoint(run.path(6))["best"]["step"] == 2
        assert find_checkpoint(run.folder, "best") == run.path(2)
        assert run.steps() == [2, 4, 6]


def test_another_metric_does_not_compete_with_the_old_one(run):
    run.save(2, metric=0.1)
    run.start(load_checkpoint(run.path(2)), monitor="val/exact_match")
    run.save(4, metric=0.05)
    assert find_checkpoint(run.folder, "best") == run.path(4)


def test_a_lost_manifest_costs_no_checkpoint(run):
    run.save(2, 4)
    (run.checkpoints / "manifest.json").write_bytes(b"")
    run.start(load_checkpoint(run.path(4)))
    run.save(6)
    assert run.steps() == [4, 6]
    flip(run.path(6))
    with pytest.warns(UserWarning, match="going on from step-000004"):
        assert find_checkpoint(run.folder, "last") == run.path(4)


def test_loggers_are_flushed_first(run):
    order = []

    class Logger:
        def save(self):
            order.append(run.steps())

    run.trainer.loggers = [Logger()]
    run.save(5)
    assert order == [[]]


def files(run):
    return {path.name: path.read_bytes() for path in run.checkpoints.iterdir()}


NO_ROOM = (
    r"step-000006\.ckpt: cannot be written \(No space left on device\): [\d,]+ bytes are needed, "
    r"[\d,]+ are free; make room and go on with name=run resume=last$"
)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("file", ["step-000006.ckpt", "manifest.json"])
@pytest.mark.parametrize("numbers", [1, 100_000], ids=["flush", "write"])
def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_ones(run, file, numbers):
    run.save(5, metric=1.0)
    before = files(run)
    run.trainer.content["state_dict"]["x"] = torch.zeros(numbers)
    temporary_of(run.checkpoints / file).symlink_to("/dev/full")
    with pytest.raises(RunError, match=NO_ROOM):
        run.save(6)
    assert files(run) == before
    assert run.callback.newest() == run.path(5)


@pytest.mark.filterwarnings("ignore:.*is missing")
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("after", [0, 1])
def test_no_failing_call_costs_an_old_checkpoint(run, monkeypatch, call, after):
    run.save(5, metric=1.0)
    before = files(run)
    works, calls = getattr(os, call), []

    def fails(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return works(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(
            RunError, match=r"\(Read-only file system\): .* are free; make it writable and go on"
        ):
            run.save(6)
    assert {name: files(run)[name] for name in before if name != "manifest.json"} == (
        {name: data for name, data in before.items() if name != "manifest.json"}
    )
    assert not list(run.checkpoints.glob(".*"))
    assert find_checkpoint(run.folder, "last") in (run.path(5), run.path(6))


def test_too_little_room_is_found_before_a_byte_is_written(run, monkeypatch):
    run.save(5)
    before = files(run)
    usage = shutil.disk_usage(run.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(writing, "HashedFile", None)
    with pytest.raises(RunError, match=r"No space left .* bytes are needed, 1,000 are free"):
        run.save(6)
    assert files(run) == before


def test_the_bytes_needed_are_those_of_the_file(saved):
    assert saved.stat().st_size <= writing.bytes_needed(content()) <= saved.stat().st_size + 2**14


def test_a_file_in_the_place_of_the_folder_is_told(run):
    run.folder.mkdir()
    run.checkpoints.write_text("")
    with pytest.raises(RunError, match=r"cannot be written \(File exists\)"):
        run.save(5)


def test_what_no_checkpoint_takes_is_told_before_it_is_written(run):
    run.trainer.content["callbacks"] = {"Theirs": {"score": Path("x")}}
    with pytest.raises(RunError, match=r"callbacks\.Theirs\.score is a PosixPath, .* leave out"):
        run.save(5)
    assert not run.checkpoints.exists()


def test_the_first_error_of_a_file_comes_out_whenever_it_comes():
    class File:
        def __init__(self, writes):
            self.writes = writes

        def write(self, data):
            self.writes -= 1
            if self.writes < 0:
                raise OSError(errno.EIO, f"failure {self.writes}")

    whole = writing.HashedFile(File(1000))
    torch.save(content(), whole)
    assert whole.error is None
    number = 1000 - whole.file.writes
    for n in range(number):
        file = writing.HashedFile(File(n))
        torch.save(content(), file)
        assert str(file.error) == "[Errno 5] failure -1"


def test_one_failed_write_is_enough(run, monkeypatch):
    class FailsOnce(writing.HashedFile):
        def write(self, data):
            whole, self.file = self.file, self.file if self.bytes else None
            try:
                return super().write(data)  # the first one meets no file
            finally:
                self.file = whole

    monkeypatch.setattr(writing, "HashedFile", FailsOnce)
    with pytest.raises(AttributeError):
        run.save(5)
    assert files(run) == {}


def test_another_callback_may_save_elsewhere(tmp_path):
    path = tmp_path / "new" / "mine.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(), path)
    assert same(content(), load_checkpoint(path))
    AtomicCheckpointIO().remove_checkpoint(path)
    assert not list(path.parent.iterdir())


# In the background


@pytest.fixture
def held(monkeypatch):
    """Writing begins when this event is set."""
    event, written = threading.Event(), callback.written

    def waits(*args):
        assert event.wait(30)
        return written(*args)

    monkeypatch.setattr(callback, "written", waits)
    return event


def test_the_file_holds_the_state_of_its_step_though_training_went_on(run, held):
    run.trainer.should_stop = False
    run.save(5)
    run.trainer.step_to(6)
    assert not run.path(5).exists()
    held.set()
    assert run.callback.newest() == run.path(5)
    loaded = load_checkpoint(run.path(5))
    assert same(loaded["state_dict"], content(5)["state_dict"])
    assert same(loaded["optimizer_states"], content(5)["optimizer_states"])


def test_saving_at_the_end_or_now_waits_for_the_disk(run, held):
    run.trainer.should_stop = False
    run.save(5)
    threading.Timer(0.1, held.set).start()
    run.trainer.step_to(6)
    run.callback.save_now(run.trainer)
    assert run.steps() == [5, 6]
    run.trainer.should_stop = True
    run.save(7)
    assert run.steps() == [6, 7]


def test_a_save_knows_how_the_one_before_it_went(run, held):
    run.trainer.should_stop = False
    run.save(5, metric=1.0)
    threading.Timer(0.1, held.set).start()
    run.save(6)
    run.callback.background.wait()
    assert load_checkpoint(run.path(6))["best"]["step"] == 5


def test_saving_now_returns_when_the_save_under_way_is_done(run, held):
    run.trainer.should_stop = False
    run.save(5)
    threading.Timer(0.1, held.set).start()
    run.callback.save_now(run.trainer)
    assert run.steps() == [5]


def test_a_save_waits_while_weights_change(run):
    run.trainer.should_stop = False
    with run.trainer.lightning_module.update_lock:
        other = threading.Thread(target=run.callback.save_now, args=(run.trainer,))
        run.trainer.step_to(6)
        other.start()
        time.sleep(0.1)
        run.trainer.step_to(7)
    other.join()
    assert run.steps() == [7]


def test_where_memory_is_short_the_training_waits(run, monkeypatch):
    run.trainer.should_stop = False
    needed = writing.bytes_needed(run.trainer.content | run.callback.content)
    started = []
    monkeypatch.setattr(Background, "start", lambda self, action: started.append(1))
    for free in (2 * needed + 10_000, 2 * needed - 10_000, 0):
        monkeypatch.setattr(callback, "free_memory", lambda free=free: free)
        run.save(run.trainer.global_step + 1)
    assert len(started) == 1
    assert run.steps() == [2, 3]


def test_a_failure_in_the_background_is_raised_at_the_next_step_once(run):
    run.trainer.should_stop = False
    run.save(5)
    run.callback.background.wait()
    temporary_of(run.path(6)).symlink_to("/dev/full")
    run.save(6)
    run.callback.background.join()
    run.trainer.step_to(7)
    with pytest.raises(RunError, match="No space left"):
        run.callback.on_train_batch_end(run.trainer)
    assert run.callback.newest() == run.path(5)
    run.callback.save_now(run.trainer)  # there may be room again
    assert run.callback.newest() == run.path(7)
    run.callback.on_train_end()


def test_the_end_of_training_raises_what_failed_and_an_error_only_waits(run):
    run.trainer.should_stop = False
    run.checkpoints.mkdir(parents=True)
    for step, end in ((5, run.callback.on_exception), (6, run.callback.on_train_end)):
        temporary_of(run.path(step)).symlink_to("/dev/full")
        run.trainer.step_to(step)
        if step == 6:
            with pytest.raises(RunError):
                run.callback.on_train_batch_end(run.trainer)
        run.callback._save(run.trainer, None, in_background=True)
        if step == 5:
            end()
        else:
            with pytest.raises(RunError, match="No space left"):
                end()


def test_a_snapshot_shares_nothing():
    original = content()
    original["nested"] = {"a": [1, (torch.zeros(2), "x")]}
    copy = snapshot(original)
    assert same(copy, original)
    original["nested"]["a"][1][0].fill_(1)
    original["nested"]["a"].append(2)
    original["state_dict"]["h.0.weight"].fill_(9)
    assert copy["nested"]["a"][1][0].sum() == 0
    assert len(copy["nested"]["a"]) == 2
    assert copy["state_dict"]["h.0.weight"].max() == 5


def test_free_memory_is_what_the_machine_and_the_container_leave(monkeypatch):
    limits = {
        "/proc/meminfo": "MemTotal: 99 kB\nMemAvailable:     4000 kB\n",
        "/proc/self/cgroup": "4:memory,x:/job\n0::/a/b\n1:cpu:/\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self: limits.get(str(self), "max"))
    assert free_memory() == 4000 * 1024
    limits |= {
        "/sys/fs/cgroup/a/memory.max": "3000000\n",
        "/sys/fs/cgroup/a/memory.current": "2000000\n",
        "/sys/fs/cgroup/a/memory.stat": "anon 5\ninactive_file 400\n",
    }
    assert free_memory() == 1_000_400
    limits |= {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "2000\n",
        "/sys/fs/cgroup/memory/memory.stat": "inactive_file 4\ntotal_inactive_file 7\n",
    }
    assert free_memory() == 1007
    del limits["/proc/meminfo"]
    assert free_memory() == 0


def test_the_free_memory_of_this_machine_is_known():
    assert free_memory() > 2**20 or not Path("/proc/meminfo").exists()
