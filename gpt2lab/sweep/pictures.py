"""The pictures of a study, for files and for a page."""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from gpt2lab.config.check.study import Parameter
from gpt2lab.metrics import read_metrics
from gpt2lab.sweep import goals
from gpt2lab.sweep.answers import by_choice, front, importance
from gpt2lab.sweep.axes import ABOVE, MARGIN, Height, Scale, goal_text
from gpt2lab.sweep.looks import COLOURS, INK, PAPER, Look, look
from gpt2lab.sweep.results import best, interval, number, of_goal, ranked
from gpt2lab.sweep.study import Study
from gpt2lab.sweep.trials import Point, State

WIDTH = 5.0
"""Inches: at 72 pixels each, as wide as a telephone's screen."""
TITLE = 58
"""Letters of a title that stand in a line."""
MOST_LETTERS = 32
"""Of a name of a legend that leaves room for another beside it."""
LINE = 0.06
"""Of the height of parallel(), what a line of text takes."""
MOST_SHIFT = 4.0
"""Points between groups that stand beside each other, as wide as their marks; of many, less."""
FEWEST_SEEDS = 3
"""Of two, a 95 % interval reaches so far that it would be all there is to see."""


def parallel(study: Study, points: Sequence[Point]) -> Figure | None:
    """Each point a line through its settings and what it reached; the best of them thick."""
    wanted = goals.directions(study.config)
    shown = ranked(points, wanted[0])[::-1]
    if not shown:
        return None
    scales = [Scale(parameter) for parameter in study.space]
    heights = [Height(g, [p.values[i] for p in shown]) for i, g in enumerate(study.config.goal)]
    names = [*(scale.parameter.name for scale in scales), *map(goal_text, study.config.goal)]
    title = f"{study.name}: settings of each point, and what it reached"
    figure, (axis,) = _figure(title, max(WIDTH, 1.4 * len(names)), [3.2])
    colour, chosen = _by_rank(len(shown)), best(study, points)
    for place, point in enumerate(shown):
        y = [scale.share(point.params[scale.parameter.name]) for scale in scales]
        y += [height.share(value) for height, value in zip(heights, point.values, strict=True)]
        is_best = chosen is not None and point.number == chosen.number
        ink, width, alpha = (COLOURS[1], 2.5, 1.0) if is_best else (colour(place), 1.0, 0.6)
        axis.plot(range(len(names)), y, color=ink, linewidth=width, alpha=alpha)
    for x, ticks in enumerate([*map(_shares, scales), *map(_ends, heights)]):
        axis.axvline(x, linewidth=0.8, color=INK)
        side = -1 if x < len(scales) else 1
        for at, text in _apart(ticks):
            axis.plot(x, at, "_", color=INK, ms=7, zorder=4)
            told = {"textcoords": "offset points", "xytext": (6 * side, 0), "fontsize": "small"}
            ha = "right" if side < 0 else "left"
            axis.annotate(text, (x, at), ha=ha, va="center", bbox=_PATCH, zorder=5, **told)
    axis.set_xticks(range(len(names)), [_broken(name) for name in names])
    axis.set_xlim(-0.6, len(names) - 0.5)
    # Not what the lines leave free: one alone would run from the bottom to the top.
    axis.set_ylim(-MARGIN, 1 + MARGIN + ABOVE * any(height.is_missed for height in heights))
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure


def importances(study: Study, points: Sequence[Point]) -> Figure | None:
    """How much each parameter matters for each goal."""
    found = [importance(study, points, i) for i in range(len(study.config.goal))]
    if not all(found):
        return None
    names = list(found[0])[::-1]
    title = f"{study.name}: how much each parameter matters"
    figure, (axis,) = _figure(title, WIDTH, [0.8 + 0.32 * len(names) * len(found)])
    thick = 0.8 / len(found)
    for i, (goal, shares) in enumerate(zip(study.config.goal, found, strict=True)):
        places = [y - thick * (i - (len(found) - 1) / 2) for y in range(len(names))]
        values = [shares[name] for name in names]
        bars = axis.barh(places, values, thick * 0.85, color=COLOURS[i % 8], label=goal)
        axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=3)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlim(0, 1.12)
    axis.set_xlabel("share of what sets the best tenth apart (PED-ANOVA)")
    if len(found) > 1:
        axis.legend()
    return figure


def parameters(study: Study, points: Sequence[Point]) -> Figure | None:
    """Each parameter against each goal, with a look for each combination of the other choices."""
    complete = [point for point in points if point.values]
    if not complete:
        return None
    panels = [(p, i) for i in range(len(study.config.goal)) for p in study.space]
    title = f"{study.name}: {' and '.join(study.config.goal)} against what is varied"
    figure, axes = _figure(title, WIDTH, [2.7] * len(panels))
    for axis, (parameter, goal) in zip(axes, panels, strict=True):
        _panel(axis, study, complete, parameter, goal)
    return figure


