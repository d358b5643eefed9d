import pytest
import torch

from gpt2lab import peak
from gpt2lab.config import Precision


@pytest.mark.parametrize(
    ("name", "unit", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.7),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "bf16", 835.5),
        ("NVIDIA H200", "fp32", 66.9),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-PCIE-40GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "bf16", 312),
        ("NVIDIA L40S", "bf16", 362.05),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("Tesla V100-SXM2-16GB", "fp32", 15.7),
        ("Tesla T4", "fp32", 8.1),
    ],
)
def test_a_gpu_is_known_by_its_name(name, unit, tera):
    assert peak.named_rate(name, unit) == tera * 1e12


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Tesla V100-SXM2-16GB", "bf16"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA A10G", "bf16"),
        ("AMD Instinct MI300X", "bf16"),
    ],
)
def test_nothing_is_said_of_other_hardware(name, unit):
    assert peak.named_rate(name, unit) is None


def test_a_device_of_no_known_kind_has_no_peak():
    assert peak.peak_of(torch.device("mps"), Precision.bf16) is None
    facts = peak.peak_facts(torch.device("mps"), Precision.bf16)
    assert facts["flops_per_second"] is None
    assert facts["source"].startswith("n/a")


def test_a_cpu_is_measured_without_a_random_number(monkeypatch):
    monkeypatch.setattr(peak, "LARGEST", 64)
    before = torch.get_rng_state()
    found = peak.peak_of(torch.device("cpu"), Precision.fp32)
    assert found.flops_per_second > 1e6
    assert found.source == "measured: square fp32 matrices of 64 rows"
    assert found.of(2).flops_per_second == 2 * found.flops_per_second
    assert torch.equal(torch.get_rng_state(), before)


def test_a_slow_cpu_multiplies_smaller_matrices(monkeypatch):
    sides = []

    def slow(side, dtype):
        sides.append(side)
        return 2 * 512**3 / 0.01  # at 1,024 rows five products take 0.4 s

    monkeypatch.setattr(peak, "best_rate", slow)
    assert peak.matrix_rate(Precision.fp32)[1] == 1024
    assert sides == [512, 1024]
