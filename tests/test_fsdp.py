"""strategy=ddp and strategy=fsdp on two processes over gloo: the training of one device.

All that ranks are needed for is done once, by one pair of processes; the tests read what came out.
"""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from gpt2lab import load
from gpt2lab.checkpoint import find_checkpoint, load_checkpoint, read_manifest
from gpt2lab.config import Precision, plain
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.experiment import build_data, fit, quiet, train, with_vocabulary
from gpt2lab.exporting import export_checkpoint
from gpt2lab.fsdp import FSDPStrategy, gathered
from gpt2lab.launch import cpus, on_ranks
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.ranks import is_sharded, joined, own, own_rows
from gpt2lab.run_folder import read_json
from gpt2lab.targets import build_strategy, build_trainer
from tests.test_ranks import TINY

pytestmark = pytest.mark.skipif(cpus() < 2, reason="two ranks need two CPU cores")

# 11 ids, which two ranks cannot halve; 4 micro-batches on one device, 2 on each of two
SORT = ["data=sort", "data.num_digits=11", "micro_batch_size=2", "max_steps=3", "eval_every=3"]
# prefixes of all lengths, and 33 examples to evaluate
RAGGED = ["data=dates", "data.eval_examples=33", "optim.grad_clip=null"]
CASES = {
    "sort": [*SORT, "optim.grad_clip=0.5"],
    "ragged": [*RAGGED, "micro_batch_size=2", "max_steps=3", "eval_every=3"],
    "checkpointing": [*SORT, "optim.grad_clip=0.5", "model.activation_checkpointing=true"],
    "muon": [*SORT, "optim=muon"],
}


def trained(overrides, devices, precision=Precision.fp32):
    """Metrics of a training without a folder, its weights, and what of it this rank has."""
    settings = settings_from("train", [*TINY, *overrides, f"devices={devices}"]).settings
    quiet()
    torch.manual_seed(settings.seed)
    data = build_data(settings)
    module = GPT2LightningModule(with_vocabulary(settings, data))
    trainer, metrics = build_trainer(settings, precision, [], [], Path()), {}
    module.record = metrics.update
    start = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    trainer.fit(module, datamodule=data)
    whole = gathered(module.model) or module.model
    unmoved = [
        name
        for name, p in module.model.named_parameters()
        if own(p).numel()
        and torch.equal(own(p), start[name][own_rows(len(p))] if is_sharded(p) else start[name])
    ]
    state = [value for entry in trainer.optimizers[0].state.values() for value in entry.values()]
    elements = sum(own(tensor).numel() for tensor in [*module.parameters(), *state])
    weights = {name: own(tensor.detach()) for name, tensor in whole.state_dict().items()}
    return metrics, weights, {"elements": elements, "unmoved": joined(unmoved)}


class Calls:
    """How often a collective of torch's is asked for."""

    def __init__(self, name):
        self.count, self.name, self.works = 0, name, getattr(dist, name)

    def __enter__(self):
        setattr(dist, self.name, self)
        return self

    def __exit__(self, *_):
        setattr(dist, self.name, self.works)

    def __call__(self, *args, **kwargs):
        self.count += 1
        return self.works(*args, **kwargs)


def exchanges_of_fsdp():
    name = "reduce_scatter_single"  # which torch 2.11 calls reduce_scatter_tensor
    with Calls(name if hasattr(dist, name) else "reduce_scatter_tensor") as calls:
        trained([*CASES["sort"], "strategy=fsdp"], 2)
    return calls.count


def exchanges_of_ddp():
    """Of each step: buckets handed over for exchange, and how many of them before the backward
    pass had come to the first layer."""
    steps, ready = [], []

    class Watched(GPT2LightningModule):
        def on_train_start(self):
            super().on_train_start()
            self.trainer.strategy.model.register_comm_hook(None, hook)
            first = self.model.transformer.h[0].ln_1.weight
            first.register_post_accumulate_grad_hook(lambda _: steps and ready.append(steps[-1]))

        def training_step(self, batch, batch_idx):
            steps.append(0)
            super().training_step(batch, batch_idx)

    def hook(_, bucket):
        steps[-1] += 1
        future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return future.then(lambda done: done.value()[0].div_(2))

    overrides = [*CASES["sort"], "strategy=ddp", "+strategy.bucket_cap_mb=0.1", "devices=2"]
    settings = settings_from("train", [*TINY, *overrides]).settings
    data = build_data(settings)
    module = Watched(with_vocabulary(settings, data))
    module.record = dict
    build_trainer(settings, Precision.fp32, [], [], Path()).fit(module, datamodule=data)
    return steps, ready


