"""The picture of a run: loss and exact match against steps."""

import io
import math
from pathlib import Path
from typing import Any

from gpt2lab.durable import write_whole
from gpt2lab.metrics import read_metrics

Points = tuple[list[int], list[float]]

SPARSE = 20
"""Up to so many values each has a dot: a line of one point is none."""
WIDE = 4
"""Losses that differ by more, as a ratio, are drawn on a logarithmic axis."""


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw metrics.csv as a PNG; without rows, no picture."""
    rows = read_metrics(metrics)
    if not rows:
        return
    # Here, because it takes a while and only this needs it; the Agg canvas needs no screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = curves(rows, metrics.resolve().parent.name)
    FigureCanvasAgg(figure)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    write_whole(picture, png.getvalue())


def curves(rows: list[dict[str, str]], title: str) -> Any:
    """A figure of these rows of metrics.csv."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    exact_match = _points(rows, "val/exact_match")
    has_exact_match = bool(exact_match[0])
    figure = Figure(figsize=(8, 6 if has_exact_match else 4), layout="constrained")
    axes = figure.subplots(1 + has_exact_match, 1, sharex=True, squeeze=False)[:, 0]
    _draw_losses(axes[0], rows)
    if has_exact_match:
        axes[1].plot(*exact_match, color="tab:green", marker=".", label="val/exact_match")
        axes[1].set_ylabel("exact match (share of inputs)")
        axes[1].set_ylim(-0.03, 1.03)
    for axis in axes:
        if axis.get_lines():
            axis.legend()
        axis.grid(alpha=0.3)
        axis.margins(x=0.02)
    axes[-1].set_xlabel("optimizer steps")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    figure.suptitle(title)
    return figure


def _draw_losses(axis: Any, rows: list[dict[str, str]]) -> None:
    drawn: list[float] = []
    for column, color in {"train/loss": "tab:blue", "val/loss": "tab:orange"}.items():
        steps, losses = _points(rows, column)
        finite = [loss for loss in losses if math.isfinite(loss)]
        if finite:
            dots = "." if column == "val/loss" or len(losses) <= SPARSE else None
            axis.plot(steps, losses, color=color, alpha=0.8, marker=dots, label=column)
        if missing := [s for s, x in zip(steps, losses, strict=True) if not math.isfinite(x)]:
            # On the upper edge, wherever that is.
            axis.plot(
                missing, [1] * len(missing), "x", color=color, clip_on=False,
                transform=axis.get_xaxis_transform(), label=f"{column} is NaN or infinite",
            )  # fmt: skip
        drawn += finite
    axis.set_ylabel("loss (nats per token)")
    if not drawn:
        axis.set_yticks([])
    elif min(drawn) > 0 and max(drawn) > WIDE * min(drawn):
        _logarithmic(axis)


def _logarithmic(axis: Any) -> None:
    """With 2 and 0.005 on it, where matplotlib would write powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")


def _points(rows: list[dict[str, str]], column: str) -> Points:
    present = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
    return [step for step, _ in present], [value for _, value in present]
