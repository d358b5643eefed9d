"""The manifest, and which checkpoint is the last and the best when some are damaged."""

import json
import subprocess
import sys
import warnings

import pytest

from gpt2lab.checkpoint import clean, find_checkpoint, load_checkpoint, read_manifest
from gpt2lab.checkpoint.manifest import Entry, Manifest, temporary_of
from gpt2lab.errors import CheckpointError
from tests.checkpoint.conftest import flip


def last(run):
    return find_checkpoint(run.folder, "last")


def best(run):
    return find_checkpoint(run.folder, "best")


def without_warnings(action, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return action(*args)


def test_a_run_without_checkpoints_has_neither(run):
    assert last(run) is None
    assert best(run) is None


def test_finding_needs_no_torch():
    code = "import sys, gpt2lab.checkpoint.find; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_manifest_says_what_is_there(run):
    run.save(5, metric=2.0)
    run.save(6)
    content = json.loads((run.checkpoints / "manifest.json").read_text())
    assert content["run"] == {"id": "abc", "name": "run"}
    assert content["best"] == "step-000005.ckpt"
    assert [entry["step"] for entry in content["checkpoints"]] == [6, 5]
    assert [entry["metric"] for entry in content["checkpoints"]] == [None, 2.0]
    assert content["checkpoints"][0]["bytes"] == run.path(6).stat().st_size
    assert without_warnings(last, run) == run.path(6)
    assert without_warnings(best, run) == run.path(5)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (flip, "has .* their sha256 is .* was saved"),
        (lambda path: path.write_bytes(b""), "has 0 bytes that are not a whole"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_damaged_last_one_gives_a_warning_and_the_one_before(run, damage, what):
    run.save(5, 6, 7)
    damage(run.path(7))
    with pytest.warns(
        UserWarning, match=rf"step-000007\.ckpt: .*{what}.*going on from step-0*6\."
    ) as w:
        assert last(run) == run.path(6)
    assert len(w) == 1


def test_a_run_whose_checkpoints_are_all_damaged_has_no_fresh_start(run):
    run.save(5, 6)
    flip(run.path(5))
    run.path(6).unlink()
    with pytest.raises(CheckpointError, match=r"step-000006.*is missing; .*step-000005.*sha256"):
        last(run)
    (run.checkpoints / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-000005.*no checkpoint is left"):
        last(run)


def test_a_damaged_best_one_is_an_error(run):
    run.save(5, metric=1.0)
    run.save(6)
    flip(run.path(5))
    with pytest.raises(CheckpointError, match=r"step-000005.*; go on with resume=last"):
        best(run)
    assert without_warnings(last, run) == run.path(6)


MANIFESTS = {
    "empty": b"",
    "cut": b'{"sha256": "',
    "zeros": bytes(100),
    "a list": b"[]",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "another checksum": b'{"sha256": "0", "checkpoints": [], "run": {}, "monitor": "val/loss"}',
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_with_a_damaged_manifest_the_files_speak_for_themselves(run, text):
    run.save(5, metric=1.0)
    run.save(6, metric=2.0)
    (run.checkpoints / "manifest.json").write_bytes(text)
    with pytest.warns(UserWarning, match=r"manifest.json: is damaged; going on from step-000006"):
        assert last(run) == run.path(6)
    flip(run.path(6))
    with pytest.warns(UserWarning, match=r"manifest.json: is damaged; .*step-000006\.ckpt: has"):
        assert last(run) == run.path(5)


def test_no_digit_of_a_manifest_can_be_changed_unseen(run):
    run.save(5)
    path = run.checkpoints / "manifest.json"
    assert read_manifest(run.checkpoints).checkpoints[0].step == 5
    path.write_text(path.read_text().replace('"step": 5', '"step": 6'))
    assert read_manifest(run.checkpoints) is None


def test_without_a_manifest_the_last_one_knows_the_best(run):
    run.save(5, metric=1.0)
    run.save(6, metric=2.0)
    (run.checkpoints / "manifest.json").unlink()
    assert without_warnings(last, run) == run.path(6)
    assert without_warnings(best, run) == run.path(5)
    flip(run.path(5))
    with pytest.raises(CheckpointError, match=r"step-000005.*go on with resume=last"):
        best(run)


def test_steps_are_ordered_as_numbers_and_other_files_are_none(run):
    run.save(999_999, 1_000_000)
    (run.checkpoints / "step-1000001-copy.ckpt").write_bytes(b"mine")
    (run.checkpoints / "manifest.json").unlink()
    assert last(run) == run.path(1_000_000)
    run.save(1_000_001, 1_000_002)
    assert (run.checkpoints / "step-1000001-copy.ckpt").exists()


@pytest.mark.parametrize(
    "forged",
    [
        {"file": "../../secret.ckpt"},
        {"file": "step-000006.ckpt"},
        {"bytes": "5"},
        {"sha256": None},
        {"metric": "1"},
    ],
)
def test_an_entry_that_is_no_checkpoint_of_that_step_is_no_entry(forged):
    entry = {"file": "step-000005.ckpt", "step": 5, "bytes": 1, "sha256": "", "metric": None}
    Entry(**entry)
    with pytest.raises((TypeError, ValueError)):
        Entry(**entry | forged)


@pytest.mark.parametrize(
    ("monitor", "metrics", "expected"),
    [
        ("val/loss", [3.0, 1.0, 2.0], 2),
        ("val/exact_match", [0.5, 0.9, 0.7], 2),
        ("val/loss", [3.0, None, None], 1),
        ("val/loss", [1.0, 1.0, 1.0], 1),
        ("val/loss", [None, None], None),
    ],
)
def test_the_best_is_the_earliest_of_the_best(monitor, metrics, expected):
    steps = enumerate(metrics, start=1)
    entries = [Entry(f"step-{s:06d}.ckpt", s, 1, "", m) for s, m in steps]
    found = Manifest({}, monitor, entries[::-1]).best
    assert (found and found.step) == expected


def unfinished(run, step):
    """As a kill between recording and renaming leaves it."""
    run.save(step)
    run.path(step).rename(temporary_of(run.path(step)))


def test_what_was_being_saved_in_a_kill_is_no_damage(run):
    run.save(5)
    unfinished(run, 6)
    assert without_warnings(last, run) == run.path(5)
    clean(run.checkpoints)
    assert without_warnings(last, run) == run.path(5)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["manifest.json", run.path(5).name]


def test_a_kill_in_the_first_save_leaves_nothing_to_resume(run):
    unfinished(run, 5)
    assert last(run) is None
    clean(run.checkpoints)
    assert last(run) is None
    clean(run.checkpoints)


def test_a_best_one_that_was_being_saved_is_not_the_best(run):
    run.save(5, metric=2.0)
    run.save(6, metric=1.0)
    run.path(6).rename(temporary_of(run.path(6)))
    assert best(run) == run.path(5)


def test_cleaning_touches_no_checkpoint(run):
    run.save(5, 6)
    temporary_of(run.path(7)).write_bytes(b"half")
    temporary_of(run.checkpoints / "manifest.json").write_bytes(b"{")
    before = {p: p.read_bytes() for p in run.checkpoints.iterdir() if p.name[0] != "."}
    clean(run.checkpoints)
    assert {p: p.read_bytes() for p in run.checkpoints.iterdir()} == before


def test_a_folder_of_checkpoints_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoints: cannot be written to \(File exists\)"):
        clean(tmp_path / "checkpoints")


def test_a_file_of_another_run_is_damage(run, tmp_path):
    run.save(5, 6)
    run.path(6).write_bytes(run.path(5).read_bytes())
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(run.path(6))
