"""A plan as it is read."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gpt2lab.planning.memory import PARTS
from gpt2lab.planning.plan import Plan

PREFIXES = ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)
COUNTS = ("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)
"""Tokens are counted in thousands, millions, billions."""
SPANS = ("days", 2 * 86400, 86400), ("hours", 3600, 3600), ("minutes", 60, 60)
"""From how many seconds on each is used, and how many it has."""


def show(plan: Plan) -> None:
    console = Console(highlight=False, soft_wrap=True)
    show_rows(console, size_rows(plan))
    console.print(memory_table(plan))
    show_fit(console, plan)
    console.print()
    show_rows(console, time_rows(plan))
    for text in plan.assumed:
        console.print(f"assumed: {text}")


def show_rows(console: Console, rows: Iterable[tuple[str, str]]) -> None:
    for name, value in rows:
        console.print(f"{name:17}{value}")


def size_rows(plan: Plan) -> Iterable[tuple[str, str]]:
    work, device, steps = plan.work, plan.device, plan.steps
    count = f"{work.devices} x " if work.devices > 1 else ""
    parts = f"{work.micro_batches} x " if work.micro_batches > 1 else ""
    shares = f" on each of {work.devices} devices" if work.devices > 1 else ""
    yield "hardware", f"{count}{device.name}, {device.precision.name}{', fsdp' * work.is_sharded}"
    yield "parameters", f"{work.parameters.named:,}"
    yield (
        "a step",
        f"{tokens(work.tokens_per_step)}, {operations(work.flops)}: "
        f"{parts}{work.rows} sequences of {work.tokens:,}{shares}",
    )
    yield (
        "in all",
        f"{tokens(steps * work.tokens_per_step)}, {operations(steps * work.flops)}: "
        f"{steps:,} steps",
    )


def memory_table(plan: Plan) -> Table:
    memory = plan.memory
    name, unit = unit_of(memory.peak)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"memory of a device, {name}", no_wrap=True)
    table.add_column("at most", justify="right")
    table.add_column("at the peak", justify="right")
    for part in PARTS:
        if memory.most[part]:
            sizes = (f"{size / unit:,.1f}" for size in (memory.most[part], memory.at_peak[part]))
            table.add_row(part, *sizes)
    table.add_section()
    table.add_row(f"the peak: {memory.moment}", "", f"{memory.peak / unit:,.1f}")
    return table


def show_fit(console: Console, plan: Plan) -> None:
    """Whether it fits, and with what it would; overrides on lines that can be copied."""
    is_shared = plan.device.memory_is_shared
    needed = f"{size(plan.needed_bytes)}{' by all devices' * (is_shared and plan.work.devices > 1)}"
    there = f"{size(plan.device.memory_bytes)}{' that are free' * is_shared}"
    if plan.fits:
        console.print(
            f"fits: {needed} of {there}; the largest micro_batch_size that does is "
            f"{plan.fitting_rows}"
        )
        return
    console.print(f"[bold]does not fit[/bold]: {needed} of {there}")
    if not plan.ways:
        console.print("no smaller micro-batch, no recomputing and no fsdp would make it fit")
        return
    console.print("would fit with")
    for way in plan.ways:
        console.print(f"  {' '.join(way.overrides)}  ({size(way.needed_bytes)})")


def time_rows(plan: Plan) -> Iterable[tuple[str, str]]:
    seconds, hours = plan.seconds, plan.hours
    if seconds is None or hours is None:
        yield "time", "n/a"
        return
    parts = {
        "forward and backward": seconds.products,
        "update": seconds.update,
        "exchange": seconds.exchange,
        "host": seconds.host,
    }
    told = ", ".join(f"{name} {duration(value)}" for name, value in parts.items() if value)
    yield "time of a step", f"{duration(seconds.step)}: {told}"
    yield "tokens a second", f"{plan.tokens_per_second:,.0f}"
    if plan.utilisation is not None:
        yield "utilisation", f"{plan.utilisation:.0%}"
    yield "time", f"{duration(3600 * hours)}, evaluations and checkpoints not counted"
    if plan.money is not None:
        price = plan.settings.price_per_hour
        yield "money", f"{plan.money:,.2f}, a device being {price:g} an hour"


def unit_of(count: int) -> tuple[str, int]:
    """GiB, or MiB for less than two of them."""
    return ("GiB", 2**30) if count >= 2**31 else ("MiB", 2**20)


def size(count: int) -> str:
    name, unit = unit_of(count)
    return f"{count / unit:,.1f} {name}"


def quantity(value: float, prefixes: Iterable[tuple[str, float]]) -> str:
    """Three digits and a prefix: 1.05 M, 10.8 P."""
    for prefix, factor in prefixes:
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def tokens(count: int) -> str:
    return f"{quantity(count, COUNTS).rstrip()} tokens"


def operations(flops: int) -> str:
    return f"{quantity(flops, PREFIXES)}FLOP"


def duration(seconds: float) -> str:
    for name, least, unit in SPANS:
        if seconds >= least:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
