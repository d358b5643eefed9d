"""A terminal: lines with a history, a Ctrl-C that ends nothing, text that cannot act on it."""

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from gpt2lab.durable import write_whole
from gpt2lab.errors import one_line
from gpt2lab.signals import Signalled

KEPT_LINES = 1000


def is_terminal(file: Any) -> bool:
    return file is not None and file.isatty()  # it is None where the caller closed it


def write(text: str) -> None:
    """Show text at once; on a terminal, with controls such as escapes spelt out."""
    if is_terminal(sys.stdout):
        text = "".join(repr(c)[1:-1] if is_control(c) else c for c in text)
    print(text, end="", flush=True)


def is_control(character: str) -> bool:
    return character not in "\n\t" and (character < " " or "\x7f" <= character <= "\x9f")


def take_any_text() -> None:
    """From here on no text is an error, whatever the encodings of stdin and stdout know."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def tell(message: Warning | str, *_: Any) -> None:
    """A warning as one line, without the place in the code that it comes from."""
    print(f"warning: {one_line(str(message))}", file=sys.stderr, flush=True)


class Interrupts:
    """Ctrl-C where it must not end the program: counted, and raised only where that is expected."""

    def __enter__(self) -> "Interrupts":
        self.expect(raises_at=0)
        self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def expect(self, raises_at: int) -> None:
        """Count anew, and raise KeyboardInterrupt once, at so many; never at 0."""
        self.raises_at = raises_at
        self.count = 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == self.raises_at:
            raise KeyboardInterrupt


def typed_lines(interrupts: Interrupts) -> Iterator[str]:
    """Lines from stdin until it ends; on a terminal they are asked for, with a history.

    Ctrl-C drops what is being typed.
    """
    asks = is_terminal(sys.stdin) and is_terminal(sys.stdout)
    history = History(history_file()) if asks else None
    while sys.stdin is not None:
        try:
            interrupts.expect(raises_at=1)
            line = input("> " if asks else "")
        except EOFError:
            if asks:
                print()  # for the shell's own prompt
            return
        except Signalled:
            raise
        except KeyboardInterrupt:
            print("\n:quit or Ctrl-D leaves", file=sys.stderr, flush=True)
            continue
        finally:
            interrupts.expect(raises_at=0)
        if history is not None:
            history.add(line)
        yield line


def history_file() -> Path | None:
    """In the folder of the XDG base directory specification for what outlives a program."""
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():
        try:
            folder = Path.home() / ".local" / "state"
        except RuntimeError:  # there is no home
            return None
    return folder / "gpt2lab" / "history"


class History:
    """Lines for the arrow keys, those of earlier sessions too; a comfort that never fails.

    The file has a JSON text a line, for what is pasted may hold line ends.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines: list[str] = []
        if path is not None:
            with suppress(OSError, ValueError):
                lines = path.read_text("utf-8").splitlines()
        with suppress(ImportError):  # some builds of Python have none
            import readline

            for line in lines[-KEPT_LINES:]:
                with suppress(ValueError, TypeError):  # damaged
                    readline.add_history(json.loads(line))
        if path is not None and len(lines) > 2 * KEPT_LINES:
            with suppress(OSError):
                write_whole(path, "".join(f"{x}\n" for x in lines[-KEPT_LINES:]).encode())

    def add(self, line: str) -> None:
        if self.path is None or not line.strip():
            return
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # For its owner alone, as the histories of shells are.
            self.path.touch(mode=0o600)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
