"""Several machines on one study: whose a point is, and when its owner counts as gone."""

import pytest
from sqlalchemy import create_engine

from gpt2lab.sweep import claims
from gpt2lab.sweep.claims import BEAT_S, CHOOSING, SILENCE_S, Claims


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(claims, "time", found)
    return found


@pytest.fixture
def machines(tmp_path, monkeypatch, clock):
    """Claims of three machines, none of which can see another's processes."""
    monkeypatch.setattr(claims, "is_here", lambda holder: False)
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    return [Claims(engine, 1) for _ in range(3)]


def test_a_point_is_one_machines_until_it_is_released(machines):
    one, other, _ = machines
    assert one.take(7)
    assert one.take(7)
    assert not other.take(7)
    one.release(7)
    assert other.take(7)


def test_of_two_that_see_a_third_silent_one_takes_its_point(machines, clock):
    gone, one, other = machines
    assert gone.take(7)
    assert not one.take(7)
    assert not other.take(7)
    clock.now += SILENCE_S + 1
    assert one.take(7)
    assert not other.take(7)
    assert gone.beat() == set()


def test_a_machine_that_beats_keeps_its_point(machines, clock):
    one, other, _ = machines
    assert one.take(7)
    for _ in range(20):
        assert not other.take(7)
        clock.now += BEAT_S + 1
        assert one.beat() == {7}


def test_who_chooses_again_and_again_has_not_been_silent(machines, clock):
    one, other, _ = machines
    for _ in range(3):
        with one.choosing() as is_ours:
            assert is_ours
            assert not other.take(CHOOSING)
        clock.now += SILENCE_S + 1


def test_of_two_that_make_the_table_at_once_none_fails(tmp_path, monkeypatch):
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    make = claims._table.metadata.create_all

    def late(engine, checkfirst=True):
        make(engine)
        monkeypatch.setattr(claims._table.metadata, "create_all", make)
        make(engine, checkfirst=False)  # as one that had looked before

    monkeypatch.setattr(claims._table.metadata, "create_all", late)
    assert Claims(engine, 1).take(7)
