"""Several ranks, here two processes over gloo: the same training as on one device, and one end."""

import csv
import json

import pytest
import torch

from gpt2lab import fit
from gpt2lab.errors import ConfigError
from gpt2lab.launch import cpus

pytestmark = pytest.mark.skipif(cpus() < 2, reason="two ranks need two CPU cores")

TINY = [
    "model=nano",
    "trainer=cpu",
    "precision=fp32",
    "model.dropout=0",
    "batch_size=8",
    "stop_at=null",
    "schedule.warmup_steps=1",
    "trainer.log_every_n_steps=1",
]


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(folder, name):
    return [float(row[name]) for row in rows(folder) if row[name]]


def test_two_ranks_leave_one_run_folder_as_one_does(tmp_path):
    overrides = [*TINY, "data=sort", "max_steps=4", "eval_every=2", f"runs_dir={tmp_path}"]
    alone = fit([*overrides, "name=alone"])
    both = fit([*overrides, "name=both", "devices=2"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "both"]
    files = [sorted(p.name for p in run.folder.rglob("*")) for run in (alone, both)]
    assert files[0] == files[1]
    assert [row["step"] for row in rows(both.folder)] == ["1", "2", "3", "4"]
    for name in ("train/loss", "train/grad_norm", "val/loss", "val/exact_match"):
        found, wanted = column(both.folder, name), column(alone.folder, name)
        assert found == pytest.approx(wanted, rel=1e-4), name  # fp32, four steps on
    receipt = json.loads((both.folder / "receipt.json").read_text())
    assert receipt["world_size"] == 2
    assert "spawn" not in receipt["command"]
    for name in ("steps", "tokens", "stop_reason"):
        assert both.summary[name] == alone.summary[name]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["devices=2", "batch_size=9"], "devices: 2 devices do not divide batch_size=9"),
        (
            ["devices=2", "micro_batch_size=3"],
            "micro_batch_size: 3 on 2 devices does not divide batch_size=8",
        ),
        (["devices=0"], "devices: 0 is out of range"),
        (["devices=2", "max_restarts=-1"], "max_restarts: -1 is out of range"),
        (
            ["devices=4096", "batch_size=4096"],
            f"devices: 4096 were asked for, {cpus()} CPU cores were found",
        ),
        (
            ["+strategy.bucket_cap_mb=1"],
            "strategy.bucket_cap_mb: no strategy is chosen; add strategy=ddp or strategy=fsdp",
        ),
        (["devices=2", "strategy=single"], "strategy: single is for one device"),
        (
            ["strategy=fsdp", "strategy.reshard_after_forward=maybe"],
            "strategy.reshard_after_forward: 'maybe' is not true or false",
        ),
        (
            ["devices=2", "strategy=ddp", "+strategy.static_graph=maybe"],
            "strategy.static_graph: 'maybe' is not true or false",
        ),
        (
            ["devices=2", "strategy=ddp", "+strategy.bucket_cap_mb=abc"],
            "strategy.bucket_cap_mb: 'abc' is no size in MiB",
        ),
        (
            ["devices=2", "strategy=ddp", "+strategy.bucket_cap=1"],
            "strategy: there is no argument 'bucket_cap'",
        ),
        (
            ["devices=2", "strategy=fsdp", "micro_batch_size=auto", "trainer=gpu"],
            "micro_batch_size: auto tries what does not fit",
        ),
        (
            ["devices=2", "strategy=ddp", "strategy._target_=os.system"],
            "strategy._target_: os.system is not allowed",
        ),
    ],
)
def test_devices_that_cannot_share_a_step_are_refused(tmp_path, overrides, problem):
    with pytest.raises(ConfigError, match="^" + problem.replace("(", r"\(")):
        fit([*TINY, "data=sort", f"runs_dir={tmp_path}", *overrides])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said without a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.accelerator: gpu was asked for, 0 GPUs"):
        fit([*TINY, "data=sort", "trainer=gpu", "devices=2", f"runs_dir={tmp_path}"])


@pytest.mark.gpu
def test_more_gpus_than_there_are_are_refused(tmp_path):
    found = torch.cuda.device_count()
    asked = f"devices: {found + 1} were asked for, {found} GPUs were found"
    with pytest.raises(ConfigError, match=asked):
        fit(
            [
                *TINY,
                "data=sort",
                "trainer=gpu",
                f"devices={found + 1}",
                f"batch_size={found + 1}",
                f"runs_dir={tmp_path}",
            ]
        )


def test_one_device_that_cannot_be_started_again_is_told_so(tmp_path):
    overrides = ["data=sort", "max_steps=1", f"runs_dir={tmp_path}", "max_restarts=1"]
    with pytest.warns(UserWarning, match=r"^max_restarts: is without effect on one device"):
        fit([*TINY, *overrides])
