import subprocess
import sys

import numpy as np
import pytest
import torch

from gpt2lab.batch import IGNORE
from gpt2lab.config import SortConfig
from gpt2lab.data.sort import (
    SortDataModule,
    SortTrain,
    held_out_inputs,
    is_held_out,
    to_batch,
)
from gpt2lab.errors import DataError


def test_the_row_of_the_description():
    batch = to_batch(np.array([[1, 2, 1, 0, 1]]))
    assert batch.inputs.tolist() == [[1, 2, 1, 0, 1, 0, 1, 1, 1]]
    assert batch.targets.tolist() == [[IGNORE] * 4 + [0, 1, 1, 1, 2]]


def test_a_quarter_of_all_inputs_is_held_out():
    digits = np.indices((4,) * 8).reshape(8, -1).T  # 65,536 inputs
    # a fair coin's share of 65,536 is within 0.25 +- 0.007 (four standard deviations)
    assert is_held_out(digits).mean() == pytest.approx(0.25, abs=0.007)


def test_every_process_holds_out_the_same_inputs():
    code = (
        "from gpt2lab.data.sort import *; from gpt2lab.config import SortConfig;"
        "rows = held_out_inputs(SortConfig()); print(rows.sum(axis=0).tolist(), len(rows))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = held_out_inputs(SortConfig())
    assert out.stdout.strip() == f"{ours.sum(axis=0).tolist()} {len(ours)}"
    assert ours[:3].tolist() == [[0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 2, 0], [0, 0, 0, 0, 2, 2]]


def test_training_never_sees_a_held_out_input():
    config = SortConfig(length=3, num_digits=3)
    held_out = {tuple(row) for row in held_out_inputs(config).tolist()}
    data = SortTrain(config, seed=0, batch_size=500)
    seen = {tuple(row) for step in range(5) for row in data[step].inputs[:, :3].tolist()}
    assert not seen & held_out
    assert len(seen | held_out) == 27  # and misses none of the others


@pytest.mark.parametrize(
    ("length", "num_digits", "limit", "expected"),
    [
        (6, 3, 4096, 177),  # all
        (7, 4, 4096, 4034),  # all, just below the limit
        (6, 3, 50, 50),
        (8, 4, 4096, 4096),
        (32, 100, 4096, 4096),
    ],
)
def test_held_out_inputs_are_all_there_are_or_a_fixed_sample(length, num_digits, limit, expected):
    config = SortConfig(length=length, num_digits=num_digits, eval_examples=limit)
    found = held_out_inputs(config)
    assert is_held_out(found).all()
    assert len(np.unique(found, axis=0)) == len(found)
    assert len(found) == expected
    assert (found == held_out_inputs(config)).all()


@pytest.mark.parametrize(("length", "num_digits"), [(2, 2), (1, 2)])
def test_a_task_without_held_out_inputs_is_refused(length, num_digits, monkeypatch):
    monkeypatch.setattr("gpt2lab.data.sort.is_held_out", lambda digits: np.zeros(len(digits), bool))
    with pytest.raises(DataError, match=r"data\.length.*0 are held out; choose a larger task"):
        held_out_inputs(SortConfig(length=length, num_digits=num_digits))


def test_a_batch_depends_on_seed_and_step_alone():
    config = SortConfig()
    data = SortTrain(config, seed=1, batch_size=16)
    again = SortTrain(config, seed=1, batch_size=16)
    data[4]
    assert torch.equal(data[9].inputs, again[9].inputs)
    assert not torch.equal(data[9].inputs, data[10].inputs)
    assert not torch.equal(data[9].inputs, SortTrain(config, seed=2, batch_size=16)[9].inputs)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_keep_the_order_and_a_resume_goes_on_in_it(workers):
    data = SortDataModule(SortConfig(num_workers=workers), seed=0, batch_size=4)
    data.start_step = 3
    for step, batch in zip(range(3, 8), data.train_dataloader(), strict=False):
        assert torch.equal(batch.inputs, data.train[step].inputs)


def test_evaluation_covers_every_held_out_input_once():
    data = SortDataModule(SortConfig(length=7, num_digits=4), seed=0, batch_size=4)
    rows = torch.cat([batch.inputs[:, :7] for batch in data.val_dataloader()])
    assert rows.tolist() == data.held_out.tolist()


def test_step_and_row_name_a_sample():
    data = SortDataModule(SortConfig(), seed=3, batch_size=5)
    names = [name for step in range(4) for name in data.sample_ids(step)]
    assert names == list(range(20))
    name = data.sample_ids(2)[4]
    assert torch.equal(data.train[name // 5].inputs[name % 5], data.train[2].inputs[4])