def curves(study: Study, points: Sequence[Point]) -> Figure | None:
    """The learning curves of all trials over each other; those without an end are dotted.

    None where they have one point each, which parameters() shows.
    """
    metric = goals.curve(study.config.goal[0], study.settings)
    groups = by_choice(study, points)
    is_told = "" not in groups
    order = ranked(points, goals.directions(study.config)[0])
    places = {point.number: len(order) - 1 - place for place, point in enumerate(order)}
    by_rank, chosen = _by_rank(len(order)), best(study, points)
    figure, (axis,) = _figure(f"{study.name}: {metric} while training", WIDTH, [3.2])
    seen: list[float] = []
    longest = 0
    for name, group in groups.items():
        shown = look(study.space, group[0].params if is_told else None)
        is_drawn = False
        for point in group:
            is_best = chosen is not None and point.number == chosen.number
            rank = by_rank(places[point.number]) if point.number in places else COLOURS[7]
            style = {"color": shown.colour if is_told else rank, "lw": 2.2 if is_best else 0.9}
            style |= {"alpha": 1.0 if is_best else 0.65, "zorder": 3 if is_best else 2}
            for one in point.trials:
                steps, values = _curve(one.metrics, metric)
                dots = shown.line if one.state is State.complete else ":"
                # A line of one point is none.
                axis.plot(steps, values, dots, marker="o" * (len(steps) == 1), ms=4, **style)
                seen, longest = seen + values, max(longest, len(steps))
                is_drawn |= bool(values)
        if is_told and is_drawn:
            axis.plot([], [], shown.line, color=shown.colour, label=name)
    if longest < 2:
        return None
    if chosen is not None and any(_curve(one.metrics, metric)[0] for one in chosen.trials):
        told = "best" if is_told else f"point {chosen.number}, the best"
        axis.plot([], [], color=INK if is_told else by_rank(len(order) - 1), lw=2.2, label=told)
    Height(metric, seen).set(axis)
    axis.set_xlabel("optimizer steps")
    axis.grid(alpha=0.15)
    _legend(axis)
    return figure


def trade_offs(study: Study, points: Sequence[Point]) -> Figure | None:
    """Of several goals, each against the first; those points are marked that no other betters."""
    complete = [point for point in points if point.values]
    if len(study.config.goal) < 2 or not complete:
        return None
    marked = front(points, goals.directions(study.config))
    title = f"{study.name}: goals against each other"
    figure, axes = _figure(title, WIDTH, [3.0] * (len(study.config.goal) - 1))
    heights = [_height(study, complete, i) for i in range(len(study.config.goal))]
    for goal, axis in enumerate(axes, start=1):
        for some, style in ((complete, {"s": 18, "color": COLOURS[0]}), (marked, _RING)):
            x = [heights[0].place(point.values[0]) for point in some]
            axis.scatter(x, [heights[goal].place(p.values[goal]) for p in some], **style)
        for point in marked:
            at = heights[0].place(point.values[0]), heights[goal].place(point.values[goal])
            axis.annotate(str(point.number), at, textcoords="offset points", xytext=(6, 4))
        heights[0].set(axis, "x")
        heights[goal].set(axis)
        axis.grid(alpha=0.15)
    return figure


PICTURES: dict[str, Callable[[Study, Sequence[Point]], Figure | None]] = {
    "parameters": parameters,
    "parallel": parallel,
    "trade_offs": trade_offs,
    "importance": importances,
    "curves": curves,
}
"""By the names of their files."""


def draw(study: Study, points: Sequence[Point], name: str) -> tuple[bytes, str] | None:
    """One of PICTURES, as a PNG and as an svg for a page; None if there is nothing to see."""
    with _style(name):
        figure = PICTURES[name](study, points)
        if figure is None:
            return None
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=150, facecolor="white")
        figure.savefig(svg, format="svg", transparent=True)
    return png.getvalue(), _element(svg.getvalue(), figure.get_figwidth())


_PATCH = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
_RING = {"s": 70, "facecolors": "none", "edgecolors": COLOURS[1], "linewidths": 1.6}


@contextmanager
def _style(name: str) -> Iterator[None]:
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = dict.fromkeys((*inked, "grid.color", "lines.color"), INK) | {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.fonttype": "none",
        # The same picture has the same bytes, and on one page no two ids are alike.
        "svg.hashsalt": name,
    }
    with matplotlib.rc_context(style):
        yield


