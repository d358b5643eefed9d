"""What is known of GPUs, and of this machine."""

import pytest
import torch

from gpt2lab.config import Hardware, Precision
from gpt2lab.peak import named_rate
from gpt2lab.planning.hardware import (
    CARDS,
    CPU_FIRST_STEP,
    GIB,
    card_of,
    device_of,
    imported_bytes,
)
from tests.planning.works import gpu, settings


def test_every_gpu_that_can_be_named_is_known():
    assert {"this", *CARDS} == {*Hardware.__members__}
    for name, card in CARDS.items():
        assert named_rate(card.driver_name, "fp32"), name


def test_a_gpu_has_the_numbers_of_its_data_sheet():
    device = device_of(settings("hardware=a100-80gb"))
    assert device.peak.flops_per_second == 312e12
    assert device.bytes_per_second == 2.039e12
    assert device.link_bytes_per_second == 300e9
    assert device.memory_bytes == pytest.approx(79.2 * GIB)
    assert device.precision is Precision.bf16


def test_a_gpu_without_bf16_trains_in_fp32():
    device = card_of("t4", Precision.auto, 1.0)
    assert device.precision is Precision.fp32
    assert device.peak.flops_per_second == 8.1e12
    assert card_of("t4", Precision.bf16, 1.0).peak is None


def test_a_link_can_be_named():
    device = device_of(settings("hardware=h100", "link_gigabytes_per_second=12.5"))
    assert device.link_bytes_per_second == 12.5e9


def test_a_gpu_takes_something_for_itself():
    assert gpu(1).beyond(0) == 0
    assert gpu(1).beyond(10**9) > 0
    assert card_of("l4", Precision.auto, 1.0).beyond(0) == GIB


def test_this_machine_is_its_cpu_where_that_is_asked_for():
    device = device_of(settings("trainer=cpu", "precision=fp32"))
    assert device.device == torch.device("cpu")
    assert device.memory_is_shared
    assert device.peak.flops_per_second > 1e8
    assert device.memory_bytes > 2**28
    # A quarter of a little is spare besides, and of much 64 MiB.
    little, much = (device.beyond(tensors) - device.beyond(0) for tensors in (10**6, 10**10))
    assert little == pytest.approx(0.31 * 10**6)
    assert much == pytest.approx(0.06 * 10**10 + 64 * 2**20)
    assert device.beyond(0) == pytest.approx(imported_bytes() + CPU_FIRST_STEP, rel=0.1)
