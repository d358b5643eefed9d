"""Attention as squares: all heads, one of them, the mean of the last layer's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.insight.findings import Findings
from gpt2lab.insight.pictures.canvas import (
    ACCENT,
    INK,
    Numbers,
    canvas,
    font_size,
    frame,
    is_dark,
    show_weights,
    token_ticks,
    weight_bar,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN_TOKENS = 16
"""Up to so many tokens each weight is written into its cell."""


def heads(found: Findings) -> "Figure":
    """Every head of every layer, one square each."""
    L, H, T, _ = found.weights.shape
    side = max(0.55, min(1.5, 13 / max(H, 4)))
    figure = canvas(side * H + 1.9, side * L + 1.1)
    axes = figure.subplots()
    step = T + max(1, T // 12)  # a square and the gap behind it
    grid = np.full((L * step, H * step), np.nan)
    for layer in range(L):
        for number in range(H):
            y, x = layer * step, number * step
            weights = found.weights[layer, number].numpy()
            grid[y : y + T, x : x + T] = np.where(np.tri(T), weights, np.nan)
    # The last gap is nobody's.
    image = show_weights(axes, grid[: L * step - (step - T), : H * step - (step - T)])
    for layer in range(L):
        for number in range(H):
            is_chosen = (layer, number) == (found.layer, found.head)
            frame(axes, number * step, layer * step, T, is_chosen)
    axes.set_xticks([i * step + (T - 1) / 2 for i in range(H)], [f"head {i}" for i in range(H)])
    axes.set_yticks([i * step + (T - 1) / 2 for i in range(L)], [f"layer {i}" for i in range(L)])
    axes.tick_params(length=0, labelsize=9 if side > 0.8 else 7)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    weight_bar(figure, image, axes)
    axes.set_title("what each head looks at: a row for each token")
    return figure


def head(found: Findings) -> "Figure":
    title = f"layer {found.layer}, head {found.head}"
    return square(found.chosen.numpy(), found.labels, title, found.text.question)


def last_block(found: Findings) -> "Figure":
    title = f"layer {len(found.weights) - 1}, the last: the mean of its heads"
    return square(found.last_block.numpy(), found.labels, title, found.text.question)


def square(
    weights: Numbers, labels: Sequence[str], title: str, border: int | None = None
) -> "Figure":
    """Attention (T, T) with its tokens.

    Args:
        border: a line is drawn before this token, with which the model's own ones begin.
    """
    T = len(labels)
    side = float(np.clip(0.42 * T, 3.2, max(10, 0.11 * T)))
    figure = canvas(side + 2.6, side + 1.4)
    axes = figure.subplots()
    image = show_weights(axes, np.where(np.tri(T), weights, np.nan))
    size = font_size(T)
    axes.xaxis.tick_top()
    token_ticks(axes.xaxis, labels, fontsize=size)
    token_ticks(axes.yaxis, labels, fontsize=size)
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel("is looked at")
    axes.set_ylabel("looks")
    axes.spines[:].set_visible(False)
    if T <= WRITTEN_TOKENS:
        for row, column in zip(*np.tril_indices(T), strict=True):
            write_number(axes, int(column), int(row), float(weights[row, column]), size)
    if border is not None and border < T:
        axes.plot([-0.5, border - 0.5], [border - 0.5] * 2, color=ACCENT, linewidth=1.5)
        axes.plot([border - 0.5] * 2, [border - 0.5, T - 0.5], color=ACCENT, linewidth=1.5)
    weight_bar(figure, image, axes)
    figure.suptitle(title)
    return figure


def write_number(axes: "Axes", x: float, y: float, value: float, size: float) -> None:
    """A weight in its cell; one that rounds to 0 is left out."""
    if value >= 0.005:
        colour = "white" if is_dark(value) else INK
        text = f"{value:.2f}".removeprefix("0")
        axes.text(
            *(x, y, text),
            ha="center",
            va="center",
            fontsize=0.8 * size,
            color=colour,
            in_layout=False,
        )
