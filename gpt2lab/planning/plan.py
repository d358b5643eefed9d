"""A plan: the model's size, a step's work, memory by part, time and money."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt2lab.config import GPT2Config, Hardware, PairsConfig, PlanConfig, TextConfig, Vocabulary
from gpt2lab.config.check.train import AUTO
from gpt2lab.data.prepare import corpus_folder
from gpt2lab.data.tokens import is_prepared, read_manifest
from gpt2lab.planning.fit import Way, fits, largest_rows, memory_on, needed_bytes, ways
from gpt2lab.planning.hardware import GPU_EFFICIENCY, Device, device_of
from gpt2lab.planning.memory import Memory
from gpt2lab.planning.seconds import LINK_SHARE, Known, Rates, Seconds, seconds_of
from gpt2lab.planning.timing import memory_rate, timed
from gpt2lab.planning.work import Work, work_of
from gpt2lab.tokenizer import from_plain

ASSUMED_CHARACTERS = 256
"""Of text that is not prepared yet: English has about 100, other scripts more."""


@dataclass(frozen=True)
class Plan:
    """
    Args:
        seconds: of a step; None where nothing is known of the hardware's speed.
        fitting_rows: the largest micro-batch that fits, the other settings being as they are.
        ways: what would make it fit, if it does not.
        assumed: what was not known, in words.
    """

    settings: PlanConfig
    device: Device
    work: Work
    memory: Memory
    seconds: Seconds | None
    fitting_rows: int | None
    ways: list[Way]
    assumed: list[str]

    @property
    def fits(self) -> bool:
        return fits(self.work, self.device)

    @property
    def needed_bytes(self) -> int:
        return needed_bytes(self.work, self.device)

    @property
    def tokens_per_second(self) -> float | None:
        return None if self.seconds is None else self.work.tokens_per_step / self.seconds.step

    @property
    def steps(self) -> int:
        """All, or as far as max_minutes are known to reach; the last is begun within them."""
        most, minutes = self.settings.max_steps, self.settings.max_minutes
        if minutes is None or self.seconds is None:
            return most
        return min(most, math.ceil(60 * minutes / self.seconds.step))

    @property
    def hours(self) -> float | None:
        """Of all steps, without evaluations and checkpoints."""
        return None if self.seconds is None else self.steps * self.seconds.step / 3600

    @property
    def money(self) -> float | None:
        price = self.settings.price_per_hour
        if self.hours is None or price is None:
            return None
        return self.hours * self.work.devices * price

    @property
    def utilisation(self) -> float | None:
        """The model's operations over what the devices could do: train/mfu."""
        peak = self.device.peak
        if self.seconds is None or peak is None:
            return None
        devices = self.work.nodes if self.device.memory_is_shared else self.work.devices
        return self.work.flops / self.seconds.step / peak.of(devices).flops_per_second

    def results(self) -> dict[str, Any]:
        """Every number, in JSON's types."""
        work, memory, seconds = self.work, self.memory, self.seconds
        return {
            "hardware": self.device.name,
            "precision": self.device.precision.name,
            "devices": work.devices,
            "parameters": work.parameters.named,
            "flops_a_step": work.flops,
            "steps": self.steps,
            "flops": work.flops * self.steps,
            "tokens_a_step": work.tokens_per_step,
            "tokens": work.tokens_per_step * self.steps,
            "micro_batch_size": work.rows,
            "micro_batches": work.micro_batches,
            "memory_bytes": memory.peak,
            "memory_moment": memory.moment,
            "memory_by_part": {
                part: {"most_bytes": most, "at_peak_bytes": memory.at_peak[part]}
                for part, most in memory.most.items()
            },
            "needed_bytes": self.needed_bytes,
            "available_bytes": self.device.memory_bytes,
            "fits": self.fits,
            "largest_micro_batch_size": self.fitting_rows,
            "would_fit": [" ".join(way.overrides) for way in self.ways],
            "seconds_a_step": None if seconds is None else seconds.step,
            "seconds_by_part": None if seconds is None else vars(seconds),
            "tokens_per_second": self.tokens_per_second,
            "utilisation": self.utilisation,
            "hours": self.hours,
            "money": self.money,
            "assumed": self.assumed,
        }


def make_plan(settings: PlanConfig) -> Plan:
    """Nothing is downloaded or written, and no data is needed."""
    settings, assumed = with_vocabulary(settings)
    device = device_of(settings)
    work = work_of(settings, device.precision, device.on_gpu)
    if settings.micro_batch_size == AUTO:
        work = work.with_rows(largest_rows(work, device) or 1)
    rates = rates_of(settings, work, device, assumed)
    is_fitting = fits(work, device)
    if work.devices > 1:
        assumed.append(exchange_assumed(work, device))
    cores = os.cpu_count() or 1
    if settings.hardware is Hardware.this and not device.on_gpu and work.devices_a_node > cores:
        assumed.append(
            f"a core for each of {work.devices_a_node} devices; this machine has {cores}"
        )
    return Plan(
        settings=settings,
        device=device,
        work=work,
        memory=memory_on(work, device),
        seconds=None if rates is None else seconds_of(work, rates, device.link_bytes_per_second),
        fitting_rows=largest_rows(work, device),
        ways=[] if is_fitting else ways(work, device),
        assumed=assumed,
    )


def rates_of(settings: PlanConfig, work: Work, device: Device, assumed: list[str]) -> Rates | None:
    """By timing, where the device is here and no share of its peak is given; else by the peak."""
    if device.device is not None and settings.efficiency is None:
        return timed(work, settings.optim, device.device, device.precision, settings.compile)
    if device.peak is None:
        assumed.append(f"nothing is known of the speed of {device.name}")
        return None
    efficiency = settings.efficiency
    if efficiency is None:
        efficiency = GPU_EFFICIENCY
        assumed.append(f"efficiency={efficiency:g} of the peak; not measured")
    bytes_per_second = device.bytes_per_second
    if bytes_per_second is None:
        assert device.device is not None
        bytes_per_second = memory_rate(device.device)
    return Known(efficiency * device.peak.flops_per_second, bytes_per_second)


def exchange_assumed(work: Work, device: Device) -> str:
    what = "gradients are summed while the last micro-batch goes backward"
    if work.is_sharded:
        what = "weights are gathered for each micro-batch and gradients summed with the last"
    return f"{what}, at {LINK_SHARE:.0%} of {device.link_bytes_per_second / 1e9:g} GB/s"


def with_vocabulary(settings: PlanConfig) -> tuple[PlanConfig, list[str]]:
    """The settings with as many ids as the data's tokenizer has, and what was assumed of it."""
    data, model = settings.data, settings.model
    if model.vocab_size is not None:
        return settings, []
    assumed: list[str] = []
    vocab_size = prepared_vocabulary(settings)
    if vocab_size is None:
        vocab_size = GPT2Config().vocab_size
        if isinstance(data, TextConfig | PairsConfig) and data.tokenizer is Vocabulary.char:
            vocab_size = ASSUMED_CHARACTERS
            assumed.append(
                f"model.vocab_size={vocab_size}: characters are counted when the text is read"
            )
    return replace(settings, model=replace(model, vocab_size=vocab_size)), assumed


def prepared_vocabulary(settings: PlanConfig) -> int | None:
    """Of a corpus that has been prepared already; others' token files are not opened."""
    if not isinstance(settings.data, TextConfig):
        return None
    folder = corpus_folder(settings.data, Path(settings.data_dir))
    if not is_prepared(folder):
        return None
    return from_plain(read_manifest(folder)["tokenizer"]).vocab_size
