"""How the values of a parameter, and of a goal, lie along an axis."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib import rcParams
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullLocator

from gpt2lab.config.check.study import Parameter
from gpt2lab.sweep.results import value_text

WIDE = 20.0
"""Positive numbers whose ends are so many times apart are seen on a logarithmic axis only."""
ABOVE = 0.08
"""A target that was not reached lies beyond the worst that was, by this share of the axis."""
TENFOLD = 10.0
"""Choices whose ends are so many times apart lie on a logarithmic axis, if not at even steps."""
CLOSEST = 0.03
"""Numbers nearer to each other than this share of the axis would hide each other."""
GAP = 4.0
"""Points between two labels, at least."""
LINE_HEIGHT = 1.3
"""Of text, in sizes of its font."""


class Scale:
    """A parameter's values: numbers where they are, words beside each other.

    Numbers that neither kind of axis holds apart, as 0, 1e-4, 1e-3 and 0.1, stand like words.
    """

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self.choice = list(parameter.choice)
        self.is_log = parameter.is_log
        self.is_number = all(type(value) in (int, float) for value in self.choice)
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
        return [(value, value_text(value)) for value in values]

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


class Height:
    """Values of a goal, or of a curve, on the y-axis.

    Args:
        values: all that are drawn; inf for a target that was not reached.
    """

    def __init__(self, values: Sequence[float]) -> None:
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        self.low, self.high = min(finite), max(finite)
        self.is_log = self.low > 0 and self.high / self.low > WIDE
        self.is_missed = any(map(math.isinf, values))

    def place(self, value: float) -> float:
        if math.isfinite(value):
            return value
        if self.is_log:
            return self.high * (self.high / self.low) ** ABOVE
        return self.high + (ABOVE * (self.high - self.low) or 1.0)

    def set(self, axis: Any, label: str) -> None:
        axis.set_ylabel(label)
        if self.is_log:
            axis.set_yscale("log")
            plain_numbers(axis.yaxis)
        if self.is_missed:
            axis.axhline(self.place(math.inf), linestyle=":", linewidth=0.8, zorder=0)
            axis.annotate(
                "not reached", (1, self.place(math.inf)), xycoords=("axes fraction", "data"),
                ha="right", va="bottom", fontsize="small",
            )  # fmt: skip


def plain_numbers(axis: Any) -> None:
    """2 and 0.005, where a logarithmic axis would write powers of ten; fewer where it is long."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades <= 2.5 else (1, 3) if decades <= 3.5 else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
