"""What would make a training fit does: each way is worked out anew."""

from dataclasses import replace

import pytest

from gpt2lab.planning.fit import fits, largest_rows, needed_bytes, ways
from gpt2lab.planning.hardware import GIB
from tests.planning.works import gpu, work

XL = ("model=xl", "model.dropout=0", "batch_size=64")


def test_the_largest_micro_batch_is_a_divisor_that_fits_and_the_next_does_not():
    shape, device = work("model=small", "batch_size=60", "model.dropout=0"), gpu(16)
    rows = largest_rows(shape, device)
    assert rows is not None
    assert 60 % rows == 0
    assert fits(shape.with_rows(rows), device)
    larger = next(n for n in range(rows + 1, 61) if 60 % n == 0)
    assert not fits(shape.with_rows(larger), device)


def test_what_is_stored_alone_may_be_too_much():
    assert largest_rows(work(*XL), gpu(20)) is None


def test_each_way_fits_when_its_overrides_are_given():
    device = gpu(39.4)
    assert not fits(work(*XL), device)
    found = ways(work(*XL), device)
    assert len(found) == 3
    assert found[0].overrides[-1].startswith("micro_batch_size=")
    assert found[1].overrides[0] == "model.activation_checkpointing=true"
    assert found[2].overrides[:2] == ("strategy=fsdp", "devices=2")
    for way in found:
        again = work(*XL, *way.overrides)
        assert fits(again, device), way
        assert needed_bytes(again, device) == way.needed_bytes


def test_fsdp_takes_as_few_devices_as_it_can_and_fewer_where_blocks_are_recomputed():
    found = [way.overrides for way in ways(work(*XL), gpu(14))]
    assert [words[:2] for words in found] == [
        ("strategy=fsdp", "devices=8"),
        ("strategy=fsdp", "devices=4"),
    ]
    assert "model.activation_checkpointing=true" in found[1]


def test_nothing_helps_where_one_sequence_is_too_much():
    assert ways(work(*XL), gpu(1)) == []


def test_processes_on_a_cpu_share_its_memory_and_more_of_them_do_not_help():
    shape, alone = work(*XL, "devices=2"), gpu(39.4)
    shared = alone.__class__(**{**vars(alone), "memory_is_shared": True})
    assert needed_bytes(shape, shared) == 2 * needed_bytes(shape, alone)
    assert not [way for way in ways(shape, shared) if "strategy=fsdp" in way.overrides]
    (way,) = [way for way in ways(shape, shared) if way.overrides[0] == "devices=1"][:1]
    assert way.needed_bytes == needed_bytes(work(*XL, *way.overrides), alone)


def test_processes_share_the_memory_of_their_own_node_alone():
    two, four = work(*XL, "devices=2"), work(*XL, "devices=2", "num_nodes=2")
    shared = replace(gpu(39.4), memory_is_shared=True)
    half = four.with_rows(16)  # of 16 rows, as one of two devices would have 32
    assert needed_bytes(half, shared) == 2 * needed_bytes(half, gpu(39.4))
    assert next(way.overrides[:2] for way in ways(four, shared)) == ("devices=1", "num_nodes=1")
    assert "num_nodes=1" not in [word for way in ways(two, shared) for word in way.overrides]


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_the_step_stays_the_same_however_it_is_split(rows):
    shape = work(*XL)
    split = shape.with_rows(rows)
    assert (split.sequences, split.flops) == (shape.sequences, shape.flops)
    assert shape.sharded_over(8).sequences == 64
    assert needed_bytes(split, gpu(1)) <= needed_bytes(shape, gpu(1))
    assert needed_bytes(shape, gpu(1)) > 100 * GIB
