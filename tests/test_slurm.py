"""SLURM, played by environment variables and a script called scontrol."""

import json
import signal
import stat
import time

import pytest

from gpt2lab import slurm
from gpt2lab.config import TrainConfig
from gpt2lab.run_folder import command, is_finished
from tests.test_signals import QUICK, Training, checkpoint, run

# What srun sets; two tasks on one node, which Lightning would refuse.
SRUN = {
    "SLURM_JOB_ID": "7001",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NAME": "night",
}
UNNAMED = [*QUICK[:-1], "max_steps=12", "eval_every=4", "checkpoint_every=4"]
WAIT_AT_6 = """
import os, time
from gpt2lab.lightning_module import GPT2LightningModule as M
step = M.training_step
def slow(self, batch, index):
    if self.trainer.global_step == 6 and "SLURM_RESTART_COUNT" not in os.environ:
        print("ready", flush=True)
        time.sleep(1)
    step(self, batch, index)
M.training_step = slow
"""


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A scontrol that notes its arguments, and what was saved when it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "scontrol"
    script.write_text(
        f'#!/bin/sh\necho "$@" $(ls {tmp_path}/runs/*/checkpoints) > {tmp_path}/asked\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return tmp_path / "asked"


def test_a_requeued_run_goes_on_in_its_folder_and_is_not_begun_a_third_time(tmp_path, scontrol):
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("what Lightning would go on from")
    training = Training(tmp_path, *UNNAMED, patch=WAIT_AT_6, **SRUN).until_ready()
    training.send(signal.SIGUSR1)
    code, out, err = training.end()
    assert (code, err) == (128 + signal.SIGUSR1, [])
    assert out[-2] == "stopped by SIGUSR1"
    (folder,) = (tmp_path / "runs").iterdir()
    assert out[-1] == f"runs/{folder.name}"
    assert json.loads((folder / "receipt.json").read_text())["slurm"]["job"] == "7001"
    assert scontrol.read_text().split()[:2] == ["requeue", "7001"]
    assert "step-000007.ckpt" in scontrol.read_text()  # on disk before SLURM may end the job

    again = {**SRUN, "SLURM_RESTART_COUNT": "1"}
    out, err = run(tmp_path, *UNNAMED, patch=WAIT_AT_6, **again)
    assert out[-1] == f"runs/{folder.name}"
    assert err == f"SLURM has started this job again; its run goes on: runs/{folder.name}\n"
    assert checkpoint(folder)["global_step"] == 12
    assert json.loads((folder / "receipt.json").read_text())["resumed"][0]["step"] == 7

    began = time.monotonic()
    out, err = run(tmp_path, *UNNAMED, patch=WAIT_AT_6, **again)
    assert out == [f"runs/{folder.name}"]
    assert err.endswith(f"its run is finished: runs/{folder.name}\n")
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_name_that_is_taken_by_another_job_is_still_taken(tmp_path):
    run(tmp_path, *QUICK, **SRUN)
    other = {**SRUN, "SLURM_JOB_ID": "7002", "SLURM_RESTART_COUNT": "1"}
    training = Training(tmp_path, *QUICK, **other)
    _, err = training.process.communicate(timeout=60)
    assert training.process.returncode == 2
    assert err.startswith("error: name: runs/a is there already")


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7001")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def begun(runs_dir, name, reason=None, **receipt):
    folder = runs_dir / name
    folder.mkdir(parents=True)
    facts = {"command": command(), "slurm": {"job": "7001"}, **receipt}
    (folder / "receipt.json").write_text(json.dumps(facts))
    if reason:
        (folder / "summary.json").write_text(json.dumps({"ended_by": reason}))


@pytest.mark.usefixtures("job")
def test_the_run_of_a_job_is_known_by_its_id_and_its_command(runs_dir, monkeypatch):
    begun(runs_dir, "other-job", slurm={"job": "7002"})
    begun(runs_dir, "other-command", command=["python", "x"])
    begun(runs_dir, "no-job", slurm=None)
    (runs_dir / "a-file").write_text("")
    assert slurm.earlier_run(TrainConfig()) is None
    begun(runs_dir, "ours")
    assert slurm.earlier_run(TrainConfig()).name == "ours"
    assert slurm.earlier_run(TrainConfig(name="ours")).name == "ours"
    assert slurm.earlier_run(TrainConfig(name="other-job")) is None
    assert slurm.earlier_run(TrainConfig(name="ours", resume="last")) is None
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert slurm.earlier_run(TrainConfig(name="ours")) is None


@pytest.mark.usefixtures("job")
def test_of_several_runs_the_one_that_is_not_finished_goes_on(runs_dir):
    begun(runs_dir, "1", "itself")
    begun(runs_dir, "2", "signal")
    begun(runs_dir, "3", "itself")
    begun(runs_dir, "4", "fault")
    assert slurm.earlier_run(TrainConfig()).name == "4"
    assert [is_finished(runs_dir / n) for n in "1234"] == [True, False, True, False]


@pytest.mark.usefixtures("job")
def test_what_began_as_a_resume_goes_on_from_its_end(runs_dir):
    leg = {"command": command(), "slurm": {"job": "7001"}}
    begun(runs_dir, "a", command=["earlier"], slurm={"job": "6999"}, resumed=[leg])
    path = runs_dir / "a" / "checkpoints" / "step-000004.ckpt"
    assert slurm.earlier_run(TrainConfig(resume=str(path))).name == "a"
    assert slurm.earlier_run(TrainConfig(name="a", resume="best")).name == "a"
    assert slurm.earlier_run(TrainConfig(name="a", resume="last")) is None


@pytest.mark.usefixtures("job")
def test_a_task_of_an_array_is_requeued_alone(scontrol, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7000")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    slurm.requeue()
    assert scontrol.read_text().split() == ["requeue", "7000_0"]


@pytest.mark.usefixtures("job")
def test_a_scontrol_that_fails_or_is_missing_is_one_warning(scontrol, tmp_path, monkeypatch):
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho not allowed >&2\nexit 1\n")
    with pytest.warns(UserWarning, match=r"^scontrol requeue 7001: not allowed; start ") as told:
        slurm.requeue()
    assert len(told) == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(UserWarning, match=r"^scontrol requeue 7001: .*No such file") as told:
        slurm.requeue()
    assert len(told) == 1


def test_outside_of_a_job_nothing_is_asked(scontrol, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    slurm.requeue()
    assert not scontrol.exists()
    assert slurm.facts() == {}
