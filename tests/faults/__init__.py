"""Every fault of the table, injected for real: `python -m tests.faults`, or `pytest -m slow`.

`server` forks trainings, `hooks` act within them, `lab` counts; each other file is one kind.
"""

from importlib import import_module
from typing import Any

KINDS = (
    "settings",
    "corpora",
    "checkpoints",
    "weights",
    "numbers",
    "sampling",
    "folders",
    "kills",
    "signals",
    "ranks",
    "disks",
    "fuzz",
    "mutations",
)


def rows() -> list[Any]:
    """The table, in its order."""
    for kind in KINDS:
        import_module(f"tests.faults.{kind}")
    from tests.faults.lab import ROWS

    return ROWS
