"""From one token to those that it looks at."""

from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.insight.findings import Findings
from gpt2lab.insight.pictures.canvas import (
    ACCENT,
    DPI,
    INK,
    MOST,
    Numbers,
    canvas,
    font_size,
    short,
    token_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ROOM = (28, 14)
"""Points, width and height, that a written weight takes."""


def arcs(found: Findings) -> "Figure":
    """From one token to those that it looks at, over the text."""
    T, token = len(found.labels), found.token
    panels = [
        (found.chosen[token].numpy(), f"layer {found.layer}, head {found.head}"),
        (found.last_block[token].numpy(), "the last layer, the mean of its heads"),
    ]
    figure = canvas(float(np.clip(0.32 * T + 1, 6.5, 15)), 6.4)
    for axes, (weights, title) in zip(figure.subplots(2, 1), panels, strict=True):
        draw_arcs(axes, weights, token)
        axes.set_title(title, loc="left", fontsize=10)
        token_ticks(axes.xaxis, found.labels, fontsize=max(7, font_size(T)))
        axes.get_xticklabels()[token].set(color=ACCENT, fontweight="bold")
    shown = short(found.labels[token])
    figure.suptitle(f'what token {token}, "{shown}", looks at', parse_math=False)
    return figure


def draw_arcs(axes: "Axes", weights: Numbers, token: int) -> None:
    """Arcs as wide as weights (T,), the largest with their numbers."""
    T = len(weights)
    top = max(token, 1) / 2
    axes.set_xlim(-0.7, T - 0.3)
    axes.set_ylim(-0.03 * top, 1.25 * top + 0.2)
    for other in np.argsort(weights[: token + 1]):
        weight = float(weights[other])
        if weight < 0.005:
            continue
        if other == token:
            axes.plot([token], [0], "o", color=MOST, ms=3 + 12 * weight, clip_on=False)
        else:
            place, height = summit(token, int(other))
            angle = np.linspace(0, np.pi, 60)
            axes.plot(
                place + height * np.cos(angle),
                height * np.sin(angle),
                color=MOST,
                alpha=0.25 + 0.75 * weight,
                linewidth=0.6 + 6 * weight,
                solid_capstyle="round",
            )
    named = worth_naming(weights)
    # Before the layout, which makes the axes wider and nothing touch that does not now.
    summits = np.reshape([summit(token, other) for other in named], (-1, 2))
    points = (axes.transData.transform(summits) * 72 / DPI).astype(np.float32)
    for i in apart(points, *ROOM):
        write_weight(axes, summit(token, named[i]), float(weights[named[i]]))
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=2)


def summit(token: int, other: int) -> tuple[float, float]:
    """Of the arc between two tokens."""
    return (token + other) / 2, (token - other) / 2


def worth_naming(weights: Numbers, most: int = 3) -> list[int]:
    """Where the largest weights are, at most so many, largest first; none below 0.05, and none
    that is as large, in the digits shown, as one that is left out."""
    shown = np.round(weights, 2)
    order = np.argsort(-shown, kind="stable")
    left_out = max((float(shown[i]) for i in order[most:]), default=0.0)
    return [int(i) for i in order[:most] if shown[i] > left_out and weights[i] >= 0.05]


def apart(places: Numbers, width: float, height: float) -> list[int]:
    """Which boxes of one size, with these centres (n, 2), touch none that is kept before."""
    kept: list[int] = []
    for i, place in enumerate(places):
        if all((np.abs(place - places[k]) >= (width, height)).any() for k in kept):
            kept.append(i)
    return kept


def write_weight(axes: "Axes", place: tuple[float, float], weight: float) -> None:
    axes.annotate(
        f"{weight:.2f}",
        place,
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
