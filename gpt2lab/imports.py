"""Other libraries, loaded without what takes long in them and nothing here needs."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class LoadedBy(MetaPathFinder):
    """Among `sys.meta_path`, it has one module loaded by a loader of ours."""

    def __init__(self, name: str, loader: type[SourceFileLoader]) -> None:
        self.name = name
        self.loader = loader

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = self.loader(fullname, spec.loader.path)
        return spec


class LightTorchmetrics(SourceFileLoader):
    """Lightning imports all metrics there are, and these import transformers and SciPy's signal
    processing where they are installed: half of what a training would wait for before its start.
    """

    def exec_module(self, module: ModuleType) -> None:
        with loaded_on_use("transformers", "scipy.signal"):
            super().exec_module(module)


@contextmanager
def loaded_on_use(*names: str) -> Iterator[None]:
    """Within it, whoever imports these modules gets names that load them when they are used."""
    specs = {name: _spec(name) for name in names if name not in sys.modules}
    installed = {name: _Later(spec) for name, spec in specs.items() if spec is not None}
    sys.modules.update(installed)
    try:
        yield
    finally:
        for name, module in installed.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError:  # the package that it would be in
        return None


class _Later(ModuleType):
    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec  # by which others see that it is installed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(self.__name__, name)


class _Name:
    """A class or function of a module that is not loaded yet."""

    def __init__(self, module: str, name: str) -> None:
        self.__home = module, name

    def __real(self) -> Any:
        module, name = self.__home
        if isinstance(sys.modules.get(module), _Later):
            del sys.modules[module]
        return getattr(import_module(module), name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__real(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__real()(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self.__real())
