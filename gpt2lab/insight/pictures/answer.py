"""Where each token of an answer looked."""

from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.insight.findings import Findings
from gpt2lab.insight.pictures.canvas import (
    GREEN,
    INK,
    MOST,
    PALE,
    RED,
    SIGNS,
    Numbers,
    canvas,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"right": GREEN, "wrong": RED, "": INK}


def answer(found: Findings) -> "Figure":
    """Where each token of the answer looked: lines from it, below, to what it read, above."""
    panels = [
        (found.chosen.numpy(), f"layer {found.layer}, head {found.head}"),
        (found.last_block.numpy(), "the last layer, the mean of its heads"),
    ]
    figure = canvas(float(np.clip(0.55 * len(found.labels) + 1.2, 7, 15)), 7.4)
    for axes, (weights, title) in zip(figure.subplots(2, 1), panels, strict=True):
        draw_answer(axes, found, weights)
        axes.set_title(title, loc="left", fontsize=10)
    figure.suptitle("where the model looked when it said each token: the thicker, the more")
    return figure


def draw_answer(axes: "Axes", found: Findings, weights: Numbers) -> None:
    T, question, said = len(found.labels), found.text.question, found.text.answer
    assert question is not None
    assert said is not None
    for i in range(len(said)):
        row = question - 1 + i  # the token that is said at i is predicted from here
        x = row + 1
        for column in range(row + 1):
            weight = float(weights[row, column])
            if weight >= 0.03:
                axes.plot(
                    [x, column],
                    [0.06, 0.94],
                    color=MOST,
                    alpha=0.08 + 0.92 * weight,
                    linewidth=0.4 + 8 * weight,
                    solid_capstyle="round",
                )
    for column, label in enumerate(found.labels):
        box_token(axes, column, 1, label, INK if column < question else PALE)
    for i, (token, mark) in enumerate(zip(said, found.text.marks, strict=True)):
        box_token(axes, question + i, 0, found.show(token), COLOURS[mark])
        axes.text(
            *(question + i, -0.15, SIGNS[mark]),
            ha="center",
            va="center",
            fontsize=11,
            color=COLOURS[mark],
        )
    axes.text(-0.8, 1, "read", ha="right", va="center", fontsize=9, color=INK)
    axes.text(-0.8, 0, "said", ha="right", va="center", fontsize=9, color=INK)
    axes.set_xlim(-1.8, T + 0.6)
    axes.set_ylim(-0.22, 1.18)
    axes.set_axis_off()


def box_token(axes: "Axes", x: float, y: float, label: str, colour: str) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour}
    axes.text(
        *(x, y, short(label, 8)),
        ha="center",
        va="center",
        fontsize=11,
        color=colour,
        bbox=box,
        parse_math=False,
    )
