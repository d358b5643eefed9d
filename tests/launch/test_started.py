"""Which rank a process is, by the variables that torchrun and srun set; no process is started."""

import os

import pytest

from gpt2lab.config import TrainConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.launch.started import Started, check_started, forget_ranks, started, with_devices

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2",
}
SRUN = {
    "SLURM_JOB_ID": "7001",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


def environment(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("by", "variables"), [("torchrun", TORCHRUN), ("srun", SRUN)])
def test_a_rank_knows_its_place(monkeypatch, by, variables):
    environment(monkeypatch, **variables)
    assert started() == Started(by, rank=3, local_rank=1, node=1, devices=2, nodes=2)
    assert started().world_size == 4


@pytest.mark.parametrize(
    "variables",
    [
        {},
        TORCHRUN | {"WORLD_SIZE": "1"},
        SRUN | {"SLURM_NTASKS": "1"},
        # a batch script, which is no task of a step
        {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"},
    ],
)
def test_one_process_alone_is_no_rank_of_several(monkeypatch, variables):
    environment(monkeypatch, **variables)
    assert started() is None
    assert with_devices(["seed=1"]) == ["seed=1"]


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN])
def test_a_study_that_a_rank_would_run_is_no_part_of_its_training(monkeypatch, variables):
    environment(monkeypatch, **variables)
    before = dict(os.environ)
    try:
        forget_ranks()
        assert started() is None
        assert os.environ.get("SLURM_JOB_ID") == before.get("SLURM_JOB_ID")  # it may be requeued
    finally:
        os.environ.update(before)


def test_nodes_with_different_numbers_of_ranks_are_refused(monkeypatch):
    environment(monkeypatch, **SRUN | {"SLURM_NTASKS": "5"})
    with pytest.raises(ConfigError, match=r"^devices: srun has started 5 ranks on 2 nodes"):
        started()


def test_devices_are_those_that_were_started_unless_they_are_given(monkeypatch):
    environment(monkeypatch, **TORCHRUN)
    assert with_devices(["seed=1"]) == ["seed=1", "devices=2", "num_nodes=2"]
    assert with_devices(["devices=4"]) == ["devices=4", "num_nodes=2"]
    settings = settings_from("train", with_devices(["trainer=cpu"])).settings
    assert settings.world_size == 4
    check_started(settings)


@pytest.mark.parametrize(
    ("devices", "nodes", "line"),
    [
        (4, 2, "devices: devices=4 num_nodes=2 asks for 8 ranks, torchrun has started 4, as of "),
        (2, 1, "num_nodes: devices=2 num_nodes=1 asks for 2 ranks, torchrun has started 4, as of "),
    ],
)
def test_other_ranks_than_were_started_are_refused(monkeypatch, devices, nodes, line):
    environment(monkeypatch, **TORCHRUN)
    with pytest.raises(ConfigError, match="^" + line):
        check_started(TrainConfig(devices=devices, num_nodes=nodes))


def test_nodes_on_which_nobody_has_started_ranks_are_refused():
    with pytest.raises(ConfigError, match=r"^num_nodes: 2 .* torchrun --nnodes=2 --nproc-per-node"):
        check_started(TrainConfig(devices=8, num_nodes=2))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["num_nodes=0"], "num_nodes: 0 is out of range"),
        (
            ["devices=2", "num_nodes=3", "batch_size=8"],
            "devices: 6 devices of 3 nodes do not divide batch_size=8",
        ),
        (["+trainer.num_nodes=2"], "trainer.num_nodes: is not set there; use num_nodes"),
        (["num_nodes=2", "strategy=single"], "strategy: single is for one device, not devices=2"),
    ],
)
def test_settings_count_the_devices_of_all_nodes(overrides, line):
    with pytest.raises(ConfigError, match="^" + line.replace("+", r"\+")):
        settings_from("train", ["data=sort", *overrides])
