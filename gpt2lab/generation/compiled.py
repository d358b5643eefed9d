"""A decoding step as one graph for every position, as a GPU wants it: a launch, not two hundred."""

import warnings
from functools import cache as once

import torch
from torch import Tensor

from gpt2lab.model import GPT2


def step_at(model: GPT2, token_ids: Tensor, cache: Tensor, position: int | Tensor) -> Tensor:
    """Logits (B, V) after one more token of each row, (B, 1), put at this position of the cache."""
    return model.call_with_cache(token_ids, cache, position)[0][:, -1]


eager_step = torch.inference_mode()(step_at)  # a thirtieth faster than no_grad


class CompiledStep:
    """The same by torch.compile with shapes that never change; eager where that does not work.

    Args:
        mode: of torch.compile; reduce-overhead records a CUDA graph.
        backend: of torch.compile.
    """

    def __init__(self, mode: str | None = "reduce-overhead", backend: str = "inductor") -> None:
        # A graph for each batch size, and not for the first eight alone.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        self.graph = torch.compile(
            step_at, fullgraph=True, dynamic=False, mode=mode, backend=backend
        )
        self.works = True

    def __call__(self, model: GPT2, token_ids: Tensor, cache: Tensor, position: int) -> Tensor:
        if self.works:
            try:
                # Graphs read and write the cache where it is; a copy of it a step would be slow.
                torch._dynamo.mark_static_address(cache)
                torch.compiler.cudagraph_mark_step_begin()
                index = torch.tensor([position], device=token_ids.device)
                return self.graph(model, token_ids, cache, index)
            except Exception as error:  # of a compiler that is missing, old or wrong, in its words
                self.works = False
                what = (str(error).strip().splitlines() or [""])[0][:200]
                warnings.warn(
                    f"compile: does not work here ({type(error).__name__}: {what}); "
                    "going on without it",
                    stacklevel=2,
                )
        return eager_step(model, token_ids, cache, position)  # writes the same again


@once
def compiled_step() -> CompiledStep:
    """The one of this process: a graph, or a complaint about the compiler, is made once."""
    return CompiledStep()
