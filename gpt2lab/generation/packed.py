"""A model's weights, laid out once for generation: bf16 or int8, in the processor's own order.

Making a token reads every weight once, so that on a CPU the time is that of reading them. Plain
matrix products read bf16 at half of the memory's speed; oneDNN's, over weights in blocks, at nearly
all of it. The operators are those that torch's compiler uses, not public ones: each is tried before
it is relied on, and plain operators serve where it does not work.
"""

import warnings
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lab.config import Precision, Quantize
from gpt2lab.model import GPT2
from gpt2lab.precision import chosen_precision

SMALLEST = torch.finfo(torch.bfloat16).tiny
"""Of a scale, so that a row of zeros is divided by something."""

Packing = Callable[[Tensor, Tensor | None], nn.Module]
"""From the weight (out, in) and bias (out,) of a linear layer to one that computes the same."""


class ReorderedLinear(nn.Module):
    """A linear layer over bf16 weights in oneDNN's order."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), None)
        self.bias = None if bias is None else bias.bfloat16()
        self.num_bytes = 2 * weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """A linear layer of int8 weights, a scale for each output, and int8 inputs, a scale for each
    row of them, so that no row depends on another.

    Products are summed in int32, which is exact.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        integers, self.scales = rounded(weight.float())
        self.weight = torch.ops.onednn.qlinear_prepack(integers, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = None if bias is None else bias.to(dtype)
        self.dtype = dtype
        self.num_bytes = weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        # 126, since x / scale is rounded twice in bf16, and 128 would be -128
        scale = x.abs().amax(-1, keepdim=True).mul_(1 / 126)
        scale.clamp_min_(SMALLEST)
        integers = (x / scale).round_().to(torch.int8)
        y = torch.ops.onednn.qlinear_pointwise(
            *(integers, 1.0, 0, self.weight, self.scales, self.zeros, None),
            *(1.0, 0, self.dtype, "none", [], ""),
        )
        return y * scale if self.bias is None else torch.addcmul(self.bias, y, scale)


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (out, in) in int8, and the scale of each output (out,), so that their product is
    within half a scale of each weight."""
    scales = weight.abs().amax(1).clamp_min(SMALLEST) / 127
    return (weight / scales[:, None]).round().to(torch.int8).contiguous(), scales


class PackedGPT2(GPT2):
    """A GPT-2 that generates and does not train: each linear layer, and the head, is packed.

    It takes the weights of the model that it is made of, layer by layer, so that memory never holds
    all of them twice.
    """

    def __init__(self, model: GPT2, dtype: torch.dtype, packing: Packing) -> None:
        nn.Module.__init__(self)
        self.config, self.vocab_size, self.speech = model.config, model.vocab_size, model.speech
        self.transformer = model.transformer
        self.tied_head = packing(self.transformer.wte.weight.detach(), None)
        for module in list(self.transformer.modules()):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Dropout):
                    setattr(module, name, nn.Identity())  # a call that does nothing takes time too
                if isinstance(layer, nn.Linear):
                    bias = None if layer.bias is None else layer.bias.detach()
                    setattr(module, name, packing(layer.weight.detach(), bias))
        self.transformer.to(dtype)  # embeddings and norms: a packed layer has no parameters
        self.requires_grad_(False).eval()

    def head(self, hidden: Tensor) -> Tensor:
        return self.tied_head(hidden)[..., : self.vocab_size]


def packed(model: GPT2, precision: Precision, quantize: Quantize | None = None) -> GPT2:
    """The model for generation; the one given is used up.

    Args:
        precision: of weights, activations and cache; auto as in training.
        quantize: int8 for the weights and inputs of linear layers; the rest is in `precision`.
    """
    device = model.transformer.wpe.weight.device
    is_bf16 = chosen_precision(precision, device.type) is Precision.bf16
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    if quantize is Quantize.int8:
        if device.type == "cpu" and int8_works():
            return PackedGPT2(model, dtype, lambda w, b: Int8Linear(w, b, dtype))
        warnings.warn(
            f"quantize: int8 products do not work on this {device.type}; going on without them",
            stacklevel=2,
        )
    if is_bf16 and device.type == "cpu" and reordering_works():
        return PackedGPT2(model, dtype, ReorderedLinear)
    return model.to(dtype).requires_grad_(False).eval()


def bytes_read(model: GPT2) -> int:
    """Bytes of weights that making a token reads: all but those of which it looks up a row."""
    embeddings = {model.transformer.wpe.weight}
    if isinstance(model, PackedGPT2):  # else it is the head, too
        embeddings.add(model.transformer.wte.weight)
    plain = sum(p.nbytes for p in model.parameters() if p not in embeddings)
    return plain + sum(getattr(layer, "num_bytes", 0) for layer in model.modules())


@cache
def reordering_works() -> bool:
    return _agrees(ReorderedLinear)


@cache
def int8_works() -> bool:
    return _agrees(lambda w, b: Int8Linear(w, b, torch.float32), torch.float32)


def _agrees(packing: Packing, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether an operator is there and computes what it should."""
    numbers = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(size, generator=numbers) for size in ((32, 16), (32,), (3, 16)))
    try:
        found = packing(weight, bias)(x.to(dtype)).float()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found, F.linear(x, weight, bias), atol=0.3)
