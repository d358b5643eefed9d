"""What tells groups of points apart: a colour, a dash, a mark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from gpt2lab.config.check.study import Parameter

INK = "#1f2328"
"""Of letters and lines in files; on a page they have the colour of its text."""
PAPER = "#ffffff"
"""Beneath numbers that stand on lines; on a page, the page's."""
COLOURS = (
    *("#3b82c4", "#d9772b", "#3f9d5a", "#c94f7c"),
    *("#8a6fd1", "#a58a00", "#2a9d9d", "#8c8c8c"),
)
"""Neither pale on white nor dark on black; one for each of answers.MOST_CHOICES."""


@dataclass(frozen=True)
class Look:
    """Of one group.

    Args:
        is_dashed: of its line; its marks are hollow.
        is_square: of its marks.
    """

    colour: str
    is_dashed: bool = False
    is_square: bool = False

    @property
    def line(self) -> str:
        return "--" if self.is_dashed else "-"

    @property
    def mark(self) -> dict[str, Any]:
        face = PAPER if self.is_dashed else self.colour
        return {"marker": "s" if self.is_square else "o", "mfc": face, "mec": self.colour}


def look(space: Sequence[Parameter], params: Mapping[str, Any] | None, but: str = "") -> Look:
    """Of points that have these choices, or of all together.

    The parameter with the most choices has the colours, the next dashes, the third marks: of
    answers.MOST_CHOICES combinations, these have two choices each.

    Args:
        params: None where points are not told apart by their choices.
        but: the parameter that is left out of account.
    """
    own = _colours(space)
    if params is None:
        return Look(INK if own else COLOURS[0])
    chosen = [p for p in _by_choices(space) if p.name != but]
    if not chosen:
        return Look(INK)
    colour, *seconds = ((p.name, params[p.name], p.choice.index(params[p.name])) for p in chosen)
    return Look(own[colour[:2]], *(place > 0 for _, _, place in seconds))


def _by_choices(space: Sequence[Parameter]) -> list[Parameter]:
    """Those that tell points apart, the one with the most choices first."""
    return sorted((p for p in space if len(p.choice) > 1), key=lambda p: -len(p.choice))


def _colours(space: Sequence[Parameter]) -> dict[tuple[str, Any], str]:
    """Each value of each choice has its own, in all pictures; past the last they begin anew."""
    values = [(p.name, value) for p in _by_choices(space) for value in p.choice]
    return dict(zip(values, cycle(COLOURS)))
