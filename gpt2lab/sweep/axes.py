"""How the values of a parameter, and of a goal, lie along an axis."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib import rcParams
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullLocator

from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.config.check.study import BEST, Parameter
from gpt2lab.statistics import Interval
from gpt2lab.sweep.results import value_text

WIDE = 20.0
"""Positive numbers whose ends are so many times apart are seen on a logarithmic axis only."""
ABOVE = 0.1
"""A target that was not reached lies beyond the worst that was, by this share of the axis."""
MARGIN = 0.05
"""Of an axis, beyond what is drawn."""
SHARE = "share of 1"
UNITS = {
    "train/loss": "nats per token",
    "val/loss": "nats per token",
    "seconds": "s",
    "tokens_per_second": "tokens/s",
    "peak_memory_bytes": "bytes",
    "mfu": SHARE,
}
"""Of goals whose names do not say all; those that are better the higher are shares, too."""
TENFOLD = 10.0
"""Choices whose ends are so many times apart lie on a logarithmic axis, if not at even steps."""
CLOSEST = 0.03
"""Numbers nearer to each other than this share of the axis would hide each other."""
MOST_LETTERS = 20
"""Of a label: a longer one would take the axes' room."""
GAP = 4.0
"""Points between two labels, at least."""
LINE_HEIGHT = 1.3
"""Of text, in sizes of its font."""


class Scale:
    """A parameter's values: numbers where they are, words beside each other.

    Numbers that neither kind of axis holds apart, as 0, 1e-4, 1e-3 and 0.1, stand like words, but
    in their order.
    """

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self.choice = list(parameter.choice)
        self.is_log = parameter.is_log
        self.is_number = all(type(value) in (int, float) for value in self.choice)
        self.is_ordered = self.is_number
        if self.is_number and self.choice:
            self.choice.sort()
            self.is_log = is_by_factors(self.choice)
            self.is_number = closest(self.choice, self.is_log) >= CLOSEST
            self.is_log &= self.is_number

    @property
    def ends(self) -> tuple[float, float]:
        if not self.choice:
            return self.parameter.low, self.parameter.high
        places = [self.place(value) for value in self.choice]
        return min(places), max(places)

    def place(self, value: Any) -> float:
        return float(value) if self.is_number else float(self.choice.index(value))

    def share(self, value: Any) -> float:
        """Between the lower end, 0, and the upper, 1."""
        low, high, at = (_even(x, self.is_log) for x in (*self.ends, self.place(value)))
        return 0.5 if low == high else (at - low) / (high - low)

    def ticks(self) -> list[tuple[Any, str]]:
        """Values and words of what is chosen from; of a range, its ends."""
        values = self.choice or (self.parameter.low, self.parameter.high)
        return [(value, brief(value_text(value))) for value in values]

    def set(self, axis: Any) -> None:
        """Give it to the x-axis of matplotlib's axes."""
        axis.set_xlabel(self.parameter.name)
        low, high = self.ends
        if self.is_log and low < high:
            axis.set_xscale("log")
            axis.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
        else:
            margin = 0.06 * (high - low) or 0.5
            axis.set_xlim(low - margin, high + margin)
        if self.choice:
            axis.minorticks_off()
            label(axis, [(self.place(value), text) for value, text in self.ticks()])
        elif self.is_log:
            plain_numbers(axis.xaxis)


def brief(text: str) -> str:
    """Without its middle where it is long; names that begin alike often differ at their ends."""
    half = MOST_LETTERS // 2
    return text if len(text) <= MOST_LETTERS else f"{text[: half - 1]}...{text[2 - half :]}"


def is_by_factors(values: Sequence[float]) -> bool:
    """Whether numbers that rise are chosen by how many times, not how much, they are apart.

    1e-4, 3e-4, 1e-3 and 3e-3 are, and 24, 48 and 96: by factors the closest lie further from each
    other. Of ends that are TENFOLD apart all are, but even steps, as 1 to 12.
    """
    if values[0] <= 0 or values[0] == values[-1]:
        return False
    by_step, even = closest(values, is_log=False), 1 / (len(values) - 1)
    is_even = len(values) > 2 and math.isclose(by_step, even, rel_tol=0.01)
    is_tenfold = values[-1] / values[0] >= TENFOLD * (1 - 1e-9)  # 3e-2 / 3e-3 is a hair below 10
    return (is_tenfold and not is_even) or closest(values, is_log=True) > by_step + 1e-9


def closest(values: Sequence[float], is_log: bool) -> float:
    """The least distance of neighbours among numbers that rise, as a share of the axis."""
    places = [_even(value, is_log) for value in values]
    gaps = [b - a for a, b in pairwise(places) if a < b]
    return min(gaps) / (places[-1] - places[0]) if gaps else 1.0


def _even(place: float, is_log: bool) -> float:
    return math.log(place) if is_log else place


