"""Attention drawn while a model learns."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gpt2lab import fit
from gpt2lab.errors import ConfigError
from gpt2lab.insight.callback import AttentionPictures, most_varied
from gpt2lab.insight.pictures.squares import square
from gpt2lab.loggers import Guarded
from tests.test_experiment import SHORT

ON = "callbacks=[default,attention]"


def weights(result):
    (path,) = sorted((result.folder / "checkpoints").glob("*.ckpt"))[-1:]
    return torch.load(path, weights_only=True)["state_dict"]


def run(tmp_path: Path, name: str, *overrides: str):
    return fit([*SHORT, f"runs_dir={tmp_path}", f"name={name}", *overrides])


def test_weights_are_the_same_bit_for_bit_with_and_without_it(tmp_path):
    dropout = "model.dropout=0.1"
    plain, drawn = run(tmp_path, "plain", dropout), run(tmp_path, "drawn", dropout, ON)
    pictures = sorted(path.name for path in (drawn.folder / "attention").iterdir())
    assert pictures
    for name in pictures:
        assert (drawn.folder / "attention" / name).read_bytes().startswith(b"\x89PNG")
    assert not (plain.folder / "attention").exists()
    expected, found = weights(plain), weights(drawn)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_failure_is_one_warning_and_training_goes_on(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("gpt2lab.insight.callback.square", fail)
    with pytest.warns(
        UserWarning, match="attention: no fonts; training goes on without it"
    ) as all_:
        result = run(tmp_path, "a", ON)
    assert len([w for w in all_ if "no fonts" in str(w.message)]) == 1
    assert (result.folder / "summary.json").exists()


def test_a_picture_is_drawn_every_so_many_evaluations(tmp_path):
    every = [ON, "callbacks.attention.every=2", "eval_every=1", "max_steps=4"]
    result = run(tmp_path, "a", *every)
    pictures = sorted(path.name for path in (result.folder / "attention").iterdir())
    assert pictures == ["step-000002.png", "step-000004.png"]


def test_loggers_that_show_pictures_get_it(tiny_model, tmp_path, monkeypatch):
    given = []
    logger = Guarded("a", lambda: SimpleNamespace(log_image=lambda *args: given.append(args)))
    data = SimpleNamespace(
        has_answers=True,
        questions=lambda count: (torch.tensor([[3, 1, 4]]), torch.tensor([[1, 3, 4]])),
    )
    trainer = SimpleNamespace(global_step=5, datamodule=data, loggers=[logger])
    module = SimpleNamespace(model=tiny_model.train(), settings=SimpleNamespace(eval_every=5))
    monkeypatch.setattr("gpt2lab.insight.callback.said", lambda *_, **__: [torch.tensor([1, 3])])
    AttentionPictures(str(tmp_path / "attention")).on_validation_end(trainer, module)
    path = tmp_path / "attention" / "step-000005.png"
    assert given == [("attention", [str(path)], 5)]
    assert path.is_file()
    assert tiny_model.training
    assert all(parameter.grad is None for parameter in tiny_model.parameters())


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        (["000012", "001122", "201102"], 2),
        (["0000", "0102", "0101"], 1),
        (["12", "34"], 0),
        (["111", "21"], 1),
    ],
)
def test_the_sample_is_the_one_whose_tokens_can_be_told_apart(rows, chosen):
    assert most_varied([torch.tensor([*map(int, row)]) for row in rows]) == chosen


def test_a_line_parts_what_was_given_from_what_the_model_says():
    weights = torch.eye(5).numpy()
    assert not square(weights, "20102", "").axes[0].lines
    across, down = square(weights, "20102", "", border=3).axes[0].lines
    assert across.get_xydata().tolist() == [[-0.5, 2.5], [2.5, 2.5]]
    assert down.get_xydata().tolist() == [[2.5, 2.5], [2.5, 4.5]]


@pytest.mark.parametrize("wrong", ["every=0", "new_tokens=0", "evry=2"])
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"callbacks\.attention: "):
        run(tmp_path, "a", ON, f"++callbacks.attention.{wrong}")
