"""A model of shapes alone, on torch's meta device: it takes next to no memory, and no time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gpt2lab.config import GPT2Config
from gpt2lab.model import GPT2


def meta_model(config: GPT2Config) -> GPT2:
    """Whose tensors have no values: for counts, or for weights that are assigned to it."""
    with torch.device("meta"), _NoInit():
        return GPT2(config)


class _NoInit(TorchFunctionMode):
    """Leaves nn.init out: to draw normal numbers of a meta tensor, torch first imports its
    compiler, which takes as long as torch itself."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
