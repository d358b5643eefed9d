"""Prompts out of a file."""

from pathlib import Path

from gpt2lab.data.jsonl import decoded, field, row_of
from gpt2lab.errors import DataError


def read_prompts(path: Path) -> list[str]:
    """Each line of a text, whatever blanks are in it; of .jsonl, each {"prompt": ...}.

    Raises:
        DataError: naming the file, and the line and byte where bytes are no text.
    """
    lines = _content(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")  # without a BOM
    if not lines[-1]:
        lines.pop()  # behind the last line's end
    prompts, offset = [], 0
    for number, line in enumerate(lines, 1):
        place = f"{path}:{number}"
        if path.suffix != ".jsonl":
            prompts.append(decoded(line.removesuffix(b"\r"), place, offset))
        elif line.strip():
            row = row_of(line, place, offset, 'write one {"prompt": ...} a line')
            prompts.append(field(row, "prompt"))
        offset += len(line) + 1
    if not prompts:
        raise DataError(f"{path}: is empty; write one prompt a line")
    return prompts


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; check prompts") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); name a text file") from error
