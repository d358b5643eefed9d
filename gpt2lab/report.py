"""What a finished run says of itself: summary.json, and a few answers in the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2lab.callbacks import Stop, Throughput
from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.measure import peak_bytes
from gpt2lab.metrics import last_and_best, read_metrics
from gpt2lab.samples import answers, continuations


def summarize(metrics: Path, module: Any, throughput: Throughput, stop: Stop) -> dict[str, Any]:
    """The content of summary.json."""
    last, best = last_and_best(read_metrics(metrics))
    steps, mfu, peak = module.trainer.global_step, throughput.mfu, throughput.peak
    return {
        "last": last,
        "best": best,
        "steps": steps,
        "tokens": steps * throughput.tokens_per_step,
        "seconds": round(throughput.seconds, 3),
        "tokens_per_second": round(throughput.tokens_per_second, 1),
        "mfu": None if mfu is None else round(mfu, 4),
        "peak_flops_per_second": None if peak is None else round(peak.flops_per_second),
        "backends": module.backends,
        "micro_batch_size": module.micro_batch_size,
        "peak_memory_bytes": peak_bytes(module.device),
        "stop_reason": stop.reason or "a callback",
        "ended_by": stop.ended_by,
    }


def show(module: Any, data: Any, summary: dict[str, Any]) -> None:
    """In the terminal: answers or a continuation, the metrics, and why training stopped."""
    console = Console()
    if data.has_answers:
        console.print(answers_in_colour(answers(module, data, 8)))
    else:
        ((given, more),) = continuations(module, data, prompts=1, new_tokens=128, seed=0)
        console.print(Text.assemble((given, "dim"), more), "", soft_wrap=True, sep="\n")
    show_end(summary)


def show_end(summary: dict[str, Any]) -> None:
    """The metrics, and why training stopped."""
    console = Console(soft_wrap=True)
    for name in HIGHER_IS_BETTER:
        if name in summary["last"]:
            console.print(f"{name:18} {summary['last'][name]:.4g}")
    steps = summary["steps"]
    console.print(f"{steps} step{'s' * (steps != 1)}, {summary['seconds']:.1f} s of training")
    console.print(f"stopped by {summary['stop_reason']}")


def answers_in_colour(rows: list[tuple[str, str, str]]) -> Table:
    """Input, GPT-2's answer, right answer, and whether they are equal."""
    table = Table("input", "GPT-2's answer", "right answer", "right")
    for given, answer, right in rows:
        # Text, for in a plain string rich would take [brackets] for its own.
        cells = (Text(text.strip()) for text in (given, answer, right))
        table.add_row(*cells, "yes" if answer == right else "no")
    return table
