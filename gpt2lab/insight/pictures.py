"""Findings as PNGs, each a function from numbers to bytes."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.batch import IGNORE
from gpt2lab.insight.findings import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[np.float32]

DPI = 110
INK, PALE, ACCENT = "#1f2937", "#9ca3af", "#c2410c"
ATTENTION = "Blues"
FAINT = 0.5
"""Exponent of the colours of the grid: small weights, which most are, can be told apart."""
WRITTEN_TOKENS = 16
"""Up to so many tokens each weight is written into its cell."""
LENS_COLUMNS = 13
"""Layers of the lens in a PNG, spread over all; the page has every one."""
LONGEST_LABEL = 14


def pictures(found: Findings) -> dict[str, bytes]:
    """Every picture, by the name of its file."""
    drawn: dict[str, Callable[[Findings], Figure]] = {
        "next.png": next_token,
        "answer.png": answer,
        "arcs.png": arcs,
        "head.png": head,
        "heads.png": heads,
        "last_block.png": last_block,
        "lens.png": lens,
        "loss.png": loss,
        "scores.png": scores,
    }
    if found.text.question is None:
        del drawn["answer.png"]
    if not counted(found).any():
        del drawn["loss.png"]
    if not tables(found):
        del drawn["scores.png"]
    return {name: as_png(draw(found)) for name, draw in drawn.items()}


def counted(found: Findings) -> NDArray[np.bool_]:
    """Which tokens have a right next one, (T,)."""
    return np.array(found.text.targets) != IGNORE


def canvas(width: float, height: float) -> "Figure":
    """A figure of so many inches, with no screen behind it."""
    # Here, because it takes a while: --help and a mistake are answered without it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: "Figure") -> bytes:
    png = io.BytesIO()
    with warnings.catch_warnings():
        # The font has no Chinese, say: a box stands in the picture, the sign itself in the page.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(png, format="png", dpi=DPI)
    return png.getvalue()


def short(label: str, longest: int = LONGEST_LABEL) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def token_ticks(axis: Any, labels: Sequence[str], **text: Any) -> None:
    """A label a token, taken as it is: $ begins no formula."""
    shown = [short(label) for label in labels]
    axis.set_ticks(range(len(labels)), shown, parse_math=False, **text)


def font_size(tokens: int) -> float:
    """Points of the labels of so many tokens."""
    return float(np.clip(400 / max(tokens, 1), 6.5, 11))


def turn(labels: Sequence[str]) -> int:
    """Degrees by which labels below each other's tokens are turned: long ones would overlap."""
    return 90 if max(map(len, labels)) > 2 else 0


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
    image = show_weights(axes, grid[: L * step - (step - T), : H * step - (step - T)], FAINT)
    for layer in range(L):
        for number in range(H):
            is_chosen = (layer, number) == (found.layer, found.head)
            frame(axes, number * step, layer * step, T, is_chosen)
    axes.set_xticks([i * step + (T - 1) / 2 for i in range(H)], [f"head {i}" for i in range(H)])
    axes.set_yticks([i * step + (T - 1) / 2 for i in range(L)], [f"layer {i}" for i in range(L)])
    axes.tick_params(length=0, labelsize=9 if side > 0.8 else 7)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    colour_bar(figure, image, axes)
    axes.set_title("what each head looks at: a row for each token")
    return figure


def show_weights(axes: "Axes", weights: Numbers, exponent: float = 1) -> Any:
    from matplotlib.colors import PowerNorm

    norm = PowerNorm(exponent, vmin=0, vmax=1)
    return axes.imshow(weights, cmap=ATTENTION, norm=norm, interpolation="nearest")


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


def colour_bar(figure: "Figure", image: Any, axes: Any, name: str = "attention weight") -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label(name)
    bar.outline.set_visible(False)


def head(found: Findings) -> "Figure":
    title = f"layer {found.layer}, head {found.head}"
    return square(found.chosen.numpy(), found.labels, title)


def last_block(found: Findings) -> "Figure":
    title = f"layer {len(found.weights) - 1}, the last: the mean of its heads"
    return square(found.last_block.numpy(), found.labels, title)


def square(weights: Numbers, labels: Sequence[str], title: str) -> "Figure":
    """Attention (T, T) with its tokens."""
    T = len(labels)
    side = float(np.clip(0.42 * T, 3.2, max(10, 0.11 * T)))
    figure = canvas(side + 2.6, side + 1.4)
    axes = figure.subplots()
    image = show_weights(axes, np.where(np.tri(T), weights, np.nan))
    size = font_size(T)
    token_ticks(axes.xaxis, labels, rotation=turn(labels), fontsize=size)
    token_ticks(axes.yaxis, labels, fontsize=size)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel("is looked at")
    axes.set_ylabel("looks")
    axes.spines[:].set_visible(False)
    if T <= WRITTEN_TOKENS:
        for row, column in zip(*np.tril_indices(T), strict=True):
            write_number(axes, int(column), int(row), float(weights[row, column]), size)
    colour_bar(figure, image, axes)
    figure.suptitle(title)
    return figure


