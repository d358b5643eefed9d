"""Cores divided among the jobs of a multirun, and among the ranks of each."""

import os

import pytest
import torch

from gpt2lab.launch import devices


@pytest.fixture
def eight_cores(monkeypatch):
    for name in ("OMP_NUM_THREADS", devices.SHARE):
        monkeypatch.setenv(name, "")  # so that what is set in a test is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(devices, "cpus", lambda: 8)
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    return chosen


def test_ranks_share_the_cores(eight_cores):
    devices.divide_threads(2)
    assert eight_cores == [4]


def test_ranks_of_a_job_beside_others_share_its_share(eight_cores):
    devices.share_cores(2)
    assert os.environ["OMP_NUM_THREADS"] == "4"  # for jobs of one device
    devices.divide_threads(2)
    assert eight_cores == [2]


def test_more_jobs_than_cores_have_a_thread_each(eight_cores):
    devices.share_cores(100)
    devices.divide_threads(2)
    assert eight_cores == [1]


def test_threads_that_a_user_has_chosen_stay(eight_cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    devices.share_cores(2)
    devices.divide_threads(2)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert eight_cores == []
