"""Ranks that torchrun or srun has started, on one node and on two: as those we start ourselves.

srun is played by its variables, the nodes by processes of one machine.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
from gpt2lab.launch import cpus
from gpt2lab.run_folder import read_json
from tests.test_rank_faults import PROGRAM, is_alive
from tests.test_ranks import TINY, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cpus() < 2, reason="two ranks need two CPU cores"),
]
START_S = 300  # two processes that load torch, on a machine that may have other work
SHORT = [
    *TINY,
    "data=sort",
    "model.dropout=0.1",
    "max_steps=6",
    "eval_every=3",
    "callbacks.curves=null",
    "callbacks.samples=null",
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return str(listener.getsockname()[1])


class Ranks:
    """Two of them; `processes` are what a user, or SLURM, has started."""

    def __init__(self, folder, commands, environments, hook="pass"):
        self.runs, self.events = folder / "runs", folder / "events"
        self.events.mkdir(exist_ok=True)
        program = folder / "program.py"
        program.write_text(PROGRAM.format(events=str(self.events), hook=hook, after="pass"))
        self.processes = [
            subprocess.Popen(
                [argument.replace("PROGRAM", str(program)) for argument in command],
                cwd=folder,
                # sums in one order: two nodes of one rank each would take more threads a rank
                env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            for command, variables in zip(commands, environments, strict=True)
        ]

    def pids(self):
        return [int(file.read_text().split()[0]) for file in sorted(self.events.glob("rank-?"))]

    def until_step(self, step):
        def done():
            files = sorted(self.events.glob("rank-?"))
            return [int(file.read_text().split()[1]) >= step for file in files] == [True, True]

        while not done():
            if any(process.poll() is not None for process in self.processes):
                raise AssertionError([process.communicate() for process in self.processes])
            time.sleep(0.05)
        return self

    def end(self):
        """Exit codes, and the lines of all of them together that are ours."""
        told = [process.communicate(timeout=START_S) for process in self.processes]
        assert not [pid for pid in self.pids() if is_alive(pid)]
        out = [line for text, _ in told for line in text.splitlines()]
        lines = [line for _, text in told for line in text.splitlines()]
        err = [line for line in lines if line.startswith(("error: ", "warning: "))]
        return [process.returncode for process in self.processes], out, err

    def folders(self):
        return sorted(self.runs.iterdir()) if self.runs.exists() else []


def torchrun(folder, *overrides, nodes=1, flags=(), **more):
    port = free_port()
    where = [
        f"--nnodes={nodes}",
        f"--nproc-per-node={2 // nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{port}",
        "--local-addr=localhost",
        *flags,
    ]
    run = [sys.executable, "-m", "torch.distributed.run", *where, "PROGRAM", *SHORT, *overrides]
    return Ranks(folder, [run] * nodes, [{}] * nodes, **more)


def srun(folder, *overrides, second=None, variables=None, **more):
    """Args: second: the second rank's overrides, if they are others."""
    port = free_port()
    commands, environments = [], []
    for rank in (0, 1):
        given = overrides if second is None or rank == 0 else second
        commands.append([sys.executable, "PROGRAM", *SHORT, *given])
        environments.append(
            {
                "SLURM_JOB_ID": "7001",
                "SLURM_STEP_ID": "0",
                "SLURM_NTASKS": "2",
                "SLURM_STEP_NUM_NODES": "1",
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
                "SLURM_NODEID": "0",
                "SLURM_STEP_NODELIST": "localhost",
                "MASTER_PORT": port,
                **(variables or {}),
            }
        )
    return Ranks(folder, commands, environments, **more)


def two_nodes(folder, *overrides, **more):
    return torchrun(folder, *overrides, nodes=2, **more)


