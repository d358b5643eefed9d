"""How a step is split, over micro-batches and over ranks, changes neither its gradient nor what an
evaluation finds. Ranks are processes over gloo."""

import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from lightning import Callback

from gpt2lab.batch import IGNORE
from gpt2lab.config import Precision
from gpt2lab.config.compose import settings_from
from gpt2lab.experiment import build_data, quiet, with_vocabulary
from gpt2lab.launch import cpus, on_ranks
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.targets import build_trainer

pytestmark = pytest.mark.skipif(cpus() < 2, reason="two ranks need two CPU cores")

TINY = [
    "model=nano",
    "trainer=cpu",
    "precision=fp32",
    "model.dropout=0",
    "batch_size=8",
    "stop_at=null",
    "optim.lr=1e-2",
    "optim.grad_clip=null",
    "schedule=constant",
    "schedule.warmup_steps=0",
    "eval_every=1000",
]
# Rounding of sums in another order: of numbers with 24 bits, and with 53.
LARGEST_ERROR = {torch.float32: 1e-6, torch.float64: 1e-10}
GRID = list(product(("web", "ragged"), LARGEST_ERROR, (1, 2, 4)))
"""Data, number format, and how many micro-batches a rank makes of its share of a step."""
STRATEGIES = {
    "ddp": "lightning.pytorch.strategies.DDPStrategy",
    "fsdp": "gpt2lab.fsdp.FSDPStrategy",
}
EVALUATIONS = {
    "web": ("web", 209),  # tokens: six windows and a half
    "one window": ("web", 20),  # for ranks that are more than that
    "ragged": ("ragged", None),  # 31 rows
}


