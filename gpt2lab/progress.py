"""How far something long is: a bar on a terminal, a line now and then elsewhere; all on stderr."""

import sys
import time
from typing import Any

LINE_EVERY_S = 30.0


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Progress:
    """Tokens a second, and the time left where the source knows its size.

    Args:
        total: what the positions count up to; None where nobody knows.
        start: the position of an earlier process, from which this one goes on.
    """

    def __init__(self, total: int | None, start: int = 0) -> None:
        self.total, self.start = total, start
        self.began = self.told = time.monotonic()
        self.tokens = 0
        self.bar: Any = None
        if sys.stderr is not None and sys.stderr.isatty():
            self.bar = _bar()
            self.task = self.bar.add_task("", total=total, completed=start, speed="")
            self.bar.start()

    def add(self, position: int, tokens: int) -> None:
        self.tokens += tokens
        now = time.monotonic()
        if self.bar is not None:
            speed = f"{self.speed(now):,.0f} tokens/s"
            self.bar.update(self.task, completed=position, speed=speed)
        elif now - self.told >= LINE_EVERY_S:
            self.told = now
            say(self.line(position, now))

    def line(self, position: int, now: float) -> str:
        """12,000,000 tokens, 4,000,000 tokens/s, 25 %, 9 s left"""
        text = f"{self.tokens:,} tokens, {self.speed(now):,.0f} tokens/s"
        if self.total and position > self.start:
            left = (now - self.began) * (self.total - position) / (position - self.start)
            text += f", {position / self.total:.0%}, {left:,.0f} s left"
        return text

    def speed(self, now: float) -> float:
        return self.tokens / max(now - self.began, 1e-3)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