def leg(folder, rank, strategy, steps, checkpoint=None):
    """Train in a run folder, from its beginning or from a checkpoint of it."""
    folder.mkdir(exist_ok=True)
    settings = settings_from("train", run_of(folder, steps, f"strategy={strategy}", "devices=2"))
    train(settings.settings, plain(settings.settings), folder, checkpoint, None, rank=rank)


def run_of(folder, steps, *more):
    plain_run = [
        "schedule=constant",
        "callbacks.curves=null",
        "callbacks.progress=null",
        "checkpoint_every=2",
    ]
    return [*TINY, *SORT, *plain_run, f"max_steps={steps}", f"name={folder.name}", *more]


def at(run, step):
    return run / f"checkpoints/step-{step:06d}.ckpt"


def resumed(half, folder, rank, strategy):
    if rank == 0:
        shutil.copytree(half, folder)
    dist.barrier()
    leg(folder, rank, strategy, 4, at(folder, 2))


def everything(folder, rank):
    found = {}
    for case, overrides in CASES.items():
        found[case] = trained([*overrides, "strategy=fsdp"], 2)
    for strategy in ("ddp", "fsdp"):
        both = [*SORT, "optim.grad_clip=null", f"strategy={strategy}"]
        found[strategy, "bf16"] = trained(both, 2, Precision.bf16)
    found["exchanges"] = {"fsdp": exchanges_of_fsdp(), "ddp": exchanges_of_ddp()}
    leg(folder / "straight", rank, "fsdp", 4)
    for strategy in ("fsdp", "ddp"):
        leg(folder / f"half-{strategy}", rank, strategy, 2)
    resumed(folder / "half-fsdp", folder / "fsdp-fsdp", rank, "fsdp")
    resumed(folder / "half-fsdp", folder / "fsdp-ddp", rank, "ddp")
    resumed(folder / "half-ddp", folder / "ddp-fsdp", rank, "fsdp")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(folder):
    return on_ranks(2, everything, folder)


@pytest.mark.parametrize("case", ["sort", "ragged", "checkpointing"])
def test_shared_out_a_training_is_that_of_one_device(found, case):
    metrics, weights, _ = found[case]
    wanted_metrics, wanted, _ = trained(CASES[case], 1)
    assert metrics.keys() == wanted_metrics.keys()
    for name, value in wanted_metrics.items():
        # fp32, summed in another order
        assert math.isclose(metrics[name], value, rel_tol=2e-6, abs_tol=1e-7), name
    for name, tensor in wanted.items():
        # Adam makes steps of the learning rate of gradients that are rounding alone.
        assert (weights[name] - tensor).norm() < 1e-4 * tensor.norm().clamp(min=0.1), name


def test_muon_orthogonalises_whole_matrices(found):
    metrics, weights, _ = found["muon"]
    wanted_metrics, wanted, _ = trained(CASES["muon"], 1)
    # It rounds to bf16, so that a difference in the last bit of fp32 may become one of 1/256.
    assert math.isclose(metrics["val/loss"], wanted_metrics["val/loss"], rel_tol=1e-4)
    name = "transformer.h.0.mlp.c_fc.weight"
    assert (weights[name] - wanted[name]).norm() < 1e-2 * wanted[name].norm()