def overrides_for(kind, folder):
    if kind == "web":  # in GPT-2's vocabulary: the loss of a whole batch goes in chunks
        return [
            "data=text",
            f"data.path={folder / 'web.jsonl'}",
            f"data_dir={folder / 'prepared'}",
            "data.num_processes=1",
            "model.block_size=32",
        ]
    return [
        "data=pairs",
        f"data.path={folder / 'pairs.jsonl'}",
        f"data.val_path={folder / 'held_out.jsonl'}",
        "data.tokenizer=char",
        "data.context=48",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents, and pairs whose sources and targets have many lengths."""
    folder = tmp_path_factory.mktemp("data")
    words = ["ships", "sail", "past", "the", "quiet", "harbour", "gulls", "circle", "grey", "water"]
    texts = [" ".join(words[i % 7 :] * (1 + i % 5)) for i in range(90)]
    # five of seven targets end alike, so that some are answered right, and some cannot be
    repeats = [3, 1, 1, 1, 2, 1, 1]
    pairs = [{"source": "ab" * (1 + i % 11), "target": "cde" * repeats[i % 7]} for i in range(64)]
    files = {
        "web": [{"text": text} for text in texts],
        "pairs": pairs,
        "held_out": [{"source": "b" + p["source"], "target": p["target"]} for p in pairs[:31]],
    }
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for kind, steps in {"web": 5, "ragged": 80}.items():  # what is evaluated has learned something
        module, _ = trained(folder, kind, max_steps=steps)
        torch.save(module.state_dict(), folder / f"{kind}.pt")
    return folder


class Gradients(Callback):
    """Keeps the gradient of each tensor, of the whole step, as the optimizer is given it."""

    def __init__(self):
        self.found = {}

    def on_before_optimizer_step(self, trainer, module, optimizer):
        for name, parameter in module.named_parameters():
            if (gradient := parameter.grad) is not None:
                whole = getattr(gradient, "full_tensor", lambda gradient=gradient: gradient)
                self.found[name] = whole().clone()


@cache
def settings_for(kind, folder):
    return settings_from("train", [*TINY, *overrides_for(kind, folder)]).settings


def build(folder, kind, dtype=torch.float32, eval_tokens=None, **changed):
    """A module as it begins, its trainer and data, and where gradients and metrics will be."""
    settings = replace(settings_for(kind, folder), **changed)
    if eval_tokens:
        settings = replace(settings, data=replace(settings.data, eval_tokens=eval_tokens))
    quiet()
    torch.manual_seed(settings.seed)
    data = build_data(settings)
    module = GPT2LightningModule(with_vocabulary(settings, data)).to(dtype)
    gradients, metrics = Gradients(), {}
    module.record = metrics.update
    trainer = build_trainer(settings, Precision.fp32, [gradients], [], Path())
    return module, trainer, data, gradients.found, metrics


def trained(folder, kind, dtype=torch.float32, **changed):
    module, trainer, data, gradients, _ = build(folder, kind, dtype, **changed)
    trainer.limit_val_batches = 0
    trainer.fit(module, datamodule=data)
    return module, gradients


def gradients_of(folder, kind, dtype, micro_batches, *, devices=1, strategy=None):
    """Of one step of 8 rows, by tensor."""
    rows = 8 // devices // micro_batches
    node = {"_target_": STRATEGIES[strategy]} if strategy else {}
    split = {"micro_batch_size": rows, "devices": devices, "strategy": node}
    return trained(folder, kind, dtype, max_steps=1, **split)[1]


def evaluated(folder, devices=1):
    """The metrics of each evaluation."""
    found = {}
    for name, (kind, eval_tokens) in EVALUATIONS.items():
        module, trainer, data, _, metrics = build(
            folder, kind, eval_tokens=eval_tokens, devices=devices
        )
        module.load_state_dict(torch.load(folder / f"{kind}.pt", weights_only=True))
        trainer.validate(module, datamodule=data, verbose=False)
        found[name] = metrics
    return found


def on_two_ranks(folder, rank):
    cells = product(STRATEGIES, GRID)
    gradients = {
        (strategy, *cell): gradients_of(folder, *cell, devices=2, strategy=strategy)
        for strategy, cell in cells
    }
    return gradients, evaluated(folder, devices=2)


def on_three_ranks(folder, rank):
    return evaluated(folder, devices=3)


@pytest.fixture(scope="module")
def both(folder):
    """What two ranks find, in one launch: it takes longer than all that they do."""
    return on_ranks(2, on_two_ranks, folder)


def assert_same_gradients(found, wanted, largest_error):
    """Each tensor's, by the 2-norm of the difference over its own."""
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        assert error < largest_error, name


def assert_same_metrics(found, wanted):
    assert found.keys() == wanted.keys()
    for name, metrics in wanted.items():
        # fp32 sums of a few hundred losses, in another order
        assert found[name] == pytest.approx(metrics, rel=1e-6), name


def test_micro_batches_and_ranks_do_not_change_the_gradient(folder, both):
    for kind, dtype in product(("web", "ragged"), LARGEST_ERROR):
        whole = gradients_of(folder, kind, dtype, 1)
        for micro_batches in (2, 4):
            found = gradients_of(folder, kind, dtype, micro_batches)
            assert_same_gradients(found, whole, LARGEST_ERROR[dtype])
        for strategy, micro_batches in product(STRATEGIES, (1, 2, 4)):
            found = both[0][strategy, kind, dtype, micro_batches]
            assert_same_gradients(found, whole, LARGEST_ERROR[dtype])


def test_rows_that_count_different_numbers_of_targets_are_in_each_part(folder):
    """Else a mean of means would be right as well."""
    _, _, data, _, _ = build(folder, "ragged")
    counted = (data.train[0].targets != IGNORE).sum(1)  # of each of 8 rows
    for parts in (2, 4, 8):
        assert len(set(counted.reshape(parts, -1).sum(1).tolist())) > 1


def test_an_evaluation_finds_the_same_on_two_ranks(folder, both):
    alone = evaluated(folder)
    assert alone["web"].keys() >= {"val/loss", "val/perplexity", "val/bits_per_byte"}
    assert 0 < alone["ragged"]["val/exact_match"] < 1
    assert 0 < alone["web"]["val/token_accuracy"] < 1
    assert_same_metrics(both[1], alone)


@pytest.mark.slow
def test_an_evaluation_finds_the_same_on_three_ranks(folder):
    assert_same_metrics(on_ranks(3, on_three_ranks, folder), evaluated(folder))
