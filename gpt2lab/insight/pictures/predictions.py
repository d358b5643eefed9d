"""What would be said next, by each layer and by the model, and how right it was."""

from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.batch import IGNORE
from gpt2lab.insight.findings import Findings
from gpt2lab.insight.pictures.canvas import (
    ACCENT,
    GREEN,
    INK,
    MOST,
    NONE,
    SOME,
    blend,
    canvas,
    colour_bar,
    font_size,
    short,
    token_ticks,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENS_COLUMNS = 13
"""Layers of the lens in a PNG, spread over all; the page has every one."""


def lens(found: Findings) -> "Figure":
    """A row a token, a column a layer: what would be said next, and how sure it is."""
    T, layers = len(found.labels), found.said.token_ids.shape[0]
    columns = np.unique(np.linspace(0, layers - 1, min(layers, LENS_COLUMNS)).round().astype(int))
    ids = found.said.token_ids[columns, :, 0].T.tolist()  # (T, columns)
    sure = found.said.probabilities[columns, :, 0].T.numpy()
    figure = canvas(0.95 * len(columns) + 3.2, max(0.27 * T, 1.6) + 1.3)
    axes = figure.subplots()
    image = axes.imshow(sure, cmap=blend(NONE, SOME, MOST), vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(sure.shape):
        shown = short(found.show(ids[row][column]), 10)
        is_wanted = ids[row][column] == found.text.targets[row]
        axes.text(
            *(column, row, shown),
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if is_wanted else "normal",
            color="white" if sure[row, column] > 0.6 else INK,
            parse_math=False,
            in_layout=False,  # it lies in its cell; to be asked for its place would take seconds
        )
    token_ticks(axes.yaxis, found.labels, fontsize=8)
    names = ["embedding" if i == 0 else f"layer {i - 1}" for i in columns]
    axes.set_xticks(range(len(columns)), names, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_ylabel("after this token")
    axes.spines[:].set_visible(False)
    colour_bar(figure, image, axes, "probability of the token that is written")
    bold = f", bold where it is the {found.text.wanted}" if "loss" in found.parts() else ""
    figure.suptitle(f"what each layer would say next{bold}")
    return figure


def next_token(found: Findings) -> "Figure":
    """The likeliest tokens after the chosen one, as bars."""
    ids = found.said.token_ids[-1, found.token].tolist()
    likely = found.said.probabilities[-1, found.token].numpy()
    target = found.text.targets[found.token]
    figure = canvas(6.5, 0.34 * len(ids) + 1.2)
    axes = figure.subplots()
    colours = [GREEN if i == target else MOST for i in ids]
    bars = axes.barh(range(len(ids)), likely, color=colours)
    axes.bar_label(bars, [f"{p:.3g}" for p in likely], padding=4, fontsize=9, color=INK)
    axes.invert_yaxis()
    token_ticks(axes.yaxis, [found.show(i) for i in ids])
    axes.set_xlim(0, min(1, 1.2 * float(likely.max())))
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("probability")
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    before = short(found.labels[found.token])
    green = f", green: the {found.text.wanted}" if target in ids else ""
    axes.set_title(
        f'the next token after token {found.token}, "{before}"{green}',
        fontsize=11,
        parse_math=False,
    )
    return figure


def loss(found: Findings) -> "Figure":
    """What each target cost, and its rank."""
    shown = np.flatnonzero(np.array(found.text.targets) != IGNORE)
    nats = found.scores.loss[-1].numpy()[shown]
    ranks = found.scores.rank[-1].numpy()[shown]
    figure = canvas(float(np.clip(0.32 * len(shown) + 1.5, 6.5, 15)), 3.6)
    axes = figure.subplots()
    wanted = [found.show(found.text.targets[t]) for t in shown]
    bars = axes.bar(range(len(shown)), nats, color=ACCENT)
    size = font_size(len(shown))
    is_crowded = len(shown) > 24 and ranks.max() >= 100
    axes.bar_label(
        bars,
        [f"{rank:,}" for rank in ranks],
        rotation=90 if is_crowded else 0,
        fontsize=8,
        padding=2,
    )
    token_ticks(
        axes.xaxis,
        wanted,
        fontsize=max(7, size),
    )
    axes.set_xlabel(f"the {found.text.wanted}")
    axes.set_ylabel("loss (nats)")
    axes.margins(x=0.01, y=0.22 if is_crowded else 0.12)
    axes.spines[["right", "top"]].set_visible(False)
    axes.set_title(
        f"loss of each {found.text.wanted}, {nats.mean():.3f} on average\n"
        "above it, the token's rank: 1 is the likeliest",
        fontsize=10,
    )
    return figure