def label(axis: Any, ticks: Sequence[tuple[float, str]]) -> None:
    """Words below an x-axis whose limits are set: none touches another.

    They lie flat where there is room, aslant otherwise, and if that is too little, those go that
    would touch the one before.
    """
    ticks, size = sorted(ticks), rcParams["font.size"]
    at = [axis.transData.transform((x, 1))[0] * 72 / axis.figure.dpi for x, _ in ticks]
    wide = [TextPath((0, 0), text, size=size).get_extents().width for _, text in ticks]
    apart = [(v + w) / 2 + GAP for v, w in pairwise(wide)]
    is_flat = all(b - a >= least for (a, b), least in zip(pairwise(at), apart, strict=True))
    if not is_flat:
        kept: list[int] = []
        for i, x in enumerate(at):
            # of lines at 45 degrees, measured along the axis
            if not kept or x - at[kept[-1]] >= LINE_HEIGHT * size * math.sqrt(2):
                kept.append(i)
        ticks = [ticks[i] for i in kept]
    aslant = {} if is_flat else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks([place for place, _ in ticks], [text for _, text in ticks], **aslant)


def is_share(goal: str) -> bool:
    return unit(goal) == SHARE


def unit(goal: str) -> str:
    """Empty where it has none, or its name says it."""
    metric = goal.removeprefix(BEST)
    return SHARE if HIGHER_IS_BETTER.get(metric) else UNITS.get(metric, "")


def goal_text(goal: str) -> str:
    """`val/loss (nats per token)`."""
    return f"{goal} ({unit(goal)})" if unit(goal) else goal


class Height:
    """Values of a goal, or of a curve, on an axis.

    Args:
        goal: or the metric.
        values: all that are drawn; inf for a target that was not reached.
        intervals: around them, that have a place, too; of shares they end at 0 and 1.
    """

    def __init__(
        self, goal: str, values: Sequence[float], intervals: Sequence[Interval] = ()
    ) -> None:
        self.goal = goal
        finite = [value for value in values if math.isfinite(value)]
        self.is_missed = any(map(math.isinf, values))
        self.low, self.high = (min(finite), max(finite)) if finite else (0.0, 0.0)
        self.is_empty = not finite
        self.is_log = self.low > 0 and self.high / self.low > WIDE
        ends = [end for one in intervals for end in self.reach(one)]
        # What reaches down to 0 has no end on a logarithmic axis, which cuts it off.
        self.bottom = self.low if self.is_log else min([self.low, *ends])
        self.top = max([self.high, *ends])

    def reach(self, found: Interval) -> tuple[float, ...]:
        """The ends of an interval as they are drawn; none where it has none."""
        if found.low is None or found.high is None:
            return ()
        if is_share(self.goal):
            return max(0.0, found.low), min(1.0, found.high)
        return found.low, found.high

    def share(self, value: float) -> float:
        """Between the lowest, 0, and the highest, 1; a target not reached lies above."""
        if math.isinf(value):
            return 1 + ABOVE
        if self.low == self.high:
            return 0.5
        low, high, at = (_even(x, self.is_log) for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def place(self, value: float) -> float:
        return value if math.isfinite(value) else self._moved(self.top, ABOVE)

    @property
    def limits(self) -> tuple[float, float]:
        # Above the line of what was not reached stand the words.
        above = 2 * ABOVE if self.is_missed else MARGIN
        return self._moved(self.bottom, -MARGIN), self._moved(self.top, above)

    def _moved(self, value: float, share: float) -> float:
        """Up by a share of what is drawn."""
        if self.is_log:
            return value * (self.top / self.bottom) ** share
        return value + share * ((self.top - self.bottom) or 0.1 * abs(self.top) or 1.0)

    def set(self, axes: Any, side: str = "y") -> None:
        """Give it to the y-axis of matplotlib's axes, or the x-axis."""
        getattr(axes, f"set_{side}label")(goal_text(self.goal))
        axis = getattr(axes, f"{side}axis")
        if self.is_log:
            getattr(axes, f"set_{side}scale")("log")
        getattr(axes, f"set_{side}lim")(*self.limits)
        if self.is_log:
            plain_numbers(axis)
        axis.set_ticks(self._ticks(axis.get_majorticklocs()))
        if self.is_missed:
            _say_missed(axes, side, self.place(math.inf))

    def _ticks(self, offered: Sequence[float]) -> list[float]:
        """Those that a value may have: no share above 1, and no number beyond what was reached."""
        if self.bottom == self.top:
            return [] if self.is_empty else [self.top]
        low, high = self.limits
        if self.is_missed:
            high = self.top
        if is_share(self.goal):
            low, high = max(low, 0.0), min(high, 1.0)
        return [x for x in offered if low <= x <= high + 1e-9]


def _say_missed(axes: Any, side: str, at: float) -> None:
    """A line for targets that were not reached, and beyond it, where no point is, its name."""
    style = {"linestyle": ":", "linewidth": 0.8, "zorder": 0, "color": rcParams["text.color"]}
    told: dict[str, Any] = {"textcoords": "offset points", "fontsize": "small"}
    if side == "y":
        axes.axhline(at, **style)
        told |= {"xytext": (0, 4), "ha": "right", "va": "bottom"}
        axes.annotate("not reached", (1, at), xycoords=("axes fraction", "data"), **told)
    else:
        axes.axvline(at, **style)
        told |= {"xytext": (4, 0), "ha": "left", "va": "top", "rotation": 90}
        axes.annotate("not reached", (at, 1), xycoords=("data", "axes fraction"), **told)


def plain_numbers(axis: Any) -> None:
    """2 and 0.005, where a logarithmic axis would write powers of ten; fewer where it is long."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades <= 2.5 else (1, 3) if decades <= 3.5 else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
