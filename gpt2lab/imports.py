"""Other libraries, loaded without what takes long in them and nothing here needs."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType
from typing import Any

OF_METRICS = {"transformers": ("AutoModel", "AutoTokenizer"), "scipy.signal": ("hamming",)}


class LoadedBy:
    """On `sys.meta_path`, it has one module loaded by a loader of ours."""

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
    """Lightning imports all metrics there are, and two of these import transformers and SciPy's
    signal processing where they are installed. Here they are loaded when a metric uses them.

    What torchmetrics itself adds to `scipy.signal`, for an old library, is not there.
    """

    def exec_module(self, module: ModuleType) -> None:
        with loaded_on_use(OF_METRICS):
            super().exec_module(module)


@contextmanager
def loaded_on_use(modules: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Within it, importing these modules for these names loads nothing: the names do, when they
    are called or asked for an attribute. Asked for anything else, a module is loaded at once."""
    specs = {name: _spec(name) for name in modules}
    ours = {name: _Later(spec, modules[name]) for name, spec in specs.items() if spec is not None}
    for name, later in ours.items():
        sys.modules.setdefault(name, later)  # what is loaded already stays
    try:
        yield
    finally:
        for later in ours.values():
            later.leave()


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except (ModuleNotFoundError, ValueError):  # no such package; somebody else's stand-in
        return None


class _Later(ModuleType):
    def __init__(self, spec: ModuleSpec, names: Sequence[str]) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec  # by which others see that it is installed
        self._names = {name: _Name(self, name) for name in names}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._names.get(name) or getattr(self.real(), name)

    def real(self) -> ModuleType:
        self.leave()
        return import_module(self.__name__)

    def leave(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


class _Name:
    """A class or function of a module that may not be loaded yet."""

    def __init__(self, module: _Later, name: str) -> None:
        self._module = module
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def _real(self) -> Any:
        return getattr(self._module.real(), self._name)
