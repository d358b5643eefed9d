"""Whole trainings of a few steps, in this process."""

import json
import sys
import warnings

import pytest
import torch
from omegaconf import OmegaConf

from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
from gpt2lab.config import Precision, TrainConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import CheckpointError, ConfigError, DataError
from gpt2lab.experiment import choose_precision, doubts, fit
from gpt2lab.metrics import read_metrics
from gpt2lab.targets import resolve_target

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
]


@pytest.fixture
def short(tmp_path):
    """Train a few steps with overrides on top; `resume` goes on with a run."""

    def run(*overrides):
        return fit([*SHORT, f"runs_dir={tmp_path / 'runs'}", *overrides])

    return run


def resume(run, *overrides):
    where = [f"runs_dir={run.folder.parent}", f"name={run.folder.name}"]
    return fit([*where, "trainer.log_every_n_steps=1", *overrides])


def weights(result):
    return load_checkpoint(find_checkpoint(result.folder, "last"))["state_dict"]


def losses(result):
    rows = read_metrics(result.folder / "metrics.csv")
    return [(row["step"], row["train/loss"], row["val/loss"]) for row in rows]


def test_a_run_folder_says_all_about_the_run(short, capsys):
    result = short("name=a")
    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "config.yaml",
        "receipt.json",
        "metrics.csv",
        "summary.json",
        "train.log",
        "curves.png",
        "samples.md",
        "checkpoints",
    }
    config = OmegaConf.load(result.folder / "config.yaml")
    assert config.model.n_layer == 3
    assert config.model.block_size == 11
    receipt = json.loads((result.folder / "receipt.json").read_text())
    assert receipt["seed"] == 0
    assert receipt["parameters"] == 85_584
    assert receipt["versions"]["torch"] == torch.__version__
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary == result.summary
    assert summary["steps"] == 4
    assert summary["tokens"] == 4 * 8 * 11
    assert summary["stop_reason"] == "max_steps=4"
    assert summary["peak_memory_bytes"] > 2**20
    rows = read_metrics(result.folder / "metrics.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["val/loss"]) for row in rows] == [False, True, False, True]
    assert all(float(row["train/tokens_per_second"]) > 0 for row in rows)
    assert all(0 < float(row["train/mfu"]) < 1 for row in rows)
    assert receipt["peak"]["flops_per_second"] is None
    assert receipt["peak"]["source"].startswith("a product of fp32 matrices, measured when")
    flops = 6 * (85_584 - 11 * 48) + 12 * 3 * 48 * 11  # a token's
    expected = flops * summary["tokens_per_second"] / summary["peak_flops_per_second"]
    assert summary["mfu"] == pytest.approx(expected, abs=1e-4)
    assert (result.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    samples = (result.folder / "samples.md").read_text()
    assert [line for line in samples.splitlines() if line.startswith("##")] == [
        "## step 2",
        "## step 4",
    ]
    shown = capsys.readouterr().out
    assert "right answer" in shown
    assert "0 0 0 0 1 2" in shown


def test_the_same_seed_gives_the_same_losses_and_another_seed_does_not(short):
    first, second, other = short("name=a"), short("name=b"), short("name=c", "seed=1")
    assert losses(first) == losses(second)
    assert losses(first) != losses(other)


def test_micro_batches_do_not_change_the_training(short):
    whole = short("name=a", "model.dropout=0", "precision=fp32")
    for micro in (4, 2):
        parts = short(
            f"name=m{micro}", "model.dropout=0", "precision=fp32", f"micro_batch_size={micro}"
        )
        for row, other in zip(losses(whole), losses(parts), strict=True):
            # fp32 sums in another order; AdamW's first steps magnify the difference
            assert float(row[1]) == pytest.approx(float(other[1]), rel=1e-4)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_is_the_straight_run(short, stop):
    straight = short("name=a")
    first = short("name=b", f"max_steps={stop}", "schedule.decay_steps=4")
    resumed = resume(first, "resume=last", "max_steps=4")
    assert resumed.summary["steps"] == 4
    for row, other in zip(losses(straight), losses(resumed), strict=True):
        assert row[:2] == other[:2]
        # the last step of a training is evaluated whatever eval_every says
        assert row[2] == other[2] or int(row[0]) == stop
    found = weights(resumed)
    for name, tensor in weights(straight).items():
        assert torch.equal(found[name], tensor), name


def test_resume_takes_best_auto_or_a_path(short, tmp_path):
    with pytest.raises(CheckpointError, match="has no last checkpoint to resume"):
        short("name=a", "resume=last")
    assert not (tmp_path / "runs").exists()
    first = short("name=a", "resume=auto")
    assert first.summary["steps"] == 4
    assert resume(first, "resume=auto", "max_steps=6").summary["steps"] == 6
    path = find_checkpoint(first.folder, "best")
    again = fit([*SHORT, f"resume={path}", "max_steps=7"])
    assert again.folder == first.folder
    assert again.summary["steps"] == 7


def test_a_finished_run_has_nothing_to_resume(short):
    first = short("name=a")
    with pytest.raises(ConfigError, match=r"max_steps: 4 is reached, .* choose more steps"):
        resume(first, "resume=last")
    assert json.loads((first.folder / "summary.json").read_text()) == first.summary


def test_a_resume_counts_and_tells_both_legs(short):
    first = short("name=a")
    second = resume(first, "resume=last", "max_steps=8")
    assert second.summary["seconds"] > first.summary["seconds"]
    receipt = json.loads((second.folder / "receipt.json").read_text())
    assert [leg["step"] for leg in receipt["resumed"]] == [4]
    titles = [t for t in (second.folder / "samples.md").read_text().splitlines() if t[:2] == "##"]
    assert titles == [f"## step {step}" for step in (2, 4, 6, 8)]


def test_another_optimizer_cannot_go_on_and_the_run_is_left_alone(short):
    first = short("name=a")
    before = (first.folder / "config.yaml").read_text()
    with pytest.raises(ConfigError, match="optim: muon cannot go on from the state of adamw"):
        resume(first, "resume=last", "optim=muon", "max_steps=9")
    assert (first.folder / "config.yaml").read_text() == before
    with pytest.raises(ConfigError, match=r"optim.base_width: null in the checkpoint, 24 now"):
        resume(first, "resume=last", "optim.base_width=24", "max_steps=9")


def test_auto_starts_afresh_where_no_checkpoint_was_written(short):
    first = short("name=a")
    for file in (first.folder / "checkpoints").iterdir():
        file.unlink()
    assert short("name=a", "resume=auto").summary["steps"] == 4


def test_a_checkpoint_outside_a_run_is_refused(short, tmp_path):
    path = find_checkpoint(short("name=a").folder, "last")
    moved = tmp_path / "elsewhere.ckpt"
    moved.write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match="is not in a run's checkpoints/"):
        short(f"resume={moved}", "max_steps=9")
    with pytest.raises(ConfigError, match="name: b is not the run of"):
        short(f"resume={path}", "name=b", "max_steps=9")
    assert [p.name for p in tmp_path.iterdir() if p != moved] == ["runs"]


def test_settings_made_in_python_are_checked_too(tmp_path):
    with pytest.raises(ConfigError, match="batch_size: 0 is out of range"):
        fit(TrainConfig(batch_size=0))


def test_a_taken_name_is_refused_and_the_run_left_alone(short):
    before = losses(short("name=a"))
    with pytest.raises(ConfigError, match="is there already; choose another name, or go on with"):
        short("name=a", "seed=3")
    assert losses(short("name=b")) == before


def test_a_checkpoint_of_another_model_is_refused(short):
    path = find_checkpoint(short("name=a").folder, "last")
    with pytest.raises(ConfigError, match=r"model\.vocab_size: 3 in the checkpoint, 4 now; leave"):
        short(f"resume={path}", "data.num_digits=4")


def test_training_stops_at_its_target_or_time(short):
    reached = short("name=a", "stop_at=val/loss:100", "max_steps=9")
    assert (reached.summary["steps"], reached.summary["stop_reason"]) == (2, "stop_at=val/loss:100")
    late = short("name=b", "max_minutes=1e-9", "max_steps=9")
    assert late.summary["steps"] == 1
    assert late.summary["stop_reason"] == "max_minutes=1e-09"
    assert late.summary["last"]["val/loss"] > 0  # evaluated
    assert find_checkpoint(late.folder, "last").name == "step-000001.ckpt"  # and saved


def test_a_failing_logger_changes_no_weight(short, monkeypatch):
    plain = short("name=a")
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.warns(UserWarning, match=r"logger\.wandb: .*training goes on without it"):
        guarded = short("name=b", "logger=wandb")
    assert losses(guarded) == losses(plain)
    found = weights(guarded)
    for name, tensor in weights(plain).items():
        assert torch.equal(found[name], tensor)


def test_wandb_works_offline_without_changing_the_weights(short, monkeypatch):
    plain = short("name=a")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*training goes on without it")
        offline = short("name=b", "logger=wandb", "logger.wandb.offline=true")
    assert list((offline.folder / "wandb").glob("offline-run-*/*.wandb"))
    assert losses(offline) == losses(plain)


def test_tensorboard_writes_into_the_run_folder(short):
    result = short("name=a", "logger=tensorboard")
    assert list((result.folder / "tensorboard").glob("events.out.tfevents.*"))


def test_a_profile_is_a_trace_and_a_table(short):
    result = short("name=a", "profile=true", "max_steps=3")
    json.loads((result.folder / "profile" / "trace.json").read_text())
    assert "addmm" in (result.folder / "profile" / "table.txt").read_text()


def test_muon_learns_too(short):
    result = short("name=a", "optim=muon", "optim.lr=0.01", "max_steps=30", "eval_every=30")
    assert result.summary["last"]["val/loss"] < 0.8


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["trainer=gpu"], ConfigError, "gpu was asked for, 0 GPUs were found; use trainer=auto"),
        (["trainer._target_=lightning.pytorch.Callback"], ConfigError, "name a Trainer class"),
        (["callbacks.curves._target_=gpt2lab.config.parse"], ConfigError, "name a Callback class"),
        (["+callbacks.x._target_=gpt2lab.run_folder.os.system"], ConfigError, "is not allowed"),
        (["+trainer.nonsense=1"], ConfigError, "trainer: .*nonsense"),
        (["data.length=2", "data.num_digits=2"], DataError, "0 are held out"),
        (["trainer.log_every_n_steps=0"], ConfigError, "0 is no number of steps; choose 1 or more"),
        (
            [
                "+callbacks.x._target_=lightning.pytorch.callbacks.EarlyStopping",
                "+callbacks.x.monitor=nope",
            ],
            ConfigError,
            "callbacks.x.monitor: there is no metric nope; choose one of val/loss",
        ),
        (["resume=nowhere.ckpt"], CheckpointError, "no such checkpoint"),
    ],
)
def test_what_cannot_be_is_refused_with_nothing_written(short, tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        short(*overrides)
    assert not (tmp_path / "runs").exists()


def test_a_runs_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match="runs is a file; choose a folder"):
        fit([*SHORT, f"runs_dir={tmp_path / 'runs'}"])


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_runs_dir_that_the_file_system_will_not_have_is_refused():
    with pytest.raises(ConfigError, match="cannot be made"):
        fit([*SHORT, "runs_dir=/proc/nothing"])


