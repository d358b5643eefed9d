"""Gradio without what it does for those who write pages in an editor."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from types import ModuleType

from gpt2lab.imports import LoadedBy


def import_gradio() -> threading.Thread:
    """Load gradio while something else is done."""

    def load() -> None:
        with _no_stubs_are_written():
            import gradio  # noqa: F401

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


@contextmanager
def _no_stubs_are_written() -> Iterator[None]:
    """Importing it, gradio parses its own components and writes a .pyi beside each, every time:
    half of the time that the import takes."""
    finder = LoadedBy("gradio.component_meta", _Loader)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]
