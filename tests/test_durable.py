"""A folder that is there as a whole or not at all."""

import fcntl
import os

import pytest

from gpt2lab.durable import whole_folder


def write(folder, **files):
    for name, text in files.items():
        (folder / name).write_text(text)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    target = tmp_path / "new" / "parents" / "out"
    with whole_folder(target) as folder:
        write(folder, a="1", b="2")
        assert not target.exists()
    assert content(target) == {"a": "1", "b": "2"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("was_there", [False, True])
def test_nothing_is_left_where_it_fails(tmp_path, was_there):
    target = tmp_path / "parent" / "out"
    if was_there:
        target.mkdir(parents=True)
        write(target, old="1")

    def interrupted():
        with whole_folder(target) as folder:
            write(folder, new="2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    if was_there:
        assert content(target) == {"old": "1"}
        assert [path.name for path in target.parent.iterdir()] == ["out"]
    else:
        assert not [*tmp_path.iterdir()]


def test_what_was_there_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    write(target, a="1", stale="1")
    with whole_folder(target) as folder:
        write(folder, a="2")
        assert content(target) == {"a": "1", "stale": "1"}
    assert content(target) == {"a": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_there_comes_back_if_it_cannot_be_replaced(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    write(target, a="1")
    rename = type(target).rename

    def failing(path, place):
        if path.name == ".out.tmp":
            raise OSError(28, "No space left on device")
        return rename(path, place)

    monkeypatch.setattr(type(target), "rename", failing)
    with pytest.raises(OSError, match="No space"), whole_folder(target) as folder:
        write(folder, a="2")
    assert content(target) == {"a": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_kill_left_is_cleared_away(tmp_path):
    for name in (".out.tmp", ".out.old"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, left="1")
    with whole_folder(tmp_path / "out") as folder:
        write(folder, a="2")
    assert content(tmp_path / "out") == {"a": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_do_not_write_it_at_once(tmp_path):
    other = tmp_path / ".out.tmp"
    other.mkdir()
    write(other, a="1")
    descriptor = os.open(other, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError), whole_folder(tmp_path / "out"):
        pass
    assert content(other) == {"a": "1"}
    os.close(descriptor)
