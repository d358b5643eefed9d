"""What all pictures share: colours, labels, and how a figure becomes a PNG."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[np.float32]

DPI = 110
INK, PALE, ACCENT = "#1f2937", "#6b7280", "#c2410c"
GREEN, RED = "#15803d", "#b91c1c"
NONE, SOME, MOST = "#f7fbff", "#4292c6", "#08306b"
"""From 0 to 1."""
LESS, MORE = "#2166ac", "#b2182b"
"""From NONE, below and above 0; blue and red are told apart by all eyes, green and red are not."""
SIGNS = {"right": "✓", "wrong": "✗", "": ""}
WEIGHT_TICKS = [0, 0.1, 0.25, 0.5, 1]
LONGEST_LABEL = 14
BRIEF = {"<|endoftext|>": "⟨end⟩"}
"""Labels whose beginning does not tell what they are."""


def canvas(width: float, height: float) -> "Figure":
    """A figure of so many inches, with no screen behind it."""
    # Here, because it takes a while: --help and a mistake are answered without it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: "Figure") -> bytes:
    png = io.BytesIO()
    agg: Any = figure.canvas
    with warnings.catch_warnings():
        # The font has no Chinese, say: a box stands in the picture, the sign itself in the page.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        agg.print_png(png)  # figure.savefig goes through the whole drawing twice
    return png.getvalue()


def short(label: str, longest: int = LONGEST_LABEL) -> str:
    label = BRIEF.get(label, label)
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def token_ticks(axis: Any, labels: Sequence[str], **text: Any) -> None:
    """A label a token, taken as it is: $ begins no formula."""
    shown = [short(label) for label in labels]
    axis.set_ticks(range(len(labels)), shown, parse_math=False, **text)
    if axis.axis_name == "x":
        for tick, degrees in zip(axis.get_ticklabels(), turns(shown), strict=True):
            tick.set_rotation(degrees)


def font_size(tokens: int) -> float:
    """Points of the labels of so many tokens."""
    return float(np.clip(400 / max(tokens, 1), 6.5, 11))


def turns(labels: Sequence[str]) -> list[int]:
    """Degrees by which each label below its token is turned: a long one would overlap others.

    Where no more than a third are long, the others stay upright.
    """
    is_long = [len(label) > 2 for label in labels]
    all_turn = 3 * sum(is_long) > len(labels)
    return [90 if all_turn or long else 0 for long in is_long]


def frame(axes: "Axes", x: float, y: float, side: float, is_chosen: bool) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (x - 0.5, y - 0.5),
            *(side, side),
            fill=False,
            clip_on=False,
            edgecolor=ACCENT if is_chosen else PALE,
            linewidth=2 if is_chosen else 0.5,
        )
    )


def blend(*colours: str) -> Any:
    """A map of colours, which are as far from each other as they stand."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", colours)


def show_weights(axes: "Axes", weights: Numbers) -> Any:
    """Weights of 0..1 by the colour of their square roots: small ones, which most are, can be told
    apart."""
    from matplotlib.colors import PowerNorm

    norm = PowerNorm(0.5, vmin=0, vmax=1)
    return axes.imshow(weights, cmap=blend(NONE, SOME, MOST), norm=norm, interpolation="nearest")


def is_dark(weight: float) -> bool:
    """Whether what is written on a weight's colour has to be white."""
    return bool(np.sqrt(weight) > 0.6)


def weight_bar(figure: "Figure", image: Any, axes: Any, name: str = "attention weight") -> None:
    """The colours of `show_weights`, each weight where its colour is."""
    colour_bar(figure, image, axes, name, ticks=WEIGHT_TICKS, format="{x:g}")


def colour_bar(figure: "Figure", image: Any, axes: Any, name: str, **ticks: Any) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02, **ticks)
    bar.set_label(name)
    bar.outline.set_visible(False)
