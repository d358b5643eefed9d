"""The picture of a run: loss and exact match against steps."""

import io
from pathlib import Path

from gpt2lab.durable import write_whole
from gpt2lab.metrics import read_metrics

Points = tuple[list[int], list[float]]


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw metrics.csv as a PNG; without rows, no picture."""
    rows = read_metrics(metrics)
    if not rows:
        return
    # Here, because it takes a while and only this needs it; the Agg canvas needs no screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    exact_match = _points(rows, "val/exact_match")
    has_exact_match = bool(exact_match[0])
    figure = Figure(figsize=(8, 6 if has_exact_match else 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + has_exact_match, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(*_points(rows, "train/loss"), color="tab:blue", alpha=0.6, label="train/loss")
    axes[0].plot(*_points(rows, "val/loss"), color="tab:orange", marker=".", label="val/loss")
    axes[0].set_ylabel("loss (nats per token)")
    if max(_points(rows, "train/loss")[1], default=0) > 0:
        axes[0].set_yscale("log")
        # 2 and 0.003, where a logarithmic axis would write powers of ten.
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter(
            LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1))
        )
    axes[0].legend()
    if has_exact_match:
        axes[1].plot(*exact_match, color="tab:green", marker=".", label="val/exact_match")
        axes[1].set_ylabel("exact match (share of inputs)")
        axes[1].set_ylim(-0.03, 1.03)
        axes[1].legend(loc="lower right")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.margins(x=0.02)
    axes[-1].set_xlabel("optimizer steps")
    figure.suptitle(metrics.resolve().parent.name)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    write_whole(picture, png.getvalue())


def _points(rows: list[dict[str, str]], column: str) -> Points:
    present = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
    return [step for step, _ in present], [value for _, value in present]
