"""Whether a training fits, and which settings would make it fit: each is worked out anew."""

from collections.abc import Iterator
from dataclasses import dataclass

from gpt2lab.planning.hardware import Device
from gpt2lab.planning.memory import Memory, memory_of
from gpt2lab.planning.work import Work

MOST_DEVICES = 1024


@dataclass(frozen=True)
class Way:
    """Settings with which it fits, and the memory that is needed then."""

    overrides: tuple[str, ...]
    needed_bytes: int


def memory_on(work: Work, device: Device) -> Memory:
    """Of one device."""
    return memory_of(work, device.beyond)


def needed_bytes(work: Work, device: Device) -> int:
    """Of the memory that a device has, or that all of its node share."""
    return memory_on(work, device).peak * (work.devices_a_node if device.memory_is_shared else 1)


def fits(work: Work, device: Device) -> bool:
    return needed_bytes(work, device) <= device.memory_bytes


def largest_rows(work: Work, device: Device) -> int | None:
    """The largest micro-batch that fits and divides a device's share; None if not even one does."""
    share = work.rows * work.micro_batches
    divisors = (rows for rows in range(share, 0, -1) if share % rows == 0)
    return next((rows for rows in divisors if fits(work.with_rows(rows), device)), None)


def ways(work: Work, device: Device) -> list[Way]:
    """What would make it fit, the smallest change first; empty if nothing here does."""
    found = []
    for changed, overrides in changes(work, device):
        rows = largest_rows(changed, device)
        if rows is not None:
            fitting = changed.with_rows(rows)
            micro = "null" if fitting.micro_batches == 1 else rows
            words = (*overrides, f"micro_batch_size={micro}")
            found.append(Way(words, needed_bytes(fitting, device)))
    return found


def changes(work: Work, device: Device) -> Iterator[tuple[Work, tuple[str, ...]]]:
    """The same step, computed in other ways: less kept, more divided, or both."""
    again = ("model.activation_checkpointing=true",)
    kinds = (
        [(work, ())] if work.model.activation_checkpointing else [(work, ()), (work.again(), again)]
    )
    yield from kinds
    if device.memory_is_shared:  # more processes take more of the same memory
        if work.devices > 1:
            alone = ("devices=1", *(["num_nodes=1"] if work.nodes > 1 else []))
            yield from ((kind.on_one_device(), (*alone, *words)) for kind, words in kinds)
        return
    fewest = MOST_DEVICES + 1
    for kind, overrides in kinds:
        divided = on_fewest_devices(kind, device)
        if divided is not None and divided.devices < fewest:
            fewest = divided.devices
            yield divided, ("strategy=fsdp", f"devices={fewest // work.nodes}", *overrides)


def on_fewest_devices(work: Work, device: Device) -> Work | None:
    """With fsdp on as many devices as it takes, at least those there are and two."""
    for devices in range(max(2, work.devices), MOST_DEVICES + 1):
        is_new = devices > work.devices or not work.is_sharded
        if is_new and devices % work.nodes == 0 and work.sequences % devices == 0:
            divided = work.sharded_over(devices)
            if fits(divided.with_rows(1), device):
                return divided
    return None
