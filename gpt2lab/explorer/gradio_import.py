"""Gradio without what it does for those who write pages in an editor."""

import sys
import threading
from importlib.machinery import SourceFileLoader
from types import ModuleType

from gpt2lab.imports import LoadedBy


class NoStubs(SourceFileLoader):
    """Whenever it is imported, gradio parses its own components and writes a .pyi beside each: half
    of the time that the import takes."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]


def import_gradio() -> threading.Thread:
    """Load gradio while something else is done."""

    def load() -> None:
        import gradio  # noqa: F401

    sys.meta_path.insert(0, LoadedBy("gradio.component_meta", NoStubs))
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread
