"""metrics.csv, read and written as a whole; whoever watches a run needs no Lightning for it."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.durable import write_whole


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a line that a kill cut short or a disk damaged is left out."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    # Of a longer line, which none of ours is, csv would make an error of the whole file; and of a
    # quotation mark, which is damage, one cell of all that follows.
    lines = [line for line in text.splitlines() if len(line) <= csv.field_size_limit()]
    return [row for row in csv.DictReader(lines, quoting=csv.QUOTE_NONE) if _is_whole(row)]


def last_and_best(
    rows: Iterable[Mapping[str, str]],
) -> tuple[dict[str, float], dict[str, float]]:
    """The last value of each metric, and the best of each that a run can be judged by."""
    last: dict[str, float] = {}
    best: dict[str, float] = {}
    for row in rows:
        for name, text in row.items():
            if name == "step" or not text:
                continue
            last[name] = value = float(text)
            if name in HIGHER_IS_BETTER and not math.isnan(value):
                choose = max if HIGHER_IS_BETTER[name] else min
                best[name] = choose(best.get(name, value), value)
    return last, best


def _is_whole(row: dict[str, str]) -> bool:
    try:
        int(row["step"])
        [float(cell) for cell in row.values() if cell != ""]
    except (KeyError, TypeError, ValueError):
        return False
    return True


def rewrite(path: Path, columns: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, file.getvalue().encode())