def test_in_bf16_both_strategies_train_alike_bit_for_bit(found):
    # Unclipped: norms of the same gradient that are summed in another order differ in the last bit.
    (metrics, weights, _), (wanted, others, _) = found["fsdp", "bf16"], found["ddp", "bf16"]
    for name in ("train/loss", "val/loss"):
        assert math.isclose(metrics[name], wanted[name], rel_tol=1e-6)  # a sum in fp32
    assert all(torch.equal(tensor, weights[name]) for name, tensor in others.items())
    assert metrics["val/loss"] != found["sort"][0]["val/loss"]


def test_each_rank_has_about_half_of_weights_and_optimizer_state(found):
    _, weights, mine = found["sort"]
    whole = 3 * sum(tensor.numel() for tensor in weights.values())
    assert 0.49 * whole < mine["elements"] < 0.51 * whole


def test_every_row_of_every_tensor_is_trained_whoever_has_it(found):
    _, weights, mine = found["sort"]
    assert mine["unmoved"] == []
    settings = settings_from("train", [*TINY, *CASES["sort"]]).settings
    torch.manual_seed(settings.seed)
    start = GPT2LightningModule(with_vocabulary(settings, build_data(settings)))
    name = "transformer.wte.weight"
    moved = (weights[name] - start.model.state_dict()[name]).abs().amax(1)
    assert len(moved) == 11
    assert moved.min() > 0


def test_gradients_are_exchanged_once_a_step_and_while_the_backward_pass_goes_on(found):
    blocks = 3
    assert found["exchanges"]["fsdp"] == 3 * (blocks + 2)  # the norms and all the rest
    steps, ready = found["exchanges"]["ddp"]
    assert len(steps) == 3
    assert steps[1] == steps[2] > 1  # in the first step, DDP finds out which buckets suit
    # Two micro-batches: at the first one's first layer nothing was on its way yet, at the second's
    # all but the last buckets were.
    assert ready[0::2] == [0, 0, 0]
    assert all(0 < early < steps[1] for early in ready[3::2])


def states(path):
    content = load_checkpoint(path)
    return content["state_dict"], content["optimizer_states"][0]["state"]


def distance(a, b):
    """The largest difference between two states."""
    (weights, state), (others, other) = states(a), states(b)
    assert weights.keys() == others.keys()
    pairs = [(weights[name], others[name]) for name in weights]
    pairs += [(state[n][name], other[n][name]) for n in other for name in other[n]]
    assert all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)
    return max((x.double() - y.double()).abs().max().item() for x, y in pairs)


def test_a_sharded_checkpoint_is_a_folder_of_half_the_state_a_rank(found, folder):
    path = at(folder / "straight", 4)
    names = ["common.ckpt", "index.json", "rank-00000-of-00002.ckpt", "rank-00001-of-00002.ckpt"]
    assert sorted(p.name for p in path.iterdir()) == names
    first, second = (torch.load(path / name, weights_only=True) for name in names[2:])
    sizes = [sum(t.numel() for t in part["state_dict"].values()) for part in (first, second)]
    assert sizes[1] < sizes[0] < 1.05 * sizes[1]
    entries = read_manifest(path.parent).checkpoints
    assert [entry.file for entry in entries] == ["step-000004.ckpt", "step-000002.ckpt"]
    assert not [*path.parent.glob(".*")]


def test_a_resume_on_as_many_ranks_is_the_straight_run_bit_for_bit(found, folder):
    assert distance(at(folder / "straight", 4), at(folder / "fsdp-fsdp", 4)) == 0


@pytest.mark.parametrize("run", ["fsdp-ddp", "ddp-fsdp"])
def test_a_run_goes_on_under_the_other_strategy(found, folder, run):
    # four steps in fp32, in which gradients are summed in another order
    assert distance(at(folder / "straight", 4), at(folder / run, 4)) < 1e-4
    kind = run.partition("-")[2]
    assert (at(folder / run, 4)).is_dir() == (kind == "fsdp")


def test_a_run_goes_on_on_one_device(found, folder):
    shutil.copytree(folder / "half-fsdp", folder / "fsdp-alone")
    fit([*run_of(folder / "fsdp-alone", 4), f"runs_dir={folder}", "resume=last"])
    assert (at(folder / "fsdp-alone", 4)).is_file()
    assert distance(at(folder / "straight", 4), at(folder / "fsdp-alone", 4)) < 1e-4


