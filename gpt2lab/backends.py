"""What torch computes a training step with: number formats, the kernel of attention, a compiler.

It is chosen once, before the first step, and told by train.log and by `backends` in summary.json.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend

from gpt2lab.batch import Batch
from gpt2lab.config import Precision
from gpt2lab.model import GPT2, MLP, Block, CausalSelfAttention


def choose_products(precision: Precision) -> None:
    """What fp32 matrices are multiplied in: tf32 only where it was asked for."""
    torch.set_float32_matmul_precision("high" if precision is Precision.tf32 else "highest")


def attention_kernel(model: GPT2, batch: Batch) -> str:
    """What `scaled_dot_product_attention` takes in training, in its own words, under the autocast
    that is on.

    flash and efficient never hold a whole matrix of weights; math does, and is slow. `unknown`
    where torch does not say.
    """
    choose = getattr(torch, "_fused_sdp_choice", None)
    if choose is None:
        return "unknown"
    device, config, (B, T) = model.device, model.config, batch.inputs.shape
    dtype = torch.float32
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    shape = (B, config.n_head, T, config.n_embd // config.n_head)
    q = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
    mask = None
    if batch.documents is not None:
        mask = torch.ones(B, 1, T, T, dtype=torch.bool, device=device)
    chosen = choose(q, q, q, mask, config.dropout, mask is None)
    return SDPBackend(chosen).name.removesuffix("_ATTENTION").lower()


def compile_blocks(
    model: GPT2,
    wanted: bool | None,
    device: torch.device,
    backend: str = "inductor",
    is_sharded: bool = False,
) -> str:
    """Compile each block, if that is wanted and works; what was done, in words.

    A block is what repeats, so that one graph serves all of them: far less to compile than the
    whole model, and names of parameters stay as they are.

    Args:
        wanted: None for NVIDIA GPUs alone; on a CPU it gains nothing.
        backend: of torch.compile.
        is_sharded: blocks and their norms have hooks that gather weights, at each of which a
            graph would end; then it is what lies between them that is compiled.
    """
    if wanted is None:
        wanted = device.type == "cuda"
    if not wanted:
        return "eager"
    if problem := compiler_problem(device, backend):
        warnings.warn(f"compile: {problem}; going on without it", stacklevel=2)
        return f"eager: {problem}"
    # It would cut each block where a bucket of DDP's ends. Blocks are cuts enough: the buckets of
    # one are exchanged while the gradients of the next are computed.
    torch._dynamo.config.optimize_ddp = False
    kinds = (CausalSelfAttention, MLP) if is_sharded else (Block,)
    for part in model.transformer.h.modules():
        if isinstance(part, kinds):
            part.compile(backend=backend)
    return "attention and MLP of each block" if is_sharded else "each block"


def eager(model: GPT2) -> AbstractContextManager[None]:
    """Within it, compiled blocks are not: for shapes that change with every call."""
    if all(part._compiled_call_impl is None for part in model.transformer.h.modules()):
        return nullcontext()  # the compiler takes seconds to load
    return torch.compiler.set_stance("force_eager")


def compiler_problem(device: torch.device, backend: str) -> str | None:
    """Why torch.compile does not work here; None where it does."""
    try:
        torch.compile(torch.sin, backend=backend)(torch.ones(2, device=device))
    except Exception as error:  # of a compiler that is missing, old or wrong, in its words
        what = (str(error).strip().splitlines() or [""])[0][:200]
        return f"does not work here ({type(error).__name__}: {what})"
    return None
