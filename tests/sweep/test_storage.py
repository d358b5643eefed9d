"""A study's folder and database that are damaged, full, or another's."""

import sqlite3
import sys

import optuna
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from gpt2lab.errors import ConfigError, RunError
from gpt2lab.sweep import run as running
from gpt2lab.sweep import study as asked
from gpt2lab.sweep.run import folder_points, run
from gpt2lab.sweep.storage import check_same, open_storage
from gpt2lab.sweep.trials import State
from tests.sweep.studies import STUB, start, stub_study, until


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


def test_a_report_of_a_damaged_database_says_so(study):
    (study.folder / "study.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(ConfigError, match=r"s/study.db: cannot be (opened|read)"):
        folder_points(study.folder)


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


def test_a_folder_of_something_else_is_no_study(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "notes.txt").write_text("mine")
    assert "is there already, and no study" in refused(stub_study(tmp_path / "s"))
    assert [one.name for one in (tmp_path / "s").iterdir()] == ["notes.txt"]


def test_nothing_is_left_of_a_study_that_cannot_begin(tmp_path, monkeypatch):
    def full(address, folder):
        (folder / "study.db").write_bytes(b"SQLite")
        raise ConfigError("study.db: cannot be opened (database or disk is full); make room")

    monkeypatch.setattr(running, "open_storage", full)
    refused(stub_study(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(asked, "check_writable", lambda folder, key: None)
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


def test_trials_save_and_leave_where_the_database_fails(tmp_path, befalls):
    def full(*told):
        until((tmp_path / "s" / "trial-0001-seed-0" / "steps.txt").exists)
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    befalls({"trial-0001-seed-0": {"saves_until_asked": True}})
    with pytest.raises(RunError):
        run(stub_study(tmp_path / "s", trials=2), full, STUB)
    assert (tmp_path / "s" / "trial-0001-seed-0" / "summary.json").exists()


def test_a_commit_waits_for_no_disk_and_the_file_is_whole_at_the_end(study):
    assert len(folder_points(study.folder)) == 2
    with sqlite3.connect(study.folder / "study.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_connection_of_ours_does_not_wait_for_the_disk(tmp_path):
    with open_storage(None, tmp_path).engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1  # NORMAL


def test_a_users_own_sqlite_waits_for_other_writers(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE", f"sqlite:///{tmp_path / 'own.db'}")
    with open_storage("${oc.env:DATABASE}", tmp_path).engine.connect() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 60_000


def test_a_driver_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ConfigError) as error:
        open_storage("postgresql+psycopg2://me:hunter2@host/db", tmp_path)
    assert str(error.value) == (
        "study.storage: psycopg2 is not installed; pip install psycopg2-binary"
    )


def test_a_database_without_the_study_is_told_of_in_a_line(tmp_path):
    (tmp_path / "s").mkdir()
    with pytest.raises(ConfigError, match=r"s/study\.db: holds no study s; give the database"):
        folder_points(tmp_path / "s")


def test_the_order_of_a_base_means_nothing(tmp_path):
    study = optuna.create_study()
    check_same(study, {"study.base": ["a=1", "b=2"]})
    check_same(study, {"study.base": ["b=2", "a=1"]})
    with pytest.raises(ConfigError, match=r"study\.base"):
        check_same(study, {"study.base": ["b=2"]})


def test_a_database_is_left_whole_while_the_process_goes_on(tmp_path):
    study = stub_study(tmp_path / "s", trials=2)
    run(study, module=STUB)
    assert [file.name for file in study.folder.glob("study.db*")] == ["study.db"]
    folder_points(study.folder)
    assert [file.name for file in study.folder.glob("study.db*")] == ["study.db"]
