"""Findings as PNGs, each a function from numbers to bytes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gpt2lab.insight.captions import png_of
from gpt2lab.insight.findings import Findings
from gpt2lab.insight.pictures.answer import answer
from gpt2lab.insight.pictures.arcs import arcs
from gpt2lab.insight.pictures.beside import in_two_processes
from gpt2lab.insight.pictures.canvas import as_png
from gpt2lab.insight.pictures.predictions import lens, loss, next_token
from gpt2lab.insight.pictures.scores import scores
from gpt2lab.insight.pictures.squares import head, heads, last_block

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In this order, taken in turns, the pictures that take long are shared out evenly.
DRAW: dict[str, Callable[[Findings], "Figure"]] = {
    "lens.png": lens,
    "scores.png": scores,
    "heads.png": heads,
    "arcs.png": arcs,
    "last_block.png": last_block,
    "loss.png": loss,
    "next.png": next_token,
    "head.png": head,
    "answer.png": answer,
}


def pictures(found: Findings) -> dict[str, bytes]:
    """Every picture, by the name of its file."""
    names = sorted({*map(png_of, found.parts())}, key=[*DRAW].index)
    return in_two_processes(lambda name: as_png(DRAW[name](found)), names)
