"""A multirun's jobs of several devices: each in processes of its own, whoever launches them."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from gpt2lab.config.multirun import jobs_at_once
from gpt2lab.launch import cpus
from gpt2lab.launch.job import Forward, main
from tests.test_rank_faults import is_alive
from tests.test_ranks import TINY

needs_two = pytest.mark.skipif(cpus() < 2, reason="two ranks need two CPU cores")
LIMIT_S = 600  # eight processes that load torch, on a machine that may have other work
QUICK = [
    *TINY,
    "data=sort",
    "max_steps=2",
    "eval_every=2",
    "callbacks.curves=null",
    "callbacks.samples=null",
    "name=grid",
]
# Each interpreter loads this first, so each rank, whatever has started it, tells what it was given.
SITE = """
import functools, json, os
from pathlib import Path

from gpt2lab.config import plain
from gpt2lab.launch import elastic, rank

original = rank.run_rank

@functools.wraps(original)
def run_rank(function, args, *rest):
    settings, number = args[0], int(os.environ["RANK"])
    if (settings.seed, number) == (int(os.environ.get("KILL_SEED", -1)), 1):
        os.kill(os.getpid(), 9)
    place = Path(os.environ["EVENTS"]) / f"{settings.name}-rank-{number}"
    place.with_suffix(".new").write_text(json.dumps([os.getpid(), plain(settings), rest[-1]]))
    place.with_suffix(".new").rename(place)
    return original(function, args, *rest)

elastic.run_rank = rank.run_rank = run_rank
"""


def begin(folder, *overrides, **variables):
    (folder / "site").mkdir()
    (folder / "events").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", str(Path.cwd()))])
    environment = {**os.environ, "PYTHONPATH": path, "EVENTS": str(folder / "events"), **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "gpt2lab.train", *QUICK, *overrides],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process):
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def told(folder):
    """Process id, settings and command of each rank, by its name."""
    files = sorted((folder / "events").glob("*-rank-?"))
    return {file.name: json.loads(file.read_text()) for file in files}


def folders(folder):
    return sorted(p.name for p in (folder / "runs").iterdir())


@pytest.mark.slow
@needs_two
@pytest.mark.parametrize(
    ("launcher", "left"),
    [
        ([], []),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], []),
        (["hydra/launcher=submitit_local"], [".submitit"]),
    ],
    ids=["basic", "joblib", "submitit"],
)
def test_each_job_has_its_folder_and_all_its_ranks_its_settings(tmp_path, launcher, left):
    canary = "canary-5d41402abc4b"
    secret = ["logger=[csv,tensorboard]", f"+logger.tensorboard.secret={canary}"]
    process = begin(tmp_path, "--multirun", "devices=2", "seed=0,1", *secret, *launcher)
    code, out, err = end(process)
    assert code == 0, out + err
    assert canary not in out + err
    files = [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]
    assert not [p for p in files if canary.encode() in p.read_bytes()]
    assert folders(tmp_path) == ["grid", "grid-0", "grid-1"]
    assert sorted(p.name for p in (tmp_path / "runs" / "grid").iterdir()) == [
        *left,
        "multirun.yaml",
    ]
    ranks = told(tmp_path)
    assert list(ranks) == [f"grid-{job}-rank-{rank}" for job in (0, 1) for rank in (0, 1)]
    for job in (0, 1):
        (first, settings, command), (second, others, _) = (
            ranks[f"grid-{job}-rank-{rank}"] for rank in (0, 1)
        )
        assert first != second
        assert settings == others
        assert (settings["seed"], settings["devices"]) == (job, 2)
        assert "--multirun" in command
        receipt = json.loads((tmp_path / "runs" / f"grid-{job}" / "receipt.json").read_text())
        assert receipt["command"][1:3] == ["-m", "gpt2lab.train"]
        assert receipt["world_size"] == 2
    assert not [pid for pid, *_ in ranks.values() if is_alive(pid)]


@pytest.mark.slow
@needs_two
def test_a_grid_over_devices_trains_on_each_number_of_them(tmp_path):
    code, out, err = end(begin(tmp_path, "--multirun", "devices=2,1"))
    assert code == 0, out + err
    assert folders(tmp_path) == ["grid", "grid-0", "grid-1"]
    assert list(told(tmp_path)) == ["grid-0-rank-0", "grid-0-rank-1"]
    sizes = [
        json.loads((tmp_path / "runs" / name / "receipt.json").read_text())["world_size"]
        for name in ("grid-0", "grid-1")
    ]
    assert sizes == [2, 1]
    printed = [line for line in out.splitlines() if line.startswith("runs/")]
    assert printed == ["runs/grid-0", "runs/grid-1"]


@pytest.mark.slow
@needs_two
def test_a_job_that_fails_leaves_the_others_to_run(tmp_path):
    process = begin(tmp_path, "--multirun", "devices=2", "seed=0,1", KILL_SEED="0")
    code, _, err = end(process)
    assert code == 1
    assert [line.partition(";")[0] for line in err.splitlines()] == [
        "error: a rank: ended by SIGKILL"  # before it could say which
    ]
    assert (tmp_path / "runs" / "grid-1" / "summary.json").exists()


def until_rows(folder, process):
    while not (folder / "runs" / "grid-0" / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@needs_two
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_a_multirun_ends_its_job_with_a_checkpoint(tmp_path, number):
    process = begin(tmp_path, "--multirun", "devices=2", "seed=0,1", "max_steps=100000")
    until_rows(tmp_path, process)
    process.send_signal(number)
    code, _, err = end(process)
    assert code == (-9 if number == signal.SIGKILL else 128 + number), err
    deadline = time.monotonic() + 60
    while alive := [pid for pid, *_ in told(tmp_path).values() if is_alive(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
    assert folders(tmp_path) == ["grid", "grid-0"]
    assert list((tmp_path / "runs" / "grid-0" / "checkpoints").glob("*.ckpt"))


def test_a_signal_that_comes_before_the_process_is_there_is_sent_to_it_once():
    sent = []
    forward = Forward()
    forward.note(signal.SIGTERM, None)
    forward.to(SimpleNamespace(send_signal=sent.append))
    forward.note(signal.SIGINT, None)
    assert sent == [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("line", [b"", b'{"settings": '])
def test_a_job_whose_parent_was_killed_before_it_spoke_leaves_silently(monkeypatch, capsys, line):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert main() == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("target", "n_jobs", "jobs", "at_once"),
    [
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", None, 9, 1),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", 2, 9, 2),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", 4, 3, 3),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", None, 9, 9),
        # on other machines
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", None, 9, 1),
    ],
)
def test_jobs_at_once_are_those_of_this_machine(target, n_jobs, jobs, at_once):
    launcher = OmegaConf.create({"_target_": target, "n_jobs": n_jobs})
    assert jobs_at_once(launcher, jobs) == at_once
