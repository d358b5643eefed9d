import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from gpt2lab.samples import Samples, answers, quoted


class Questions:
    """Two of different lengths; ids are printed with a bar, and 0 ends an answer."""

    has_answers = True

    def questions(self, count):
        prompts = [torch.tensor([3, 1, 4]), torch.tensor([5])]
        return prompts[:count], [torch.tensor([2, 0]), torch.tensor([1, 2, 3, 0])][:count]

    def decode(self, ids):
        return "|".join(map(str, ids[: ids.index(0)] if 0 in ids else ids)) + "\n"


def module_of(model):
    plugin = SimpleNamespace(forward_context=nullcontext)
    return SimpleNamespace(
        model=model,
        whole=None,
        training=False,
        eval=lambda: None,
        train=lambda mode: None,
        device=torch.device("cpu"),
        trainer=SimpleNamespace(precision_plugin=plugin),
    )


def test_an_answer_has_as_many_tokens_as_the_right_one(tiny_model, monkeypatch):
    monkeypatch.setattr(
        "gpt2lab.samples.generate",
        lambda *_, **__: [torch.tensor([2, 0, 7, 7]), torch.tensor([1, 2, 3, 3])],
    )
    assert answers(module_of(tiny_model), Questions(), 2) == [
        ("3|1|4\n", "2\n", "2\n"),
        ("5\n", "1|2|3|3\n", "1|2|3\n"),  # it does not end where it should
    ]


def test_a_bar_or_a_new_line_does_not_end_a_cell_of_samples(tiny_model, tmp_path):
    samples = Samples(str(tmp_path / "samples.md"), examples=2)
    trainer = SimpleNamespace(global_step=7, loggers=[], datamodule=Questions())
    samples.on_validation_end(trainer, module_of(tiny_model))
    rows = (tmp_path / "samples.md").read_text().splitlines()[4:6]
    assert [row.replace("\\|", "").count("|") for row in rows] == [5, 5]
    assert rows[0].startswith("| 3\\|1\\|4 | ")


class Text(Questions):
    has_answers = False

    def prompts(self, count):
        return [torch.tensor([1, 2])] * count


def test_text_is_continued_differently_at_each_evaluation(tiny_model, tmp_path):
    samples = Samples(str(tmp_path / "samples.md"), prompts=2, new_tokens=5)
    for step in (3, 4):
        trainer = SimpleNamespace(global_step=step, loggers=[], datamodule=Text())
        samples.on_validation_end(trainer, module_of(tiny_model))
    first, second = (tmp_path / "samples.md").read_text().split("## step ")[1:]
    assert first.count("GPT-2 goes on:") == 2
    assert first.splitlines()[1:] != second.splitlines()[1:]


def test_a_sample_longer_than_the_context_is_no_reason_to_warn(tiny_model, tmp_path):
    new_tokens = 2 * tiny_model.config.block_size
    samples = Samples(str(tmp_path / "samples.md"), prompts=1, new_tokens=new_tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = SimpleNamespace(global_step=3, loggers=[], datamodule=Text())
        samples.on_validation_end(trainer, module_of(tiny_model))


def test_no_text_can_pass_for_a_heading_of_samples():
    assert not [
        line for line in quoted("a\n## step 9", "## step 9").splitlines() if line[:1] == "#"
    ]