def weights(folder):
    return load_checkpoint(find_checkpoint(folder, "last"))["state_dict"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The weights that two ranks of ours come to."""
    folder = tmp_path_factory.mktemp("straight")
    command = [sys.executable, "PROGRAM", *SHORT, "devices=2", "name=a"]
    codes, _, err = Ranks(folder, [command], [{}]).end()
    assert codes == [0], err
    return weights(folder / "runs" / "a")


@pytest.mark.parametrize("begin", [torchrun, two_nodes, srun])
def test_ranks_that_others_started_train_as_ours_do_in_one_folder(tmp_path, straight, begin):
    ranks = begin(tmp_path)
    codes, out, err = ranks.end()
    assert (set(codes), err) == ({0}, [])
    (folder,) = ranks.folders()
    assert [line for line in out if line.startswith("runs/")] == [f"runs/{folder.name}"]
    found = weights(folder)
    assert found.keys() == straight.keys()
    assert all(torch.equal(found[name], straight[name]) for name in straight)
    assert [row["step"] for row in rows(folder)] == ["1", "2", "3", "4", "5", "6"]
    receipt = read_json(folder / "receipt.json")
    assert receipt["world_size"] == 2
    assert not (folder / "lock").exists()


@pytest.mark.parametrize("begin", [torchrun, srun])
def test_a_signal_to_what_started_them_stops_all_ranks_after_one_step(tmp_path, begin):
    ranks = begin(tmp_path, "name=a", "max_steps=1000").until_step(3)
    for process in ranks.processes:
        process.send_signal(signal.SIGTERM)
    codes, _, err = ranks.end()
    if begin is srun:
        assert codes == [143, 143]
    assert err == []
    summary = read_json(tmp_path / "runs" / "a" / "summary.json")
    step = summary["steps"]
    assert summary["stop_reason"] == "SIGTERM"
    files = sorted(p.name for p in (tmp_path / "runs" / "a" / "checkpoints").glob("*.ckpt"))
    assert files == [f"step-{step:06d}.ckpt"]


def test_a_signal_to_one_rank_stops_all(tmp_path):
    ranks = srun(tmp_path, "name=a", "max_steps=1000").until_step(3)
    ranks.processes[1].send_signal(signal.SIGTERM)
    codes, _, err = ranks.end()
    assert (codes, err) == ([143, 143], [])


@pytest.mark.parametrize("first_told", [0, 1])
def test_a_step_that_takes_too_long_after_a_signal_is_dropped_on_all_ranks(tmp_path, first_told):
    hook = "time.sleep(600 if number == 4 else 0)"
    ranks = srun(tmp_path, "name=a", "max_steps=1000", hook=hook).until_step(3)
    for process in ranks.processes[first_told:]:
        process.send_signal(signal.SIGTERM)
    codes, _, err = ranks.end()
    assert (codes, err) == ([143, 143], [])
    assert read_json(tmp_path / "runs" / "a" / "summary.json")["steps"] == 3


def test_a_killed_rank_ends_the_others_with_one_line(tmp_path):
    ranks = srun(tmp_path, "name=a", "max_steps=1000").until_step(3)
    ranks.processes[1].kill()
    codes, _, err = ranks.end()
    assert codes == [1, -signal.SIGKILL]
    assert len(err) == 1
    assert err[0].startswith("error: rank 0: ")
    assert not list((tmp_path / "runs" / "a" / "checkpoints").glob("*.ckpt"))


def test_the_first_rank_killed_ends_the_others_with_one_line(tmp_path):
    ranks = srun(tmp_path, "name=a", "max_steps=1000").until_step(3)
    ranks.processes[0].kill()
    codes, _, err = ranks.end()
    assert codes == [-signal.SIGKILL, 1]
    assert len(err) == 1


def test_a_fault_on_one_rank_is_one_line_that_names_it(tmp_path):
    hook = "if (rank, number) == (1, 3): raise ValueError('a fault of rank 1')"
    codes, _, err = srun(tmp_path, "name=a", hook=hook).end()
    assert codes == [1, 1]
    assert err == ["error: rank 1: ValueError: a fault of rank 1; add debug=true to see where"]


@pytest.mark.parametrize("begin", [torchrun, srun])
def test_bad_input_is_told_once_and_leaves_nothing(tmp_path, begin):
    ranks = begin(tmp_path, "optim.lr=-1")
    codes, _, err = ranks.end()
    assert codes == ([2, 2] if begin is srun else [1])
    assert len(err) == 1
    assert err[0].startswith("error: optim.lr: ")
    assert ranks.folders() == []


def test_a_rank_with_other_settings_is_refused(tmp_path):
    ranks = srun(tmp_path, "name=a", second=["name=a", "optim.lr=0.123"])
    codes, _, err = ranks.end()
    assert codes == [2, 2]
    assert err == [
        "error: optim.lr: is not what it is on rank 0; give every rank the same settings"
    ]
    assert ranks.folders() == []


def test_a_name_that_is_taken_is_told_once(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "receipt.json").write_text("{}")
    codes, _, err = srun(tmp_path, "name=a").end()
    assert (codes, len(err)) == ([2, 2], 1)
    assert err[0].startswith("error: name: runs/a is there already")


def test_a_job_that_slurm_starts_again_goes_on_in_its_folder(tmp_path, straight):
    ranks = srun(tmp_path, "checkpoint_every=2").until_step(3)
    for process in ranks.processes:
        process.send_signal(signal.SIGTERM)
    assert ranks.end()[0] == [143, 143]
    (folder,) = ranks.folders()
    for file in ranks.events.glob("*"):
        file.unlink()
    again = srun(tmp_path, "checkpoint_every=2", variables={"SLURM_RESTART_COUNT": "1"})
    codes, _, err = again.end()
    assert (codes, err) == ([0, 0], [])
    assert again.folders() == [folder]
    found = weights(folder)
    assert all(torch.equal(found[name], straight[name]) for name in straight)
    assert len(json.loads((folder / "receipt.json").read_text())["resumed"]) == 1


def test_torchruns_own_restarts_go_on_with_resume_auto(tmp_path, straight):
    hook = (
        f"first = Path({str(tmp_path)!r}) / 'lost'; "
        "(rank, number, first.exists()) == (1, 5, False) and "
        "(first.touch(), os.kill(os.getpid(), 9))"
    )
    plain = ["name=a", "resume=auto", "checkpoint_every=2"]
    ranks = torchrun(tmp_path, *plain, flags=["--max-restarts=1"], hook=hook)
    codes, _, _ = ranks.end()
    assert codes == [0]
    (folder,) = ranks.folders()
    found = weights(folder)
    assert all(torch.equal(found[name], straight[name]) for name in straight)
    assert read_json(folder / "receipt.json")["resumed"][0]["step"] == 4


def test_a_multirun_under_torchrun_is_refused(tmp_path):
    codes, _, err = srun(tmp_path, "--multirun", "seed=0,1").end()
    assert (codes, len(err)) == ([2, 2], 1)
    assert err[0].startswith("error: --multirun: srun has started 2 ranks")