def test_a_damaged_shard_is_noticed_and_the_one_before_it_taken(found, folder):
    shutil.copytree(folder / "straight", folder / "damaged")
    damaged = at(folder / "damaged", 4)
    file = damaged / "rank-00001-of-00002.ckpt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    for content, what in ((data, "sha256"), (data[:-1], "bytes"), (None, "has no rank-00001")):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.warns(UserWarning, match=f"{what}.*; going on from step-000002"):
            assert find_checkpoint(folder / "damaged", "last") == at(folder / "damaged", 2)


def test_it_is_loaded_sampled_and_evaluated_as_any_other(found, folder):
    path = at(folder / "straight", 4)
    model = load(path, precision="fp32")
    weights, _ = states(path)
    assert torch.equal(model.transformer.wpe.weight, weights["model.transformer.wpe.weight"])
    assert load(folder / "straight").config == model.config


def test_it_becomes_one_file_from_which_the_run_goes_on(found, folder, tmp_path):
    shutil.copytree(folder / "half-fsdp", folder / "in-one")
    one = folder / "in-one" / "checkpoints" / "one.ckpt"
    done = export_checkpoint(at(folder / "in-one", 2), one)
    assert done.files == {"one.ckpt": one.stat().st_size}
    assert distance(one, at(folder / "in-one", 2)) == 0
    with pytest.raises(ConfigError, match=r"one\.ckpt is there; choose another file"):
        export_checkpoint(at(folder / "in-one", 2), one)
    shutil.rmtree(at(folder / "in-one", 2))
    fit([*run_of(folder / "in-one", 4), f"runs_dir={folder}", f"resume={one}"])
    assert distance(at(folder / "in-one", 4), at(folder / "fsdp-alone", 4)) == 0


def test_weights_of_it_begin_another_run(found, folder):
    more = ["name=begun", f"runs_dir={folder}", f"init_from={folder / 'straight'}"]
    result = fit([*run_of(folder / "begun", 1), *more])
    receipt = read_json(result.folder / "receipt.json")
    assert receipt["init_from"]["file"] == str(at(folder / "straight", 4))


@pytest.mark.slow
def test_ranks_that_have_no_row_of_a_tensor_train_as_one_device_does():
    """Of 5 ids three ranks have 2 2 1, of 4 they have 2 2 and none."""
    for num_digits in (5, 4):
        overrides = ["data=sort", f"data.num_digits={num_digits}", "max_steps=3", "eval_every=3"]
        overrides += ["batch_size=6", "optim.grad_clip=0.5"]
        metrics, weights, mine = on_ranks(3, trained_on_three, overrides)
        wanted_metrics, wanted, _ = trained(overrides, 1)
        assert mine["unmoved"] == []
        assert math.isclose(metrics["val/loss"], wanted_metrics["val/loss"], rel_tol=1e-6)
        for name, tensor in wanted.items():
            assert (weights[name] - tensor).norm() < 1e-4 * tensor.norm().clamp(min=0.1), name


def trained_on_three(overrides, rank):
    return trained([*overrides, "strategy=fsdp"], 3)


def test_one_device_needs_no_strategy():
    settings = settings_from("train", ["strategy=fsdp"]).settings
    assert build_trainer(settings, Precision.fp32, [], [], Path()).strategy.world_size == 1
    assert build_strategy(settings) == "auto"
    assert isinstance(build_strategy(replace(settings, devices=2)), FSDPStrategy)


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp"])
def test_each_strategy_may_be_named_for_one_device(strategy):
    settings = settings_from("train", [f"strategy={strategy}"]).settings
    assert build_strategy(settings) == "auto"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_wrong_argument_of_a_strategy_is_refused_on_one_device_too(strategy):
    settings = settings_from("train", [f"strategy={strategy}", "+strategy.foo=1"]).settings
    for devices in (1, 2):
        with pytest.raises(ConfigError, match=r"strategy: .* argument 'foo'; see the arguments of"):
            build_strategy(replace(settings, devices=devices))
