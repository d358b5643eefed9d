"""What each of several ranks sees: together, what one sees, and nothing twice."""

from types import SimpleNamespace

import pytest
import torch

from gpt2lab.config.compose import settings_from
from gpt2lab.data.order import Share
from gpt2lab.experiment import build_data

DATA = {
    "sort": ["data=sort"],
    "ragged": ["data=dates", "data.eval_examples=7"],
    "text": ["data=text", "data.tokenizer=char", "model.block_size=11"],
}


def of_rank(data, rank, count):
    data.trainer = SimpleNamespace(global_rank=rank, world_size=count)
    loader = data.train_dataloader()
    return loader.dataset, list(data.val_dataloader())


def rows(batches):
    return [torch.cat([batch[i] for batch in batches]) for i in (0, 1)]


@pytest.mark.parametrize("overrides", DATA.values(), ids=DATA)
def test_the_ranks_together_see_each_row_of_a_step_and_of_an_evaluation_once(tmp_path, overrides):
    text = tmp_path / "a.txt"
    text.write_text("To be, or not to be: that is the question. " * 40)  # 140 windows to train on
    common = ["model=nano", "batch_size=30", f"data_dir={tmp_path}"]
    if "data=text" in overrides:
        common.append(f"data.path={text}")
    data = build_data(settings_from("train", [*common, *overrides]).settings)
    steps = (0, 4)  # the second sees the end of an epoch, and the start of the next
    train, evaluated = of_rank(data, 0, 1)
    wanted = rows([train[step] for step in steps])
    ids = [data.sample_ids(step) for step in steps]
    for count in (2, 3, 5):
        found, parts, found_ids = [[] for _ in steps], [], [[] for _ in steps]
        for rank in range(count):
            train, part = of_rank(data, rank, count)
            assert part  # a rank without a batch would not wait for the others' sums
            parts += [batch for batch in part if len(batch.inputs)]
            for i, step in enumerate(steps):
                found[i].append(train[step])
                found_ids[i] += data.sample_ids(step)
        for a, b in zip(rows([b for step in found for b in step]), wanted, strict=True):
            assert torch.equal(a, b)
        assert found_ids == ids
        for a, b in zip(rows(parts), rows(evaluated), strict=True):
            assert torch.equal(a, b)


def test_shares_are_in_a_row_and_as_equal_as_can_be():
    assert [Share(rank, 3).of(10) for rank in range(3)] == [slice(0, 3), slice(3, 6), slice(6, 10)]
    assert [Share(rank, 3).of(2) for rank in range(3)] == [slice(0, 0), slice(0, 1), slice(1, 2)]
