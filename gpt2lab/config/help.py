"""The text of `--help`: every group with its options, every setting with default and meaning.

Read from the files themselves, which is faster than composing and cannot fall behind.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from itertools import pairwise
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

from gpt2lab.config.commands import COMMAND_LINES
from gpt2lab.config.conf_dir import groups
from gpt2lab.config.parse import field_types
from gpt2lab.config.settings.train import SHAPES

_USAGE = """\
{purpose}

usage: python -m gpt2lab.{command} {word}{choices}[setting=value ...]

  --cfg job          print the composed settings and leave
{grid}  --config-dir DIR   look for options in DIR too, a folder laid out as conf/
"""
_GRID = "  --multirun, -m     run every combination of comma-separated values\n"


def help_text(command: str, purpose: str) -> str:
    known = COMMAND_LINES[command]
    found = groups(command)
    text = _USAGE.format(
        command=command,
        purpose=purpose,
        word=f"{known.word} " if known.word else "",
        choices="[group=option ...] " if found else "",
        grid=_GRID if known.is_grid else "",
    )
    if found:
        text += "\ngroups and their options\n"
    for group, options in found.items():
        text += entry(f"{group:12}", ", ".join(options))
    for title, cls in sections(known.root):
        text += f"\n{title}\n"
        for name, default, meaning in documented(cls):
            text += entry(f"{f'{name}={default}':32}", meaning)
    return text


def entry(name: str, meaning: str) -> str:
    """A name and what it means, whose further lines stand under the first."""
    indent = " " * (len(name) + 3)
    width = max(60, min(120, get_terminal_size().columns))
    lines = wrap(meaning, width - len(indent), break_long_words=False, break_on_hyphens=False)
    return f"  {name} " + f"\n{indent}".join(lines or [""]) + "\n"


def sections(root: type) -> Iterator[tuple[str, type]]:
    """Title and dataclass of the settings themselves, then of each group in each of its shapes."""
    yield "settings", root
    for group, declared in field_types(root).items():
        if not (isinstance(declared, type) and is_dataclass(declared)):
            continue
        if group in SHAPES:
            for kind, shape in SHAPES[group].items():
                yield f"{group}.* of {group}={kind}", shape
        else:
            yield f"{group}.*", declared


def documented(cls: type) -> Iterator[tuple[str, str, str]]:
    """Name, default and first words of each setting, bases first."""
    meanings: dict[str, str] = {}
    for owner in filter(is_dataclass, reversed(cls.__mro__)):
        meanings |= _meanings(owner)
    for field in fields(cls):
        if field.name in meanings:
            yield field.name, _shown_default(field), meanings[field.name]


def _shown_default(field: "Field[Any]") -> str:
    if field.default is MISSING:
        return ""
    value = field.default.name if isinstance(field.default, Enum) else field.default
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if value == "\n" else str(value)


def _meanings(cls: type) -> dict[str, str]:
    """The line beneath each field of a class's own."""
    (node,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(node, ast.ClassDef)
    return {
        field.target.id: " ".join(str(line.value.value).split())
        for field, line in pairwise(node.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
    }
