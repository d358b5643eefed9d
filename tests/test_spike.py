"""Steps whose loss or gradient is not finite: nothing changes, and it is said why."""

import json
import math
import os
import re
import subprocess
import sys
import threading
from copy import deepcopy

import pytest
import torch

from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
from gpt2lab.errors import RunError
from gpt2lab.experiment import fit
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.metrics import read_metrics
from gpt2lab.model import GPT2

SHORT = [
    "model=nano",
    "data=sort",
    "batch_size=8",
    "max_steps=4",
    "eval_every=2",
    "checkpoint_every=2",
    "trainer.log_every_n_steps=1",
    "stop_at=null",
    "model.dropout=0.1",
    "schedule.decay_steps=4",
    "callbacks.samples=null",
    "callbacks.curves=null",
]
NAN, INF = math.nan, math.inf


@pytest.fixture
def short(tmp_path):
    """Train a few steps with overrides on top."""

    def run(*overrides):
        return fit([*SHORT, f"runs_dir={tmp_path / 'runs'}", *overrides])

    return run


@pytest.fixture
def before_each_step(monkeypatch):
    """Has something done to the module before each step, counted from 1."""

    def install(action):
        make_step = GPT2LightningModule.training_step

        def training_step(module, batch, batch_idx):
            action(module, module.trainer.global_step + 1)
            make_step(module, batch, batch_idx)

        monkeypatch.setattr(GPT2LightningModule, "training_step", training_step)

    return install


@pytest.fixture
def poison(before_each_step):
    """Multiplies the loss of some steps, of all their micro-batches or of one, by something."""
    wanted = {}

    def action(module, step):
        module.model.__dict__.pop("loss", None)
        if step in wanted["steps"]:
            parts = iter(range(100))

            def loss(*args):
                right = GPT2.loss(module.model, *args)
                return right * wanted["factor"] if wanted["part"] in (None, next(parts)) else right

            module.model.loss = loss

    def install(*steps, factor=NAN, part=None):
        if not wanted:
            before_each_step(action)
        wanted.update(steps=steps, factor=factor, part=part)

    return install


@pytest.fixture
def poison_gradient(before_each_step):
    """Makes the gradient of one parameter something in one step, and leaves its loss alone."""

    def install(at, value, name="transformer.h.1.mlp.c_fc.weight"):
        def action(module, step):
            if step == at:
                parameter = module.model.get_parameter(name)
                parameter.register_hook(lambda gradient: torch.full_like(gradient, value))

        before_each_step(action)

    return install


@pytest.fixture
def states(before_each_step):
    """By step: the weights and the optimizer's state just before it, and the objects themselves."""
    seen = {}

    def action(module, step):
        optimizer = module.trainer.optimizers[0]
        seen[step] = deepcopy((module.model.state_dict(), optimizer.state_dict()["state"]))
        seen["now"] = module.model.state_dict(), optimizer.state_dict()["state"]

    before_each_step(action)
    return seen


