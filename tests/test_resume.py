"""Going on: under the settings of the checkpoint, changed ones shown, in a folder of one's own."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from gpt2lab.callbacks import Throughput
from gpt2lab.checkpoint import Checkpoints, find_checkpoint, load_checkpoint, read_manifest
from gpt2lab.config import TrainConfig
from gpt2lab.config.changes import changes, model_problems
from gpt2lab.errors import ConfigError
from gpt2lab.experiment import fit
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.lock import LOCK, lock
from gpt2lab.metrics import read_metrics
from gpt2lab.run_folder import check_resume, read_json
from tests.test_command_line import QUICK, start
from tests.test_experiment import SHORT, weights


@pytest.fixture
def run(tmp_path):
    """Train with exactly these overrides, in a runs_dir of the test's own."""

    def run(*overrides):
        return fit([f"runs_dir={tmp_path / 'runs'}", "trainer.log_every_n_steps=1", *overrides])

    return run


def legs(result):
    return json.loads((result.folder / "receipt.json").read_text())["resumed"]


def test_changes_are_told_with_old_and_new():
    stored = {"seed": 1, "optim": {"lr": 0.003, "beta1": 0.9}, "model": {"n_layer": 3}}
    now = {"seed": 1, "optim": {"lr": 0.001, "beta1": 0.9}, "model": {"n_layer": 4}}
    found = changes(stored, now)
    assert found == {"optim.lr": [0.003, 0.001], "model.n_layer": [3, 4]}
    assert model_problems(found) == [
        "model.n_layer: 3 in the checkpoint, 4 now; leave it out, or start a new run"
    ]


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ({"name": "a", "runs_dir": "x", "resume": None}, {"name": "b", "runs_dir": "y"}),
        ({"trainer": {"accelerator": "cpu"}}, {"trainer": {"accelerator": "gpu"}}),
        ({"model": {"vocab_size": 65}}, {"model": {"vocab_size": None}}),
        ({"data": {"fingerprint": None}}, {"data": {"fingerprint": "abc"}}),
        ({"debug": False, "profile": False}, {"debug": True, "profile": True}),
        ({}, {"a_setting_of_a_later_version": 1}),
        ({"max_minutes": 1}, {"max_minutes": 1.0}),
    ],
)
def test_what_is_no_change_is_not_told(stored, now):
    assert changes(stored, now) == {}


def test_memory_alone_may_differ_in_a_model():
    assert model_problems({"model.activation_checkpointing": [False, True]}) == []


def test_another_model_is_refused_with_each_setting_named_and_the_run_left_alone(run):
    first = run(*SHORT, "name=a")
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError) as refusal:
        run("name=a", "resume=last", "max_steps=9", "model.n_layer=4", "model.dropout=0")
    assert refusal.value.problems == (
        "model.n_layer: 3 in the checkpoint, 4 now; leave it out, or start a new run",
        "model.dropout: 0.1 in the checkpoint, 0.0 now; leave it out, or start a new run",
    )
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before


def test_other_settings_are_shown_and_stand_in_the_receipt(run, capsys):
    first = run(*SHORT, "name=a", "schedule.decay_steps=4")
    capsys.readouterr()
    changed = ["max_steps=6", "optim.lr=0.001", "micro_batch_size=4"]
    second = run("name=a", "resume=last", *changed, "model.activation_checkpointing=true")
    lines = [
        "model.activation_checkpointing: false -> true",
        "optim.lr: 0.005 -> 0.001",
        "max_steps: 4 -> 6",
        "micro_batch_size: null -> 4",
    ]
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(lines)
    log = (first.folder / "train.log").read_text()
    assert all(line in log for line in lines)
    assert legs(second)[0]["changed"] == {
        "model.activation_checkpointing": [False, True],
        "optim.lr": [0.005, 0.001],
        "max_steps": [4, 6],
        "micro_batch_size": [None, 4],
    }


