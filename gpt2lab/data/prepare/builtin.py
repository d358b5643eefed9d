"""English prose that every Python carries: the help topics and the standard library's docstrings.

Nothing is imported for it but the topics: modules are parsed, not run. It comes to 1.6 MB of
printable ASCII, so that a character vocabulary stays below 100.
"""

import ast
import string
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from gpt2lab.errors import DataError

SHORTEST_DOCSTRING = 200  # characters; shorter ones are signatures in words rather than prose
NOT_PROSE = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}

_TYPED = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "..."})  # noqa: RUF001
_PLAIN = frozenset(string.ascii_letters + string.digits + string.punctuation + " \n")


def documents() -> Iterator[str]:
    """Each help topic, then the docstrings of each module, both sorted by name.

    Raises:
        DataError: if this Python came without its library.
    """
    found = False
    for document in (*_topics(), *_modules(Path(sysconfig.get_path("stdlib")))):
        found = True
        yield document
    if not found:
        raise DataError("data.source: this Python has no documentation; use data=text data.path=")


def _topics() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions package it apart
        return
    for name in sorted(topics):
        text = topics[name].translate(_TYPED)
        if _PLAIN.issuperset(text):
            yield text


def _modules(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        if NOT_PROSE & set(path.relative_to(root).parts):
            continue
        try:
            module = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # not ours to mend
            continue
        kept = []
        for text in _docstrings(module):
            text = text.translate(_TYPED)
            if len(text) > SHORTEST_DOCSTRING and text not in seen and _PLAIN.issuperset(text):
                seen.add(text)
                kept.append(text)
        if kept:
            yield "\n\n".join(kept)


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> list[str]:
    text = ast.get_docstring(node)
    found = [text] if text else []
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found += _docstrings(inner)
    return found
