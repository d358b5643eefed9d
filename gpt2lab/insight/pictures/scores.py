"""What kind of head each one is, and what it is worth, as tables."""

from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.insight.findings import Findings
from gpt2lab.insight.pictures.canvas import (
    INK,
    LESS,
    MORE,
    NONE,
    Numbers,
    blend,
    canvas,
    colour_bar,
    frame,
    is_dark,
    show_weights,
    weight_bar,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scores(found: Findings) -> "Figure":
    """Heads by what they do and what they are worth."""
    L, H = found.costs.shape
    shown = tables(found)
    side = float(np.clip(4.2 / max(H, 3), 0.36, 0.8))
    figure = canvas(len(shown) * (side * H + 1.4) + 0.4, max(2.4, side * L) + 1.2)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (part, (title, table)) in zip(panels, shown.items(), strict=True):
        is_cost = part == "cost"
        top = max(float(np.abs(table).max()), 1e-6)
        if is_cost:
            image = axes.imshow(table, cmap=blend(LESS, NONE, MORE), vmin=-top, vmax=top)
            colour_bar(figure, image, axes, "nats per token")
        else:
            image = show_weights(axes, table)
            weight_bar(figure, image, axes, "mean weight")
        for layer, number in np.ndindex(L, H):
            value = float(table[layer, number])
            is_on_dark = abs(value) > 0.7 * top if is_cost else is_dark(value)
            axes.text(
                *(number, layer, compact(value, 3 if is_cost else 2)),
                ha="center",
                va="center",
                fontsize=8 if side > 0.5 else 5.5,
                color="white" if is_on_dark else INK,
                in_layout=False,
            )
        frame(axes, found.head, found.layer, 1, is_chosen=True)
        axes.set_xticks(range(H))
        axes.set_yticks(range(L))
        axes.tick_params(length=0, labelsize=8)
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        axes.set_title(title, fontsize=10)
        axes.spines[:].set_visible(False)
    return figure


def tables(found: Findings) -> dict[str, tuple[str, Numbers]]:
    """Title and what is known of each head, (L, H), by the part of the page."""
    known = {
        "previous": ("looks at the token before", found.previous_token),
        "induction": ("induction", found.induction),
        "cost": ("cost of its removal", found.costs),
    }
    return {
        part: (title, table.numpy())
        for part, (title, table) in known.items()
        if part in found.parts() and table is not None
    }


def compact(value: float, digits: int) -> str:
    """0.123 as .12, -0.004 as .00 with two digits."""
    if abs(value) >= 1:
        return f"{value:.{digits - 1}f}"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("0.", ".", 1)
