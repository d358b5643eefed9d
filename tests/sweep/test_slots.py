"""Which GPUs, and how many threads, each of the trials that run side by side has."""

import os

import pytest

from gpt2lab import launch
from gpt2lab.errors import ConfigError
from gpt2lab.sweep import slots as places
from gpt2lab.sweep.slots import slots, visible_gpus


@pytest.fixture
def machine(monkeypatch):
    """Has eight cores, and GPUs of these names."""

    def made(*gpus: str) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(places, "visible_gpus", lambda: list(gpus))
        monkeypatch.setattr(launch, "cpus", lambda: 8)

    return made


@pytest.mark.parametrize(
    ("gpus", "jobs", "devices", "shown"),
    [
        ("0123", None, 1, ["0", "1", "2", "3"]),
        ("0123", None, 2, ["0,1", "2,3"]),
        ("0123", None, 3, ["0,1,2"]),
        ("57", 2, 1, ["5", "7"]),
        ("01", 4, 1, ["0", "1", "0", "1"]),  # two trials share each
        ("0123", 3, 2, ["0,1", "2,3", "0,1"]),
        ("0123", 1, 1, ["0"]),
    ],
)
def test_each_slot_has_gpus_of_its_own_while_there_are_enough(machine, gpus, jobs, devices, shown):
    machine(*gpus)
    found = [one.environment["CUDA_VISIBLE_DEVICES"] for one in slots(jobs, devices, "auto")]
    assert found == shown


@pytest.mark.parametrize(
    ("jobs", "devices", "count", "threads"),
    [(None, 1, 1, "8"), (2, 1, 2, "4"), (2, 2, 2, "2"), (3, 1, 3, "2"), (16, 1, 16, "1")],
)
def test_without_gpus_the_cores_are_shared(machine, jobs, devices, count, threads):
    machine()
    environments = [one.environment for one in slots(jobs, devices, "auto")]
    assert environments == [{"OMP_NUM_THREADS": threads}] * count


def test_on_cpus_no_gpu_is_handed_out(machine):
    machine("0", "1")
    assert [one.environment for one in slots(2, 1, "cpu")] == [{"OMP_NUM_THREADS": "4"}] * 2


def test_threads_that_were_chosen_stay(machine, monkeypatch):
    machine()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert [one.environment for one in slots(2, 1, "auto")] == [{}, {}]


def test_more_gpus_for_a_trial_than_there_are_is_refused(machine):
    machine("0", "1")
    with pytest.raises(ConfigError) as error:
        slots(1, 3, "auto")
    assert str(error.value) == "devices: 3 were asked for, 2 GPUs were found; choose at most 2"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("2,0", ["2", "0"]),
        ("GPU-8,MIG-1", ["GPU-8", "MIG-1"]),
    ],
)
def test_the_gpus_of_a_slot_are_among_those_that_the_study_may_use(monkeypatch, told, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible_gpus() == found


@pytest.mark.parametrize(
    ("script", "found"),
    [("printf '0\\n1\\n'", ["0", "1"]), ("echo no driver; exit 9", [])],
)
def test_the_driver_is_asked_for_the_gpus(tmp_path, monkeypatch, script, found):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == found