def write_number(axes: "Axes", x: float, y: float, value: float, size: float) -> None:
    """A weight in its cell; one that rounds to 0 is left out."""
    if value >= 0.005:
        colour = "white" if value > 0.6 else INK
        text = f"{value:.2f}".removeprefix("0")
        axes.text(x, y, text, ha="center", va="center", fontsize=0.8 * size, color=colour)


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
        token_ticks(
            axes.xaxis, found.labels, rotation=turn(found.labels), fontsize=max(7, font_size(T))
        )
        axes.get_xticklabels()[token].set(color=ACCENT, fontweight="bold")
    shown = short(found.labels[token])
    figure.suptitle(f'what token {token}, "{shown}", looks at', parse_math=False)
    return figure


def draw_arcs(axes: "Axes", weights: Numbers, token: int) -> None:
    """Arcs as wide as weights (T,), the largest with their numbers."""
    T = len(weights)
    largest = set(np.argsort(weights)[-3:])
    top = max(token, 1) / 2
    for other in np.argsort(weights[: token + 1]):
        weight = float(weights[other])
        if weight < 0.005:
            continue
        place = (token + other) / 2
        height = (token - other) / 2
        if other == token:
            axes.plot([token], [0], "o", color="tab:blue", ms=3 + 12 * weight, clip_on=False)
        else:
            angle = np.linspace(0, np.pi, 60)
            axes.plot(
                place + height * np.cos(angle),
                height * np.sin(angle),
                color="tab:blue",
                alpha=0.25 + 0.75 * weight,
                linewidth=0.6 + 6 * weight,
                solid_capstyle="round",
            )
        if other in largest and weight >= 0.05:
            axes.annotate(
                f"{weight:.2f}",
                (place, height),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
            )
    axes.set_xlim(-0.7, T - 0.3)
    axes.set_ylim(-0.03 * top, 1.25 * top + 0.2)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=2)


def answer(found: Findings) -> "Figure":
    """Where each token of the answer looked: lines from it, below, to what it read, above."""
    question = found.text.question
    assert question is not None
    given = found.text.answer
    assert given is not None
    panels = [
        (found.chosen.numpy(), f"layer {found.layer}, head {found.head}"),
        (found.last_block.numpy(), "the last layer, the mean of its heads"),
    ]
    T, said = len(found.labels), [found.show(i) for i in given]
    figure = canvas(float(np.clip(0.55 * T + 1.2, 7, 15)), 7.4)
    for axes, (weights, title) in zip(figure.subplots(2, 1), panels, strict=True):
        draw_answer(axes, weights, found.labels, said, question, found.text.right, given)
        axes.set_title(title, loc="left", fontsize=10)
    figure.suptitle("where the model looked when it said each token: the thicker, the more")
    return figure


def draw_answer(
    axes: "Axes",
    weights: Numbers,
    read: Sequence[str],
    said: Sequence[str],
    question: int,
    right: Sequence[int] | None,
    given: Sequence[int],
) -> None:
    T = len(read)
    for i in range(len(said)):
        row = question - 1 + i  # the token that is said at i is predicted from here
        x = row + 1
        for column in range(row + 1):
            weight = float(weights[row, column])
            if weight >= 0.03:
                axes.plot(
                    [x, column],
                    [0.06, 0.94],
                    color="tab:blue",
                    alpha=0.08 + 0.92 * weight,
                    linewidth=0.4 + 8 * weight,
                    solid_capstyle="round",
                )
    for column, label in enumerate(read):
        box_token(axes, column, 1, label, INK if column < question else PALE)
    for i, label in enumerate(said):
        is_wrong = right is not None and (i >= len(right) or given[i] != right[i])
        box_token(axes, question + i, 0, label, "tab:red" if is_wrong else "tab:green")
    axes.text(-0.8, 1, "read", ha="right", va="center", fontsize=9, color=INK)
    axes.text(-0.8, 0, "said", ha="right", va="center", fontsize=9, color=INK)
    axes.set_xlim(-1.8, T + 0.6)
    axes.set_ylim(-0.18, 1.18)
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


