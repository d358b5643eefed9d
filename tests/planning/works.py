"""Work to be planned, by overrides of `plan`."""

from dataclasses import replace

from gpt2lab.config import PlanConfig, Precision
from gpt2lab.config.compose import settings_from
from gpt2lab.planning.hardware import GIB, Device
from gpt2lab.planning.plan import with_vocabulary
from gpt2lab.planning.work import Work, work_of


def settings(*overrides: str) -> PlanConfig:
    composed = settings_from("plan", ["data=text", "data.path=x", "~experiment", *overrides])
    return with_vocabulary(composed.settings)[0]


def work(*overrides: str, bf16: bool = True, on_gpu: bool = True, **changed: object) -> Work:
    precision = Precision.bf16 if bf16 else Precision.fp32
    return replace(work_of(settings(*overrides), precision, on_gpu), **changed)


def gpu(memory_gib: float) -> Device:
    """One of which nothing but its memory counts, and that takes nothing for itself."""
    return Device("gpu", None, Precision.bf16, None, round(memory_gib * GIB), False, 0, 1e12, 100e9)
