"""Reading: what is whole, plain, finite and ours, and nothing else."""

import os
import pickle
import random
import zipfile

import pytest
import torch

from gpt2lab.checkpoint import AtomicCheckpointIO, check_fits, load_checkpoint, verify
from gpt2lab.checkpoint.reading import read
from gpt2lab.errors import CheckpointError
from tests.checkpoint.conftest import age, content, flip, same
from tests.damage import CUTS


def test_what_was_saved_is_loaded(saved):
    assert same(content(), load_checkpoint(saved))
    assert same(content(), AtomicCheckpointIO().load_checkpoint(saved))
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("damage", CUTS.values(), ids=CUTS.keys())
def test_a_damaged_file_is_refused_by_name_with_and_without_a_manifest(saved, run, damage):
    run.save(5)
    for path in (saved, run.path(5)):
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(
            CheckpointError, match=r"step-000005\.ckpt: has [\d,]+ bytes that are not a whole"
        ):
            load_checkpoint(path)


def test_both_checksums_are_named(run):
    run.save(5)
    wanted = verify.sha256(run.path(5))
    flip(run.path(5))
    found = verify.sha256(run.path(5))
    with pytest.raises(CheckpointError, match=f"their sha256 is {found}, {wanted} was saved"):
        load_checkpoint(run.path(5))


def test_no_bit_can_be_flipped_where_a_checksum_is_on_record(run):
    run.save(5)
    whole = run.path(5).read_bytes()
    chosen = random.Random(0)
    for _ in range(100):
        flip(run.path(5), chosen.randrange(len(whole)))
        with pytest.raises(CheckpointError, match="not a whole checkpoint"):
            load_checkpoint(run.path(5))
        run.path(5).write_bytes(whole)
    load_checkpoint(run.path(5))


def test_without_a_record_a_flipped_bit_is_found_or_changes_nothing(saved):
    whole = saved.read_bytes()
    chosen = random.Random(0)
    refused = 0
    for _ in range(200):
        flip(saved, chosen.randrange(len(whole)))
        try:
            assert same(content(), load_checkpoint(saved))  # a bit of padding, or of a time
        except CheckpointError:
            refused += 1
        saved.write_bytes(whole)
    assert 50 < refused < 200


def repacked(path, change):
    """Change a checkpoint's pickle, and let its zip agree with that."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, change(data) if name.endswith("data.pkl") else data)


def test_a_forged_pickle_ends_in_one_line_or_in_plain_types(saved):
    whole = saved.read_bytes()
    chosen = random.Random(0)

    def forge(data):
        data = bytearray(data)
        place = chosen.randrange(len(data))
        if chosen.random() < 0.5:
            data[place] = chosen.randrange(256)
        else:
            data[place : place + chosen.randrange(9)] = chosen.randbytes(chosen.randrange(9))
        return bytes(data)

    for _ in range(200):
        saved.write_bytes(whole)
        repacked(saved, forge)
        try:
            load_checkpoint(saved)
        except CheckpointError as error:
            assert str(saved) in str(error)  # noqa: PT017


class RunsCode:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, form):
    path, canary = tmp_path / "bad.ckpt", tmp_path / "canary"
    evil = {**content(), "evil": RunsCode(canary)}
    if form == "zip":
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil))
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        read(path, mapped=False)  # whatever the zip's checksums say
    assert not canary.exists()


def nest(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def ring():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "foreign",
    [
        [1, 2],
        {"state_dict": {}},
        {**content(), "settings": [1]},
        {**content(), "global_step": "3"},
        {name: value for name, value in content().items() if name != "optimizer_states"},
        {**content(), "x": {1, 2}},
        {**content(), "x": [{"y": b"bytes"}]},
        {**content(), "x": torch.float32},
        {**content(), "x": torch.ones(1).expand(2**40)},
        {**content(), "x": torch.empty(2**40, device="meta")},
        {**content(), "x": torch.eye(2).to_sparse()},
        {**content(), "x": torch.ones(2, dtype=torch.complex64)},
        {**content(), "x": torch.ones(2).untyped_storage()},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_program_is_refused(saved, foreign):
    torch.save(foreign, saved)
    with pytest.raises(CheckpointError, match="not a checkpoint of gpt2lab"):
        load_checkpoint(saved)


def test_a_deep_nest_and_a_ring_do_no_harm(saved):
    torch.save({**content(), "x": nest(200), "y": ring()}, saved)
    load_checkpoint(saved)


def test_a_list_that_doubles_forty_times_is_read_once(saved):
    value = []
    for _ in range(40):
        value = [value, value]
    torch.save({**content(), "x": value}, saved)
    load_checkpoint(saved)


def test_a_zip_that_unpacks_to_more_than_it_is_is_refused(saved):
    with zipfile.ZipFile(saved) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(saved)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("part", ["state_dict.h.0.weight", "optimizer_states.0.state.0.exp_avg"])
def test_nan_and_infinity_are_refused_unless_allowed_by_name(saved, value, part):
    bad = content()
    tensors = {
        "state_dict.h.0.weight": bad["state_dict"]["h.0.weight"],
        "optimizer_states.0.state.0.exp_avg": bad["optimizer_states"][0]["state"][0]["exp_avg"],
    }
    tensors[part][1, 2] = float(value)
    AtomicCheckpointIO().save_checkpoint(bad, saved)
    for allowed in (None, "state_dict.h.0.bias"):
        with pytest.raises(
            CheckpointError,
            match=rf"{part} has 1 of 6 numbers NaN or infinite; .* allow_nonfinite={part}$",
        ):
            load_checkpoint(saved, allowed)
    assert AtomicCheckpointIO(part).load_checkpoint(saved)["global_step"] == 5


def test_numbers_of_a_callback_may_be_infinite(saved):
    AtomicCheckpointIO().save_checkpoint(
        {**content(), "callbacks": {"EarlyStopping": {"best_score": torch.tensor(torch.inf)}}},
        saved,
    )
    load_checkpoint(saved)


def test_an_unchanged_file_is_checked_once(saved, monkeypatch):
    calls = []
    monkeypatch.setattr(verify.zipfile.ZipFile, "testzip", lambda self: calls.append(self.filename))
    age(saved)
    for _ in range(3):
        load_checkpoint(saved)
    assert len(calls) == 1
    flip(saved)
    load_checkpoint(saved)
    assert len(calls) == 2


def test_a_file_changed_within_a_tick_of_its_clock_is_checked_again(saved):
    load_checkpoint(saved)
    then = saved.stat().st_mtime_ns
    flip(saved)
    os.utime(saved, ns=(then, then))
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(saved)


def test_the_first_tensor_that_differs_is_named_with_both_shapes(tmp_path):
    module = torch.nn.Linear(2, 3)
    state = {**module.state_dict(), "weight": torch.zeros(3, 4)}
    with pytest.raises(
        CheckpointError, match=r"weight is \(3, 4\) there and \(3, 2\) in the model"
    ):
        check_fits(module, state, tmp_path)
    with pytest.raises(CheckpointError, match=r"bias is missing there and \(3,\) in the model"):
        check_fits(module, {"weight": torch.zeros(3, 2)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"more is \(1,\) there and missing in the model"):
        check_fits(module, {**module.state_dict(), "more": torch.zeros(1)}, tmp_path)