def lens(found: Findings) -> "Figure":
    """A row a token, a column a layer: what would be said next, and how sure it is."""
    T, layers = len(found.labels), found.said.token_ids.shape[0]
    columns = np.unique(np.linspace(0, layers - 1, min(layers, LENS_COLUMNS)).round().astype(int))
    ids = found.said.token_ids[columns, :, 0].T.tolist()  # (T, columns)
    sure = found.said.probabilities[columns, :, 0].T.numpy()
    figure = canvas(0.95 * len(columns) + 3.2, max(0.27 * T, 1.6) + 1.3)
    axes = figure.subplots()
    image = axes.imshow(sure, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(sure.shape):
        shown = short(found.show(ids[row][column]), 10)
        is_right = ids[row][column] == found.text.targets[row]
        axes.text(
            *(column, row, shown),
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if is_right else "normal",
            color="white" if sure[row, column] > 0.6 else INK,
            parse_math=False,
        )
    token_ticks(axes.yaxis, found.labels, fontsize=8)
    names = ["embedding" if i == 0 else f"layer {i - 1}" for i in columns]
    axes.set_xticks(range(len(columns)), names, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_ylabel("after this token")
    axes.spines[:].set_visible(False)
    colour_bar(figure, image, axes, "probability of the token that is written")
    is_judged = bool(counted(found).any())
    figure.suptitle(
        "what each layer would say next" + (", bold where it is right" if is_judged else ""),
    )
    return figure


def next_token(found: Findings) -> "Figure":
    """The likeliest tokens after the chosen one, as bars."""
    ids = found.said.token_ids[-1, found.token].tolist()
    likely = found.said.probabilities[-1, found.token].numpy()
    target = found.text.targets[found.token]
    figure = canvas(6.5, 0.34 * len(ids) + 1.2)
    axes = figure.subplots()
    colours = ["tab:green" if i == target else "tab:blue" for i in ids]
    bars = axes.barh(range(len(ids)), likely, color=colours)
    axes.bar_label(bars, [f"{p:.3g}" for p in likely], padding=4, fontsize=9, color=INK)
    axes.invert_yaxis()
    token_ticks(axes.yaxis, [found.show(i) for i in ids])
    axes.set_xlim(0, min(1.15, 1.2 * float(likely.max())))
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("probability")
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    before = short(found.labels[found.token])
    is_shown = target in ids
    axes.set_title(
        f'the next token after token {found.token}, "{before}"'
        + (", green: the right one" if is_shown else ""),
        fontsize=11,
        parse_math=False,
    )
    return figure


def loss(found: Findings) -> "Figure":
    """What each right next token cost, and its rank."""
    shown = np.flatnonzero(counted(found))
    nats = found.scores.loss[-1].numpy()[shown]
    ranks = found.scores.rank[-1].numpy()[shown]
    figure = canvas(float(np.clip(0.32 * len(shown) + 1.5, 6.5, 15)), 3.6)
    axes = figure.subplots()
    wanted = [found.show(found.text.targets[t]) for t in shown]
    bars = axes.bar(range(len(shown)), nats, color="tab:orange")
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
        rotation=turn(wanted),
        fontsize=max(7, size),
    )
    axes.set_ylabel("loss (nats)")
    axes.margins(x=0.01, y=0.22 if is_crowded else 0.12)
    axes.spines[["right", "top"]].set_visible(False)
    axes.set_title(
        f"loss of each right next token, {nats.mean():.3f} on average\n"
        "above it, the token's rank: 1 is the likeliest",
        fontsize=10,
    )
    return figure


def tables(found: Findings) -> list[tuple[str, Numbers]]:
    """What is known of each head, (L, H) each, by its title."""
    known = {
        "looks at the token before": found.previous_token,
        "induction": found.induction,
        "cost of its removal (nats per token)": found.costs,
    }
    return [
        (title, table.numpy())
        for title, table in known.items()
        if table is not None and not table.isnan().any()
    ]


def scores(found: Findings) -> "Figure":
    """Heads by what they do and what they are worth."""
    L, H = found.costs.shape
    shown = tables(found)
    side = float(np.clip(4.2 / max(H, 3), 0.36, 0.8))
    figure = canvas(len(shown) * (side * H + 1.4) + 0.4, max(2.4, side * L) + 1.2)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, table) in zip(panels, shown, strict=True):
        is_cost = name.startswith("cost")
        top = max(float(np.abs(table).max()), 1e-6)
        limits = (-top, top) if is_cost else (0, 1)
        cmap = "RdBu_r" if is_cost else "Purples"
        image = axes.imshow(table, cmap=cmap, vmin=limits[0], vmax=limits[1], aspect="equal")
        for layer, number in np.ndindex(L, H):
            value = float(table[layer, number])
            strength = abs(value) / limits[1]
            axes.text(
                *(number, layer, compact(value)),
                ha="center",
                va="center",
                fontsize=8 if side > 0.5 else 5.5,
                color="white" if strength > 0.65 else INK,
            )
        frame(axes, found.head, found.layer, 1, is_chosen=True)
        axes.set_xticks(range(H))
        axes.set_yticks(range(L))
        axes.tick_params(length=0, labelsize=8)
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        axes.set_title(name, fontsize=10)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, shrink=0.8, aspect=25, pad=0.02).outline.set_visible(False)
    return figure


def compact(value: float) -> str:
    """0.12 as .12, -0.004 as .00."""
    return (
        f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.1f}"
    )