@pytest.fixture
def crashed(run, monkeypatch):
    """A run that breaks down after its second step."""
    step = GPT2LightningModule.training_step

    def failing(module, batch, index):
        if module.trainer.global_step == 2:
            raise RuntimeError("broken on purpose")
        step(module, batch, index)

    def start(*overrides):
        with monkeypatch.context() as patch:
            patch.setattr(GPT2LightningModule, "training_step", failing)
            with pytest.raises(RuntimeError, match="broken on purpose"):
                run(*overrides)

    return start


@pytest.mark.parametrize(
    "command",
    [
        # the experiment nano_sort, found by itself, sets the dropout and the rate
        ["model=nano", "data=sort"],
        ["model=nano"],
        ["data=sort", "model=nano", "optim=adamw", "optim.beta2=0.5", "schedule=cosine"],
        ["experiment=nano_sort", "model=nano", "data.length=3"],
        ["model=nano", "data=sort", "data.num_digits=4", "optim=muon", "optim.lr=0.01"],
    ],
)
def test_the_same_command_again_changes_nothing(run, crashed, capsys, command):
    few = ["batch_size=8", "max_steps=4", "eval_every=2", "stop_at=null", "checkpoint_every=2"]
    crashed(*command, *few, "name=a", "resume=auto")
    straight = weights(run(*command, *few, "name=b"))
    capsys.readouterr()
    again = run(*command, *few, "name=a", "resume=auto")
    assert "->" not in capsys.readouterr().err
    assert legs(again) == [{**legs(again)[0], "step": 2, "changed": {}}]
    found = weights(again)
    assert all(torch.equal(tensor, found[name]) for name, tensor in straight.items())


def test_a_value_from_the_environment_is_asked_for_again(run, monkeypatch):
    monkeypatch.setenv("GPT2LAB_STEPS", "4")
    from_environment = "eval_every=${oc.env:GPT2LAB_STEPS}"
    run(*SHORT, "name=a", from_environment)
    with pytest.raises(ConfigError, match=r"eval_every: is \$\{oc.env:GPT2LAB_STEPS\} in the ch"):
        run("name=a", "resume=last", "max_steps=6")
    assert run("name=a", "resume=last", "max_steps=6", from_environment).summary["steps"] == 6


