"""Findings as PNGs, each a function from numbers to bytes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gpt2lab.insight.captions import png_of
from gpt2lab.insight.findings import Findings
from gpt2lab.insight.pictures.answer import answer
from gpt2lab.insight.pictures.arcs import arcs
from gpt2lab.insight.pictures.canvas import as_png
from gpt2lab.insight.pictures.predictions import lens, loss, next_token
from gpt2lab.insight.pictures.scores import scores
from gpt2lab.insight.pictures.squares import head, heads, last_block

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pictures(found: Findings) -> dict[str, bytes]:
    """Every picture, by the name of its file."""
    draw: dict[str, Callable[[Findings], Figure]] = {
        "answer.png": answer,
        "next.png": next_token,
        "arcs.png": arcs,
        "head.png": head,
        "heads.png": heads,
        "last_block.png": last_block,
        "lens.png": lens,
        "loss.png": loss,
        "scores.png": scores,
    }
    return {name: as_png(draw[name](found)) for name in {*map(png_of, found.parts())}}
