"""The last lines of a program."""

import errno
import os

import pytest

from gpt2lab.errors import ConfigError
from gpt2lab.exit import exit_code


def ended_by(error, capsys):
    def action():
        raise error

    code = exit_code(action)
    return code, capsys.readouterr().err


def test_a_word_without_end_is_not_quoted_whole(capsys):
    code, line = ended_by(ConfigError(f"to: {'x' * 5000} is a file; choose a folder"), capsys)
    assert code == 2
    assert line.startswith("error: to: xxxx")
    assert line.endswith("xxx is a file; choose a folder\n")
    assert len(line) < 300


def test_a_name_that_is_too_long_is_a_mistake_and_no_fault(capsys):
    error = OSError(errno.ENAMETOOLONG, "File name too long", "y" * 5000)
    code, line = ended_by(error, capsys)
    assert code == 2
    assert line.endswith("yyy: is too long for a file's name; choose a shorter one\n")


def test_a_folder_that_is_gone_is_told_of(capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as error:
        os.getcwd()  # noqa: PTH109
    assert ended_by(error.value, capsys) == (
        2,
        "error: the folder that you are in is gone; go to one that is there\n",
    )