@pytest.mark.parametrize(
    "target", ["lightning.fabric.utilities.cloud_io._load", "gpt2lab.config.os"]
)
def test_functions_and_modules_are_no_targets(target):
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve_target("callbacks.x", target, object)


def test_auto_precision_is_what_the_processor_has(monkeypatch):
    settings = settings_from("train", ["trainer=cpu"]).settings
    for has, expected in ((True, Precision.bf16), (False, Precision.fp32)):
        capabilities = {"avx512_bf16": has, "avx2": True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c, raising=False)
        assert choose_precision(settings) is expected
    settings.precision = Precision.fp32
    assert choose_precision(settings) is Precision.fp32


def test_bf16_on_a_processor_without_it_is_doubted_and_done(monkeypatch):
    settings = settings_from("train", ["trainer=cpu", "precision=bf16"]).settings
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    (doubt,) = doubts(settings)
    assert doubt.startswith("precision: bf16 takes two to three times as long")
    assert choose_precision(settings) is Precision.bf16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert not [*doubts(settings)]


def test_a_folder_that_another_process_begins_meanwhile_is_refused(tmp_path, monkeypatch):
    """Two starts with resume=auto: whoever is later finds a run where it saw none."""

    def begun_meanwhile(settings, folder):
        folder.mkdir(parents=True)
        (folder / "receipt.json").write_text("{}")

    monkeypatch.setattr("gpt2lab.experiment.place", begun_meanwhile)
    folder = tmp_path / "a"
    with pytest.raises(ConfigError, match="is there already"):
        fit([*("model=nano", "data=sort", "name=a", "resume=auto"), f"runs_dir={tmp_path}"])
    assert [path.name for path in folder.iterdir()] == ["receipt.json"]
