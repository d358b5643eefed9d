"""Fields with bounds, and fields of text that is taken as it is typed."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Range:
    """Bounds of one number; None leaves that side open."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def holds(self, value: float) -> bool:
        # Written so that NaN, for which every comparison is false, never holds.
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and abs(value) < float("inf")
        )

    def __str__(self) -> str:
        low = (
            f"{self.ge} <= "
            if self.ge is not None
            else f"{self.gt} < "
            if self.gt is not None
            else ""
        )
        high = (
            f" <= {self.le}"
            if self.le is not None
            else f" < {self.lt}"
            if self.lt is not None
            else ""
        )
        return f"{low}value{high}"


def ranged(
    default: float | None,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with bounds, checked by `parse`; None, where allowed, is in every range."""
    return field(default=default, metadata={"range": Range(ge, gt, le, lt)})


def verbatim(path: bool = False) -> Any:
    """A field of text that is taken as it is typed, whatever signs it holds; null by default.

    Args:
        path: whether it names a file or folder, as `path_or_name` does.
    """
    return field(default=None, metadata={"verbatim": True, "path": path})


def path_or_name(default: str | None = None) -> Any:
    """A field that names a file or folder: ~ at its beginning is the user's home."""
    return field(default=default, metadata={"path": True})
