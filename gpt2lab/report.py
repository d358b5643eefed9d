"""What a finished run says of itself: summary.json, and a table of answers in the terminal."""

from pathlib import Path
from typing import Any

from lightning import Trainer
from rich.console import Console
from rich.table import Table

from gpt2lab import run_folder
from gpt2lab.callbacks import Stop, Throughput
from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.lightning_module import VAL_METRICS
from gpt2lab.loggers import read_metrics


def summarize(
    metrics: Path, trainer: Trainer, throughput: Throughput, stop: Stop
) -> dict[str, Any]:
    """The content of summary.json."""
    rows = read_metrics(metrics)
    last: dict[str, float] = {}
    best: dict[str, float] = {}
    for row in rows:
        for name, text in row.items():
            if name == "step" or not text:
                continue
            last[name] = float(text)
            if name in VAL_METRICS:
                choose = max if HIGHER_IS_BETTER[name] else min
                best[name] = choose(best.get(name, last[name]), last[name])
    steps = trainer.global_step
    return {
        "last": last,
        "best": best,
        "steps": steps,
        "tokens": steps * throughput.tokens_per_step,
        "seconds": round(throughput.seconds, 3),
        "tokens_per_second": round(throughput.tokens_per_second, 1),
        "peak_memory_bytes": run_folder.peak_memory_bytes(),
        "stop_reason": stop.reason or "a callback",
    }


def show_answers(rows: list[tuple[str, str, str]], summary: dict[str, Any]) -> None:
    """The table at the end: input, GPT-2's answer, right answer."""
    table = Table("input", "GPT-2's answer", "right answer", "")
    for given, answer, right in rows:
        table.add_row(given, answer, right, "yes" if answer == right else "no")
    console = Console()
    console.print(table)
    metrics = "  ".join(
        f"{name} {summary['last'][name]:.4f}" for name in VAL_METRICS if name in summary["last"]
    )
    console.print(f"{metrics}\n{summary['steps']} steps, {summary['seconds']:.1f} s of training")
    console.print(f"stopped by {summary['stop_reason']}")