def test_an_automatic_resume_of_a_finished_run_ends_well(tmp_path):
    command = [*QUICK, "name=a", "resume=auto"]
    first = start(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again = start(*command, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    line, folder = again.stdout.splitlines()
    assert "has reached max_steps=2; nothing is left" in line
    assert folder == "runs/a"
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files


def test_a_start_before_the_first_checkpoint_leaves_no_rows_to_the_next(run):
    first = run(*SHORT, "name=a")
    for file in (first.folder / "checkpoints").iterdir():
        file.unlink()
    again = run(*SHORT, "name=a", "resume=auto")
    steps = [row["step"] for row in read_metrics(again.folder / "metrics.csv")]
    assert steps == ["1", "2", "3", "4"]


@pytest.mark.parametrize("left", [[], [LOCK], [LOCK, ".receipt.json.tmp"]])
def test_what_a_start_that_was_killed_left_is_no_run(run, tmp_path, left):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).write_text("")
    assert run(*SHORT, "name=a").summary["steps"] == 4
    assert {p.name for p in folder.iterdir()}.isdisjoint(left)


def test_no_lock_is_left_behind(run, tmp_path):
    folder = run(*SHORT, "name=a").folder
    assert not (folder / LOCK).exists()
    with pytest.raises(ConfigError):
        run(*SHORT, "name=a", "resume=last", "model.n_layer=1")
    assert not (folder / LOCK).exists()


def test_what_may_be_not_finite_is_never_said_by_the_checkpoint(run):
    path = find_checkpoint(run(*SHORT, "name=a", "allow_nonfinite=model.wte.weight").folder, "last")
    assert load_checkpoint(path)["settings"]["allow_nonfinite"] == "model.wte.weight"
    run("name=a", "resume=last", "max_steps=6")
    path = find_checkpoint(path.parent.parent, "last")
    assert load_checkpoint(path)["settings"]["allow_nonfinite"] is None


def test_a_run_at_work_is_told_by_whatever_comes_second(tmp_path):
    """Before torch is loaded, and before anything in the folder is read."""
    first = start(*QUICK, "name=a", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for file in (tmp_path / "runs" / "a" / "checkpoints").iterdir():
        file.write_bytes(b"not to be read")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = tmp_path / "runs" / "a" / "checkpoints" / "step-000002.ckpt"
    commands = [["name=a", resume] for resume in ("resume=last", "resume=auto", "resume=best")]
    with lock(tmp_path / "runs" / "a"):
        for command in ([*QUICK, "name=a"], *commands, [f"resume={path}"]):
            second = start(*command, cwd=tmp_path)
            assert second.returncode == 2
            assert second.stderr.startswith("error: ")
            assert "runs/a: process " in second.stderr
            assert "is at work in it; wait for it, or choose another name" in second.stderr


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with_at_once_while_its_loader_workers_live(tmp_path):
    endless = ["model=nano", "stop_at=null", "max_steps=1000000", "eval_every=1000000"]
    often = ["checkpoint_every=50", "data.num_workers=2", "name=a"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2lab.train", *endless, *often], cwd=tmp_path
    )
    folder = tmp_path / "runs" / "a"
    try:
        while find_checkpoint(folder, "last") is None:
            assert process.poll() is None
            time.sleep(0.05)
        second = start(*endless, "name=a", cwd=tmp_path)
        assert f"process {process.pid} on host" in second.stderr
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / LOCK).exists()
    resumed = start("name=a", "resume=last", "max_minutes=1e-9", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


def test_changed_settings_of_the_optimizer_are_used(run):
    first = run(*SHORT, "name=a")
    second = run("name=a", "resume=last", "max_steps=5", "optim.weight_decay=7", "optim.beta1=0.5")
    content = load_checkpoint(find_checkpoint(second.folder, "last"))
    decayed, *_ = content["optimizer_states"][0]["param_groups"]
    assert (decayed["weight_decay"], decayed["betas"][0]) == (7.0, 0.5)
    assert first.folder == second.folder


def test_a_run_that_was_turned_back_goes_on_from_there_whenever_it_was_killed(run, monkeypatch):
    folder = run(*SHORT, "name=a", "checkpoint_keep=9").folder

    def killed(self, batch, index):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GPT2LightningModule, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(f"resume={folder / 'checkpoints' / 'step-000002.ckpt'}")
    assert find_checkpoint(folder, "last").name == "step-000002.ckpt"
    assert (folder / "checkpoints" / "step-000004.ckpt").exists()


def test_a_run_at_its_target_has_nothing_to_resume(run):
    words = [*SHORT, "name=a", "resume=auto", "max_steps=9", "stop_at=val/loss:100"]
    assert [run(*words).summary["steps"] for _ in range(2)] == [2, 2]
    with pytest.raises(ConfigError, match=r"stop_at: val/loss:100 is reached, .* choose another"):
        run("name=a", "resume=last")
    assert run(*words[:-1], "stop_at=null").summary["steps"] == 9


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"x": 1}', b'{"id": "a", "resumed": 5}'])
def test_a_damaged_receipt_costs_no_run_its_identity(run, content):
    folder = run(*SHORT, "name=a").folder
    identity = json.loads((folder / "receipt.json").read_text())["id"]
    (folder / "receipt.json").write_bytes(content)
    with pytest.warns(UserWarning, match=r"receipt\.json: is damaged; a new one is begun"):
        again = run("name=a", "resume=last", "max_steps=5")
    assert json.loads((folder / "receipt.json").read_text())["id"] == identity
    assert [leg["step"] for leg in legs(again)] == [4]


def test_metrics_that_cannot_be_read_are_put_aside(run):
    folder = run(*SHORT, "name=a").folder
    before = (folder / "metrics.csv").read_text().replace("step", "stop", 1)
    (folder / "metrics.csv").write_text(before)
    with pytest.warns(UserWarning, match=r"is damaged; it is kept as metrics\.csv\.damaged"):
        run("name=a", "resume=last", "max_steps=5")
    assert (folder / "metrics.csv.damaged").read_text() == before
    assert [row["step"] for row in read_metrics(folder / "metrics.csv")] == ["5"]


class Left(BaseException):
    """Nothing of a training gets any further than this."""


@pytest.fixture
def cut(run, monkeypatch):
    """A run that a signal ends at a step, in some function: there is no time for the rest of it."""

    def start(step, place, *overrides):
        owner, name = place
        original = getattr(owner, name)

        def leaves(self, *args):
            trainer = self.trainer if isinstance(self, GPT2LightningModule) else args[0]
            if trainer.global_step == step:
                listener = trainer.callbacks[0].listener
                listener.number = signal.SIGTERM
                listener._last_words()
                raise Left
            return original(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, leaves)
            with pytest.raises(Left):
                run(*overrides)

    return start


@pytest.fixture
def killed(run, monkeypatch):
    """A run that is killed when all is done but its summary."""

    def summarize(*_):
        raise Left

    def start(*overrides):
        with monkeypatch.context() as patch:
            patch.setattr("gpt2lab.training.summarize", summarize)
            with pytest.raises(Left):
                run(*overrides)

    return start


SIX = [*SHORT, "max_steps=6", "eval_every=4", "checkpoint_keep=9"]
BEFORE_IT = (Throughput, "on_train_batch_end")
WITHIN_IT = (GPT2LightningModule, "validation_step")
BEHIND_IT = (Checkpoints, "on_validation_end")  # all is said, nothing saved


def said(folder):
    """All that a run says of itself, but for what depends on the clock."""
    rows = read_metrics(folder / "metrics.csv")
    summary = read_json(folder / "summary.json")
    clocks = (
        *("train/tokens_per_second", "train/mfu", "seconds", "tokens_per_second", "mfu"),
        *("peak_flops_per_second", "peak_memory_bytes"),
    )
    for part in (*rows, summary, summary["last"]):
        for name in clocks:
            part.pop(name, None)
    manifest = read_manifest(folder / "checkpoints")
    metrics = {entry.step: entry.metric for entry in manifest.checkpoints}
    return rows, summary, metrics, manifest.best.step, (folder / "samples.md").read_text()


def assert_same(found, wanted):
    assert said(found.folder) == said(wanted.folder)
    straight = weights(wanted)
    assert all(torch.equal(tensor, straight[name]) for name, tensor in weights(found).items())


@pytest.mark.parametrize("step", [4, 6])
@pytest.mark.parametrize("place", [BEFORE_IT, WITHIN_IT, BEHIND_IT])
def test_an_evaluation_that_a_signal_cut_off_is_held_before_the_run_goes_on(run, cut, place, step):
    straight = run(*SIX, "name=a")
    cut(step, place, *SIX, "name=b")
    assert read_json(straight.folder.with_name("b") / "summary.json")["ended_by"] == "signal"
    assert_same(run("name=b", "resume=last"), straight)


def test_a_run_whose_last_evaluation_is_cut_off_has_not_come_to_its_own_end(cut, tmp_path):
    cut(1, WITHIN_IT, *SIX, "max_minutes=1e-9", "name=a")  # off eval_every, and so not owed
    summary = read_json(tmp_path / "runs" / "a" / "summary.json")
    assert (summary["ended_by"], summary["stop_reason"]) == ("signal", "SIGTERM")


def test_an_evaluation_that_was_cut_off_twice_is_held_once(run, cut):
    cut(4, WITHIN_IT, *SIX, "name=b")
    cut(4, BEHIND_IT, "name=b", "resume=last")
    assert_same(run("name=b", "resume=last"), run(*SIX, "name=a"))


def test_a_target_that_is_reached_in_a_cut_evaluation_ends_the_run_there(run, cut):
    words = [*SIX, "stop_at=val/loss:100"]
    cut(4, WITHIN_IT, *words, "name=b")
    resumed = run("name=b", "resume=last")
    assert (resumed.summary["steps"], resumed.summary["stop_reason"]) == (4, words[-1])
    assert_same(resumed, run(*words, "name=a"))


def test_what_a_cut_evaluation_came_to_is_on_record_though_no_save_was_due(run, cut):
    cut(4, WITHIN_IT, *SIX, "checkpoint_every=9", "name=a")
    found = said(run("name=a", "resume=last").folder)
    wanted = {int(row["step"]): float(row["val/loss"]) for row in found[0] if row["val/loss"]}
    assert found[2] == wanted
    assert list(wanted) == [4, 6]


def test_behind_an_owed_evaluation_it_is_training_again(run, cut, monkeypatch):
    cut(4, WITHIN_IT, *SIX, "name=a")
    step = GPT2LightningModule.training_step
    states = []

    def watched(module, *args):
        states.append((module.trainer.training, module.training, torch.is_grad_enabled()))
        return step(module, *args)

    monkeypatch.setattr(GPT2LightningModule, "training_step", watched)
    run("name=a", "resume=last")
    assert states == [(True, True, True)] * 2


def test_an_evaluation_that_was_held_is_not_held_again(run, monkeypatch):
    run(*SIX, "name=a", "max_steps=4", "schedule.decay_steps=6")
    held = []
    monkeypatch.setattr(GPT2LightningModule, "evaluate", held.append)
    run("name=a", "resume=last", "max_steps=5")
    assert not held


@pytest.mark.parametrize("how", ["auto", "last"])
@pytest.mark.parametrize("end", ["max_steps=6", "stop_at=val/loss:100"])
def test_a_run_that_was_killed_before_its_summary_says_it_when_resumed(run, killed, how, end):
    words = [*SIX, end]
    killed(*words, "name=b")
    resumed = run("name=b", f"resume={how}")
    assert resumed.summary["stop_reason"] == end
    assert (resumed.folder / "curves.png").exists()
    assert_same(resumed, run(*words, "name=a"))


def test_a_run_that_goes_on_is_not_finished_by_what_it_said_before(run, crashed):
    folder = run(*SIX, "name=a").folder
    with pytest.raises(ConfigError, match="max_steps: 3 is reached"):
        run("name=a", "resume=last", "max_steps=3")
    assert read_json(folder / "summary.json")["steps"] == 6  # a refusal changes nothing
    path = folder / "checkpoints" / "step-000002.ckpt"
    crashed(f"resume={path}")
    assert not (folder / "summary.json").exists()


@pytest.mark.parametrize(
    ("resume", "line"),
    [
        ("lsat", "resume: there is no lsat; did you mean last?"),
        ("a/b.ckpt", "resume: there is no a/b.ckpt; give a checkpoint's path, or last, best, auto"),
        (".", "resume: . is a folder, not a checkpoint; give name=<run> resume=last, or what"),
        ("/dev/null", "resume: /dev/null is no checkpoint; give name=<run> resume=last, or what"),
    ],
)
def test_what_is_neither_a_word_nor_a_checkpoint_is_refused_at_once(resume, line):
    with pytest.raises(ConfigError) as error:
        check_resume(TrainConfig(resume=resume))
    assert str(error.value).startswith(line)


def test_words_and_checkpoints_may_be_resumed(tmp_path):
    (tmp_path / "step-000005.ckpt").touch()
    for resume in (None, "last", "best", "auto", str(tmp_path / "step-000005.ckpt")):
        check_resume(TrainConfig(resume=resume, runs_dir=str(tmp_path), name="."))


def test_a_run_that_is_not_there_is_not_gone_on_with(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "receipt.json").write_text("{}")
    for resume in ("last", "best"):
        settings = TrainConfig(resume=resume, runs_dir=str(tmp_path), name="frist")
        with pytest.raises(ConfigError, match=r"there is no run .*frist; did you mean first"):
            check_resume(settings)
