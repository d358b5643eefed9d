"""A model's weights, laid out once for generation: bf16 or int8, in the processor's own order.

Making a token reads every weight once, so that on a CPU the time is that of reading them. Plain
matrix products read bf16 at half of the memory's speed; oneDNN's, over weights in blocks, at nearly
all of it. The operators are those that torch's compiler uses, not public ones: each is tried before
it is relied on, and plain operators serve where it does not work.
"""

import time
import warnings
from abc import abstractmethod
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

LARGEST, MIDDLE = 127, 128
"""Of inputs in 8 bits: LARGEST is how far they go from MIDDLE, which stands for 0."""
MANY_ROWS, MANY_ROWS_OF_TILES = 32, 4
"""From so many on the second way of int8 products is faster: without, and with Intel's AMX."""

Packing = Callable[[Tensor, Tensor | None], nn.Module]
"""From the weight (out, in) and bias (out,) of a linear layer to one that computes the same."""


class ReorderedLinear(nn.Module):
    """A linear layer over bf16 weights in oneDNN's order."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), None)
        self.bias = None if bias is None else bias.bfloat16()
        self.num_bytes = 2 * weight.numel()
        self.product = torch.ops.mkldnn._linear_pointwise.default  # found once, not at each call

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """A linear layer of int8 weights, with a scale for each output, and of fp32 inputs that are
    rounded to 8 bits, with a scale for each row, so that no row depends on another.

    Products are summed in int32, which is exact. A subclass has the weights in its own order.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.float()
        self.smallest = torch.tensor(SMALLEST)
        self.num_bytes = weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.add(self.smallest, x.abs().amax(-1, keepdim=True), alpha=1 / LARGEST)
        y = self.product(x, scale)
        return y.mul_(scale) if self.bias is None else torch.addcmul(self.bias, y, scale)

    @abstractmethod
    def product(self, x: Tensor, scale: Tensor) -> Tensor:
        """The rows of x / scale, rounded, times the weights."""


class Int8LinearOfFewRows(Int8Linear):
    """By fbgemm, the fastest for few rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        integers, scales = rounded(weight.float())
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch will drop such tensors one day: see `works`
            quantized = torch._make_per_channel_quantized_tensor(integers, scales, zeros, 0)
        self.weight = torch.ops.quantized.linear_prepack(quantized, None)
        # Without its wrapper, which looks at weights of such a class at each call.
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
        self.operator = product._op

    def product(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.operator(x / scale, 1.0, MIDDLE, self.weight)


class Int8LinearOfManyRows(Int8Linear):
    """By oneDNN, whose matrix units, where there are some, take 16 rows in the time of one."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        integers, self.scales = rounded(weight.float())
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.middle = torch.tensor(float(MIDDLE))
        self.weight = torch.ops.onednn.qlinear_prepack(integers, None)
        self.operator = torch.ops.onednn.qlinear_pointwise.default  # found once, not at each call

    def product(self, x: Tensor, scale: Tensor) -> Tensor:
        # Without AMX, only unsigned inputs have a fast product.
        integers = torch.addcdiv(self.middle, x, scale).round_().to(torch.uint8)
        return self.operator(
            *(integers, 1.0, MIDDLE, self.weight, self.scales, self.zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (out, in) in int8, and the scale of each output (out,), so that their product is
    within half a scale of each weight."""
    scales = weight.abs().amax(1).clamp_min(SMALLEST) / 127
    return (weight / scales[:, None]).round().to(torch.int8).contiguous(), scales


class Widened(nn.Module):
    """What comes out of embeddings, in the number format of what follows."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


class PackedGPT2(GPT2):
    """A GPT-2 that generates and does not train: each linear layer, and the head, is packed.

    It takes the weights of the model that it is made of, layer by layer, so that memory never holds
    all of them twice.

    Args:
        dtype: of the embeddings, of which each token reads a row.
        inner: of norms and activations.
    """

    def __init__(
        self, model: GPT2, dtype: torch.dtype, inner: torch.dtype, packing: Packing
    ) -> None:
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
        self.transformer.to(inner)  # a packed layer has no parameters
        for embedding in (self.transformer.wte, self.transformer.wpe):
            embedding.to(dtype)
        self.transformer.add_module("drop", Widened(inner))
        self.requires_grad_(False).eval()

    def head(self, hidden: Tensor) -> Tensor:
        return self.tied_head(hidden)[..., : self.vocab_size]


def packed(
    model: GPT2, precision: Precision, quantize: Quantize | None = None, rows: int = 1
) -> GPT2:
    """The model for generation; the one given is used up.

    Args:
        precision: of weights, activations and cache; auto as in training.
        quantize: int8 for the weights and inputs of linear layers; the rest is in `precision`.
        rows: how many are to be decoded at once. It decides what is fastest, and no result but for
            rounding.
    """
    device = model.device
    is_bf16 = chosen_precision(precision, device.type) is Precision.bf16
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    if quantize is Quantize.int8:
        linear = int8_linear(rows) if device.type == "cpu" else None
        if linear is not None:
            return PackedGPT2(model, dtype, torch.float32, linear)
        warnings.warn(
            f"quantize: int8 products do not work on this {device.type}; going on without them",
            stacklevel=2,
        )
    if is_bf16 and device.type == "cpu" and works(ReorderedLinear):
        return PackedGPT2(model, dtype, dtype, ReorderedLinear)
    return model.to(dtype).requires_grad_(False).eval()


def int8_linear(rows: int) -> type[Int8Linear] | None:
    """The int8 layer for so many rows that works here; None if none does."""
    kinds: list[type[Int8Linear]] = [Int8LinearOfFewRows, Int8LinearOfManyRows]
    # By what the processor is, not by a measurement, which would not always choose the same.
    many = MANY_ROWS_OF_TILES if has_tiles() else MANY_ROWS
    preferred = reversed(kinds) if rows >= many else kinds
    return next((kind for kind in preferred if works(kind)), None)  # type: ignore[arg-type]


def has_tiles() -> bool:
    """Whether this processor has Intel's matrix units."""
    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(known and known())


def bytes_read(model: GPT2) -> int:
    """Bytes of weights that making a token reads: all but those of which it looks up a row."""
    embeddings = {model.transformer.wpe.weight}
    if isinstance(model, PackedGPT2):  # else it is the head, too
        embeddings.add(model.transformer.wte.weight)
    plain = sum(p.nbytes for p in model.parameters() if p not in embeddings)
    return plain + sum(getattr(layer, "num_bytes", 0) for layer in model.modules())


@cache
def works(kind: type[nn.Module]) -> bool:
    """Whether a kind of layer is there, computes what it should, and not by a detour.

    Numbers are the largest there are, whose sums overflow in 16 bits: some processors only clip
    them. Where a product has no kernel of its own, another one serves that is 100 times slower.
    """
    numbers = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (256, 256), generator=numbers) * 2.0 - 1
    bias, x = torch.ones(256), signs[:4]
    try:
        layer = kind(signs, bias)
        x = x if issubclass(kind, Int8Linear) else x.bfloat16()
        plain = nn.Linear(256, 256).to(x.dtype)
        with torch.no_grad():
            is_right = torch.allclose(layer(x).float(), F.linear(signs[:4], signs, bias), atol=2)
            return is_right and _seconds(layer, x) < 20 * _seconds(plain, x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def _seconds(layer: nn.Module, x: Tensor) -> float:
    """The shortest time of some calls."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        layer(x)
        times.append(time.perf_counter() - start)
    return min(times)
