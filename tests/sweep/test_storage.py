"""A study's folder and database that are damaged, full, or another's."""

import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from gpt2lab.errors import ConfigError, RunError
from gpt2lab.sweep import run as running
from gpt2lab.sweep.run import folder_points, run
from gpt2lab.sweep.trials import State
from tests.sweep.studies import STUB, start, stub_study


@pytest.fixture
def study(tmp_path):
    """Two points of which are complete, and no process has its database open."""
    assert start(tmp_path / "s", 2).wait() == 0
    return stub_study(tmp_path / "s", trials=3)


def refused(study) -> str:
    before = {one.name for one in study.folder.glob("trial-*")}
    with pytest.raises(ConfigError) as error:
        run(study, module=STUB)
    assert {one.name for one in study.folder.glob("trial-*")} == before
    (problem,) = error.value.problems
    return problem.removeprefix(str(study.folder))


@pytest.mark.parametrize("kept", [100, 5000])
def test_a_database_that_is_cut_short_is_refused(study, kept):
    database = study.folder / "study.db"
    database.write_bytes(database.read_bytes()[:kept])
    assert refused(study).startswith("/study.db: cannot be opened (database disk image is malf")


def test_a_page_that_is_damaged_is_told_of_with_the_file(study):
    database = study.folder / "study.db"
    content = bytearray(database.read_bytes())
    content[2 * 4096 : 3 * 4096] = b"\xff" * 4096
    database.write_bytes(content)
    assert refused(study).startswith("/study.db: cannot be ")


def test_runs_that_the_database_does_not_know_are_no_trials_of_it(study):
    (study.folder / "study.db").unlink()
    assert refused(study) == (
        ": holds trial-0000-seed-0, which its database does not know; "
        "bring back the database, or choose another name="
    )


def test_the_folder_of_a_run_is_no_study(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "receipt.json").write_text("{}")
    assert "is a run, not a study" in refused(stub_study(tmp_path / "s"))


def test_nothing_is_left_of_a_study_that_cannot_begin(tmp_path, monkeypatch):
    def full(address, folder):
        (folder / "study.db").write_bytes(b"SQLite")
        raise ConfigError("study.db: cannot be opened (database or disk is full); make room")

    monkeypatch.setattr(running, "open_storage", full)
    refused(stub_study(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "check_writable", lambda folder, key: None)
    (tmp_path / "file").write_text("")
    problem = refused(stub_study(tmp_path / "file" / "s"))
    assert problem.startswith("runs_dir: ")
    assert problem.endswith(" cannot be written (Not a directory); choose another folder")


def test_a_disk_that_fills_up_ends_the_study_in_a_line_and_it_goes_on_later(tmp_path):
    def full(*told):
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with pytest.raises(RunError) as error:
        run(stub_study(tmp_path / "s"), full, STUB)
    assert str(error.value) == (
        f"{tmp_path}/s/study.db: cannot be read or written (database or disk is full); "
        "make room if the disk is full, or bring back a copy that is whole"
    )
    points = run(stub_study(tmp_path / "s"), module=STUB)
    assert [point.state for point in points] == [State.complete] * 4


def test_a_commit_waits_for_no_disk_and_the_file_is_whole_at_the_end(study):
    assert len(folder_points(study.folder)) == 2
    with sqlite3.connect(study.folder / "study.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
