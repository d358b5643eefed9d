"""How the values of a parameter, and of a goal, lie along an axis."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.ticker import LogLocator, NullLocator

from gpt2lab.config.check.study import Parameter
from gpt2lab.sweep.results import value_text

WIDE = 20.0
"""Positive numbers whose ends are so many times apart are seen on a logarithmic axis only."""
ABOVE = 0.08
"""A target that was not reached lies beyond the worst that was, by this share of the axis."""


class Scale:
    """A parameter's values: numbers where they are, words beside each other."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self.is_number = all(type(value) in (int, float) for value in parameter.choice)
        self.is_log = parameter.is_log or (self.is_number and is_geometric(parameter.choice))

    @property
    def ends(self) -> tuple[float, float]:
        if not self.parameter.choice:
            return self.parameter.low, self.parameter.high
        places = [self.place(value) for value in self.parameter.choice]
        return min(places), max(places)

    def place(self, value: Any) -> float:
        return float(value) if self.is_number else float(self.parameter.choice.index(value))

    def share(self, value: Any) -> float:
        """Between the lower end, 0, and the upper, 1."""
        low, high, at = (self._even(x) for x in (*self.ends, self.place(value)))
        return 0.5 if low == high else (at - low) / (high - low)

    def ticks(self) -> list[tuple[Any, str]]:
        """Values and words of what is chosen from; of a range, its ends."""
        values = self.parameter.choice or (self.parameter.low, self.parameter.high)
        return [(value, value_text(value)) for value in values]

    def _even(self, place: float) -> float:
        return math.log(place) if self.is_log else place

    def set(self, axis: Any) -> None:
        """Give it to the x-axis of matplotlib's axes."""
        axis.set_xlabel(self.parameter.name)
        low, high = self.ends
        if self.is_log:
            axis.set_xscale("log")
            axis.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
        else:
            margin = 0.06 * (high - low) or 0.5
            axis.set_xlim(low - margin, high + margin)
        if self.parameter.choice:
            places = [self.place(value) for value, _ in self.ticks()]
            axis.set_xticks(places, [text for _, text in self.ticks()])
            axis.minorticks_off()
        elif self.is_log:
            plain_numbers(axis.xaxis)


def is_geometric(values: Sequence[Any]) -> bool:
    """Whether each of three numbers or more is as many times the one before."""
    if len(values) < 3 or min(values) <= 0:
        return False
    ratios = [b / a for a, b in pairwise(values)]
    return ratios[0] != 1 and all(math.isclose(ratio, ratios[0], rel_tol=0.05) for ratio in ratios)


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
    """2 and 0.005, where a logarithmic axis would write powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
