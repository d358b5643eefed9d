"""What was scored is kept as it comes, and believed only where it is whole."""

import warnings

import pytest

from gpt2lab.evaluation.journal import Journal, read

RECORDS = {3: {"nll": 0.1 + 0.2, "tokens": 4}, 0: {"right": True, "nll": [1e-300, 2.5]}}


@pytest.fixture
def path(tmp_path):
    """A journal of two records."""
    path = tmp_path / ".lambada-0.journal"
    with Journal(path) as journal:
        journal.add(RECORDS)
    return path


def test_records_come_back_bit_for_bit(path):
    assert read(path) == RECORDS
    with Journal(path) as journal:
        assert journal.has([0, 3])
        assert not journal.has([0, 1])
        journal.add({1: {"nll": 5.0}})
    assert read(path) == {**RECORDS, 1: {"nll": 5.0}}


def test_without_a_file_nothing_is_known_and_none_is_made(tmp_path):
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        assert journal.records == {}
    assert not path.exists()
    journal.remove()


def test_a_line_without_its_end_is_whole_all_the_same(path):
    path.write_bytes(path.read_bytes()[:-1])
    with Journal(path) as journal:
        assert journal.records == RECORDS
        journal.add({7: {"nll": 1.0}})
    assert read(path) == {**RECORDS, 7: {"nll": 1.0}}


@pytest.mark.parametrize("cut", range(2, 40))
def test_a_cut_line_is_left_out_with_a_warning_and_swallows_no_other(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.warns(UserWarning, match="1 of its lines"):
        journal = Journal(path)
    assert journal.records == {3: RECORDS[3]}
    with journal:
        journal.add({7: {"nll": 1.0}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(path)[7] == {"nll": 1.0}


def test_a_flipped_bit_anywhere_is_noticed(path):
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(path)
        assert all(RECORDS[number] == record for number, record in found.items())