def equal(one, other):
    """Whether two nests of dicts hold the same tensors, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return all(map(equal, one, other))
    return torch.equal(one, other)


def spike(tmp_path, name="a"):
    def refuse(constant):
        raise AssertionError(f"{constant} is not strict JSON")

    return json.loads((tmp_path / "runs" / name / "spike.json").read_text(), parse_constant=refuse)


CLOCKS = ("train/tokens_per_second", "train/mfu")


def rows(result):
    """metrics.csv without the speed."""
    found = read_metrics(result.folder / "metrics.csv")
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in found]


def last(result):
    return load_checkpoint(find_checkpoint(result.folder, "last"))


@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("factor", "part", "what"),
    [(NAN, None, "nan"), (INF, None, "inf"), (-INF, None, "-inf"), (NAN, 1, "nan")],
)
def test_a_loss_that_is_not_finite_changes_nothing(
    short, states, poison, tmp_path, optim, factor, part, what
):
    poison(3, factor=factor, part=part)
    micro = [] if part is None else ["micro_batch_size=4"]
    with pytest.raises(RunError, match=f"^step 3: the loss is {what}; nothing was changed"):
        short("name=a", f"optim={optim}", *micro)
    assert equal(states["now"], states[3])
    assert not equal(states[3], states[2])
    assert (spike(tmp_path)["step"], spike(tmp_path)["loss"]) == (3, what)


@pytest.mark.parametrize(("value", "what"), [(NAN, "nan"), (INF, "inf"), (-INF, "inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(
    short, states, poison_gradient, tmp_path, value, what
):
    poison_gradient(3, value)
    with pytest.raises(RunError, match=f"^step 3: the gradient norm is {what}; nothing was"):
        short("name=a")
    assert equal(states["now"], states[3])
    found = spike(tmp_path)
    assert found["gradient_norm"] == what
    layers = found["layers"]
    assert list(layers) == ["wte", "wpe", "h.0", "h.1", "h.2", "ln_f"]
    assert layers["h.1"]["gradient"] == what
    for name, layer in layers.items():
        own = [v for k, v in states[3][0].items() if k.startswith(f"transformer.{name}.")]
        norm = torch.cat([v.flatten() for v in own]).double().norm()
        assert layer["weight"] == pytest.approx(float(norm), rel=1e-12)
        assert name == "h.1" or 0 < layer["gradient"] < 100


def test_the_gradients_of_the_report_are_not_clipped(short, poison_gradient, tmp_path):
    # The squares of 3e20 are beyond fp32, its norm is not.
    poison_gradient(3, 3e20, "transformer.ln_f.weight")
    with pytest.raises(RunError, match="the gradient norm is inf"):
        short("name=a", "optim.grad_clip=0.1")
    layers = spike(tmp_path)["layers"]
    assert layers["ln_f"]["gradient"] == pytest.approx(3e20 * math.sqrt(48))
    assert layers["wte"]["gradient"] > 0.1


def test_the_bad_samples_are_those_with_the_bad_token(short, before_each_step, tmp_path):
    def action(module, step):
        if step == 3:

            def poisoned(embedding, args, out):
                return out.masked_fill((args[0] == 7)[..., None], NAN)

            module.model.transformer.wte.register_forward_hook(poisoned)

    before_each_step(action)
    with pytest.raises(RunError, match="step 3: the loss is nan"):
        short("name=a", "data.num_digits=30", "data.length=4", "micro_batch_size=3", "batch_size=9")
    samples = spike(tmp_path)["samples"]
    assert [sample["id"] for sample in samples] == list(range(18, 27))  # of the third batch of 9
    bad = [sample["loss"] == "nan" for sample in samples]
    assert bad == ["7" in sample["text"].split() for sample in samples]
    assert 0 < sum(bad) < 9
    assert all(3 < s["loss"] < 4 for s in samples if s["loss"] != "nan")  # ln 30 = 3.4
    for sample in samples:
        numbers = [int(word) for word in sample["text"].split()]
        assert sorted(numbers[:4]) == numbers[4:]


@pytest.fixture
def rhyme(tmp_path):
    (tmp_path / "rhymes").mkdir()
    for i in range(40):
        text = f"{i} caught a fish alive. "
        (tmp_path / "rhymes" / f"{i}.txt").write_text(text * (1 + i % 3))
    return [
        "data=text",
        f"data.path={tmp_path / 'rhymes'}",
        f"data_dir={tmp_path / 'data'}",
        "data.tokenizer=char",
        "data.document_mask=true",
        "model.block_size=32",
    ]


@pytest.fixture
def pairs(tmp_path):
    lines = [{"source": f"{i}+{i}", "target": str(2 * i)} for i in range(60)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return ["data=pairs", f"data.path={path}", "data.tokenizer=char", "data.context=24"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["sort", "rhyme", "pairs", "packed"])
def test_the_rows_losses_are_those_of_the_step(
    short, before_each_step, poison_gradient, tmp_path, request, precision, kind
):
    data = {"sort": [], "packed": ["data.packed=true"]}.get(kind, [])
    if kind != "sort":
        data = [*request.getfixturevalue("pairs" if kind == "packed" else kind), *data]
    modules = []
    before_each_step(lambda module, step: modules.append(module))
    poison_gradient(3, NAN)
    with pytest.raises(RunError, match="the gradient norm is nan"):
        short("name=a", "micro_batch_size=3", "batch_size=6", f"precision={precision}", *data)
    datamodule = modules[0].trainer.datamodule
    batch, found = datamodule.train[2], spike(tmp_path)
    counted = (batch.targets != -100).sum(1).tolist()
    total = sum(s["loss"] * n for s, n in zip(found["samples"], counted, strict=True))
    # Dropout and number format are those of the step; only the sums have another order.
    assert total / sum(counted) == pytest.approx(found["loss"], rel=1e-5)
    assert [s["id"] for s in found["samples"]] == datamodule.sample_ids(2)
    for sample in found["samples"]:
        if kind == "rhyme":
            whole = "".join(
                path.read_text() + "<|endoftext|>" for path in (tmp_path / "rhymes").iterdir()
            )
            assert len(sample["text"].replace("<|endoftext|>", "|")) == 33
            for part in sample["text"].split("<|endoftext|>"):
                assert part in whole
        elif kind != "sort":
            lines = sample["id"] if kind == "packed" else [sample["id"]]
            wanted = [f"{i - 1}+{i - 1}\n{2 * (i - 1)}<|endoftext|>" for i in lines]
            assert sample["text"] == "".join(wanted)  # and no padding


def test_the_error_says_what_to_do(short, poison, tmp_path):
    folder = tmp_path / "runs" / "a"
    poison(1)
    with pytest.raises(RunError) as error:
        short("name=a")
    assert str(error.value) == (
        "step 1: the loss is nan; nothing was changed by it, there is no checkpoint yet, and "
        f"{folder}/spike.json says which samples and layers; start anew with a lower optim.lr, or "
        "leave such a step out with skip_nonfinite=1"
    )
    folder = tmp_path / "runs" / "b"
    poison(3)
    with pytest.raises(RunError) as error:
        short("name=b")
    assert str(error.value) == (
        "step 3: the loss is nan; nothing was changed by it, the last good checkpoint is "
        f"{folder}/checkpoints/step-000002.ckpt, and {folder}/spike.json says which samples and "
        "layers; go on with name=b resume=last and a lower optim.lr, or leave such a step out with "
        "skip_nonfinite=1"
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["steps"], summary["stop_reason"]) == (2, "step 3: the loss is nan")
    assert "step 3: the loss is nan" in (folder / "train.log").read_text()
    assert [row["step"] for row in read_metrics(folder / "metrics.csv")] == ["1", "2"]


def test_a_run_goes_on_from_before_the_bad_step(short, poison):
    straight = short("name=a")
    poison(3)
    with pytest.raises(RunError):
        short("name=b")
    poison()  # whatever it was, it has passed
    resumed = short("name=b", "resume=last")
    assert rows(resumed) == rows(straight)
    assert equal(last(resumed)["state_dict"], last(straight)["state_dict"])


def test_a_report_that_cannot_be_written_hides_nothing(short, before_each_step, poison, tmp_path):
    poison(1)
    folder = tmp_path / "runs" / "a"
    before_each_step(lambda module, step: (folder / "spike.json" / "full").mkdir(parents=True))
    with pytest.raises(RunError, match=r"loss is nan; .*spike\.json cannot be written \(.+\); st"):
        short("name=a")


def test_one_line_and_code_1_on_the_command_line(tmp_path):
    # With such a rate the first step makes weights whose products are beyond fp32.
    arguments = [*SHORT, "optim.lr=1e30", "name=a", "precision=fp32"]
    done = subprocess.run(
        [sys.executable, "-m", "gpt2lab.train", *arguments],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert re.match(r"error: step \d: the (loss|gradient norm) is \w+; nothing was changed", error)
    assert "Traceback" not in done.stderr
    assert spike(tmp_path)["samples"]


@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_a_step_that_is_left_out_is_counted_and_changes_nothing(short, states, poison, optim):
    poison(1, 3)
    with pytest.warns(UserWarning, match="left out") as warned:
        result = short("name=a", "skip_nonfinite=2", f"optim={optim}")
    assert [str(w.message) for w in warned if "left out" in str(w.message)] == [
        "step 1: the loss is nan; it was left out, 1 of skip_nonfinite=2",
        "step 3: the loss is nan; it was left out, 2 of skip_nonfinite=2",
    ]
    assert "WARNING step 3: the loss is nan" in (result.folder / "train.log").read_text()
    assert equal(states[2], states[1])
    assert not equal(states[3], states[2])
    assert equal(states[4], states[3])
    assert result.summary["steps"] == 4
    assert last(result)["skipped_steps"] == 2
    found = rows(result)
    assert [bool(row["train/loss"]) for row in found] == [False, True, False, True]
    assert [bool(row["train/grad_norm"]) for row in found] == [False, True, False, True]
    assert all(row["train/lr"] for row in found)
    assert not (result.folder / "spike.json").exists()


@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [2, 3])
@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_resume_around_a_step_left_out_is_the_straight_run(short, poison, optim, stop):
    poison(3)
    more = ["eval_every=1", "trainer.log_every_n_steps=2"]
    start = [*more, "skip_nonfinite=1", f"optim={optim}"]
    straight = short("name=a", *start)
    short("name=b", *start, f"max_steps={stop}")
    resumed = short("name=b", *more, "resume=last")
    assert rows(resumed) == rows(straight)
    for part in ("state_dict", "skipped_steps", "train_losses", "global_step"):
        one, other = last(resumed)[part], last(straight)[part]
        assert equal(one, other) if part == "state_dict" else one == other
    one, other = (last(run)["optimizer_states"][0]["state"] for run in (resumed, straight))
    assert equal(one, other)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_the_bound_holds_over_resumes(short, poison):
    poison(1, 3, 4)
    short("name=a", "skip_nonfinite=2", "max_steps=2")
    with pytest.raises(
        RunError, match=r"^step 4: .* or leave one more such step out with skip_nonfinite=3$"
    ):
        short("name=a", "resume=last", "max_steps=4")
    done = short("name=a", "resume=last", "max_steps=4", "skip_nonfinite=3")
    assert last(done)["skipped_steps"] == 3


@pytest.mark.parametrize("stop", [2, 4, 5])
def test_a_resume_within_a_logging_interval_writes_the_straight_runs_rows(short, stop):
    more = ["trainer.log_every_n_steps=3", "eval_every=1", "schedule.decay_steps=6"]
    straight = short("name=a", *more, "max_steps=6")
    short("name=b", *more, f"max_steps={stop}")
    resumed = short("name=b", *more, "max_steps=6", "resume=last")
    assert rows(resumed) == rows(straight)
    assert [row["step"] for row in rows(straight) if row["train/loss"]] == ["3", "6"]


def test_train_loss_is_the_mean_of_the_steps_since_the_last_row(short):
    each = rows(short("name=a"))
    pair = rows(short("name=b", "trainer.log_every_n_steps=2"))
    losses = [float(row["train/loss"]) for row in each]
    means = [float(row["train/loss"]) for row in pair]
    assert means == [sum(losses[:2]) / 2, sum(losses[2:]) / 2]


def test_the_lock_is_held_while_a_step_changes_the_weights(short, before_each_step):
    found = []

    def is_free(module):
        """Whether another thread could take the lock."""

        def take():
            free = module.update_lock.acquire(blocking=False)
            found.append(free)
            if free:
                module.update_lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()

    def action(module, step):
        is_free(module)
        if step == 1:
            optimizer = module.trainer.optimizers[0]
            optimizer.register_step_pre_hook(lambda *_: is_free(module))
            optimizer.register_step_post_hook(lambda *_: is_free(module))

    before_each_step(action)
    short("name=a", "max_steps=2")
    assert found == [True, False, False] * 2


def test_a_validation_loss_that_is_not_finite_ends_nothing(short, monkeypatch):
    scores = GPT2.scores

    def with_one_nan(model, batch):
        nll, right = scores(model, batch)
        nll[0, -1] = NAN
        return nll, right

    monkeypatch.setattr(GPT2, "scores", with_one_nan)
    result = short("name=a")
    assert result.summary["steps"] == 4
    assert math.isnan(result.summary["last"]["val/loss"])  # and it is not left out of the mean


@pytest.mark.filterwarnings("ignore:Error detected in MulBackward0")
def test_debugging_names_the_operation_that_made_it(short, poison):
    poison(3)
    with pytest.raises(RuntimeError, match="'MulBackward0' returned nan values"):
        short("name=a", "trainer=debug")