def _figure(title: str, width: float, heights: Sequence[float]) -> tuple[Figure, list[Any]]:
    """Axes below each other and a title; the Agg canvas needs no screen."""
    figure = Figure(figsize=(width, 0.3 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(fill(title, TITLE), fontsize="medium")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=list(heights))
    return figure, list(axes[:, 0])


def _element(svg: str, inches: float) -> str:
    """An svg that stands in a page: in its ink, on its paper, no wider than it is readable."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(PAPER, "var(--paper)")
    size = f'style="min-width:{72 * inches:.0f}px;max-width:{130 * inches:.0f}px"'
    return svg.replace(INK, "currentColor").replace("<svg", f'<svg role="img" {size}', 1)


def _legend(axis: Any) -> None:
    """Above the axes, where it hides nothing, and no label is as long as to reach."""
    if names := axis.get_legend_handles_labels()[1]:
        columns = 2 if max(map(len, names)) <= MOST_LETTERS else 1
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, fontsize="small")


def has_interval(point: Point, goal: int = 0) -> bool:
    """Whether one is drawn; around what was not reached there is none."""
    return len(point.trials) >= FEWEST_SEEDS and interval(point, goal).low is not None


def _height(study: Study, points: Sequence[Point], goal: int) -> Height:
    """Of all that parameters() draws of a goal."""
    values = [x for p in points for x in (*of_goal(p, goal), p.values[goal])]
    intervals = [interval(p, goal) for p in points if has_interval(p, goal)]
    return Height(study.config.goal[goal], values, intervals)


def _panel(
    axis: Any, study: Study, points: Sequence[Point], parameter: Parameter, goal: int
) -> None:
    """One parameter against one goal."""
    scale, height = Scale(parameter), _height(study, points, goal)
    scale.set(axis)
    height.set(axis)
    axis.grid(alpha=0.15)
    groups = by_choice(study, points, but=parameter.name)
    shown = [
        look(study.space, group[0].params if name else None, but=parameter.name)
        for name, group in groups.items()
    ]
    # Where something else moves, too, neighbours are not each other's next step.
    is_line = all(p.choice or p.name == parameter.name for p in study.space)
    shifts, depths = _shifts(groups, parameter), _depths(shown)
    for i, (name, group) in enumerate(groups.items()):
        beside = offset_copy(axis.transData, axis.figure, x=shifts[i], units="points")
        style = {"transform": beside, "zorder": 3 - depths[i], "lw": 1 + depths[i]}
        _means(axis, scale, height, group, goal, shown[i], name, is_line, style)
    if len(groups) > 1:
        _legend(axis)


def _shifts(groups: Mapping[str, Sequence[Point]], parameter: Parameter) -> list[float]:
    """Points, to the side, by which groups stand beside each other that have the same values."""
    values = [{point.params[parameter.name] for point in group} for group in groups.values()]
    different = len(set().union(*values))
    if sum(map(len, values)) == different:
        return [0.0] * len(values)
    whole = min(MOST_SHIFT * 3, 0.4 * 72 * WIDTH / different)
    step = min(MOST_SHIFT, whole / (len(values) - 1))
    return [step * (i - (len(values) - 1) / 2) for i in range(len(values))]


def _depths(shown: Sequence[Look]) -> list[float]:
    """How deep each line lies, 0..1, the dashed deepest: what is wider below is seen below."""
    order = sorted(range(len(shown)), key=lambda i: (shown[i].is_dashed, -i))
    return [order.index(i) / max(1, len(shown) - 1) for i in range(len(shown))]


def _means(
    axis: Any, scale: Scale, height: Height, points: Sequence[Point], goal: int,
    shown: Look, name: str, is_line: bool, style: dict[str, Any],
) -> None:  # fmt: skip
    """Means with their intervals, and what each seed has reached, paler."""
    found = sorted((scale.place(p.params[scale.parameter.name]), p.number, p) for p in points)
    x = [place for place, _, _ in found]
    y = [height.place(point.values[goal]) for _, _, point in found]
    has_line = is_line and scale.is_ordered and len(set(x)) == len(x)
    line, style = shown.line if has_line else "None", {"color": shown.colour, **style}
    axis.plot(x, y, ls=line, ms=4.5, alpha=0.9, label=name, **shown.mark, **style)
    for place, _, point in found:
        seeds = of_goal(point, goal)
        if len(seeds) > 1:
            reached = [height.place(value) for value in seeds]
            axis.plot([place] * len(seeds), reached, "o", ms=2.5, alpha=0.45, **style)
        if has_interval(point, goal):
            ends = height.reach(interval(point, goal))
            axis.plot([place, place], ends, alpha=0.7, **{**style, "lw": 1.2})


def _curve(path: Any, metric: str) -> tuple[list[int], list[float]]:
    rows = [row for row in read_metrics(path) if row.get(metric)]
    kept = [(int(row["step"]), float(row[metric])) for row in rows]
    kept = [(step, value) for step, value in kept if math.isfinite(value)]
    return [step for step, _ in kept], [value for _, value in kept]


def _by_rank(n: int) -> Callable[[int], Any]:
    """Colours from the worst, 0, to the best, n - 1; none too pale or too dark for a page."""
    return lambda place: colormaps["viridis"](0.8 - 0.55 * (place / (n - 1) if n > 1 else 1))


def _broken(name: str) -> str:
    """In two lines."""
    return name.replace(" (", "\n(") if " (" in name else name.replace(".", ".\n", 1)


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """From the lowest on, those whose words do not touch the words before."""
    kept: list[tuple[float, str]] = []
    for at, text in sorted(ticks):
        if not kept or at - kept[-1][0] >= LINE:
            kept.append((at, text))
    return kept


def _ends(height: Height) -> list[tuple[float, str]]:
    found = [] if height.is_empty else sorted({height.low, height.high})
    found += [math.inf] if height.is_missed else []
    return [(height.share(value), number(value)) for value in found]


def _shares(scale: Scale) -> list[tuple[float, str]]:
    return [(scale.share(value), text) for value, text in scale.ticks()]
