"""Bounds of numbers."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any


def range_problems(config: Any, path: str = "") -> Iterator[str]:
    """One line for each number outside its field's range, in the order of the fields."""
    for field in fields(config):
        key, value = f"{path}{field.name}", getattr(config, field.name)
        if is_dataclass(value):
            yield from range_problems(value, f"{key}.")
        elif (
            (bounds := field.metadata.get("range"))
            and not (value is None or isinstance(value, str))
            and not bounds.holds(value)
        ):
            what = "out of range" if abs(value) < math.inf else "not finite"
            yield f"{key}: {value} is {what}; choose {str(bounds).replace('value', key)}"
