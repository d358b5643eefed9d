"""What a model computes on its way from tokens to logits, all of it, in one pass.

The pass is the one that training and evaluation take: hooks read what flows through it, and are
gone afterwards. L layers; H, T, D, C and V as everywhere.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lab.backends import eager
from gpt2lab.batch import IGNORE
from gpt2lab.errors import DataError
from gpt2lab.model import GPT2


@dataclass
class Inside:
    """What was computed of T tokens, in fp32 on the model's device."""

    token_ids: Tensor
    """(T,) int64."""
    weights: Tensor
    """How much each token looks at each, (L, H, T, T): rows are the tokens that look, sum to 1 and
    are 0 behind themselves."""
    q: Tensor
    """Queries, (L, H, T, D)."""
    k: Tensor
    """Keys, (L, H, T, D)."""
    v: Tensor
    """Values, (L, H, T, D)."""
    streams: Tensor
    """The residual stream, (2 L + 1, T, C): embeddings first, then after each layer's attention and
    after its MLP. Layer l reads streams[2 l]; streams[-1] is what the final norm reads."""
    logits: Tensor
    """(T, V), the model's own."""

    def after_layers(self) -> Tensor:
        """The stream before the first layer and after each, (L + 1, T, C)."""
        return self.streams[::2]


@torch.no_grad()
def attention(model: GPT2, token_ids: Tensor | Sequence[int]) -> Inside:
    """Read tokens and keep what each layer computes of them; no dropout, no gradients.

    A model that trains goes on training afterwards, with the same random numbers. One whose weights
    are packed in bf16 or int8 computes as it does; attention is softmax in fp32 over its queries
    and keys.

    Args:
        token_ids: (T,) or (1, T), 1 <= T <= block_size.
    Raises:
        DataError: if there is no token, one that is none of the model's, or more than it has
            positions.
    """
    ids = checked(model, token_ids)
    streams: list[Tensor] = []
    projections: list[Tensor] = []
    # A compiled block would not notice the hooks, or never lose them.
    with model.evaluating(), eager(model), _listening(model, streams, projections):
        logits = model(ids[None])[0].float()
    H = model.config.n_head
    qkv = torch.stack(projections).float()  # (L, T, 3 C)
    qkv = qkv.unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)  # (3, L, H, T, D)
    q, k, v = qkv.unbind(0)
    weights = torch.stack([attention_weights(*layer) for layer in zip(q, k, strict=True)])
    return Inside(ids, weights, q, k, v, torch.stack(streams).float(), logits)


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) over each token and those before it: (..., T, D) to (..., T, T)."""
    T, D = q.shape[-2:]
    scores = q @ k.mT / math.sqrt(D)
    ahead = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill_(ahead, -torch.inf).softmax(-1)


def checked(model: GPT2, token_ids: Tensor | Sequence[int]) -> Tensor:
    """Ids as an int64 tensor (T,) on the model's device.

    Raises:
        DataError: if the model cannot read them.
    """
    ids = torch.as_tensor(token_ids, device=model.device)
    if ids.dim() == 2 and len(ids) == 1:
        ids = ids[0]
    if ids.dim() != 1 or not len(ids) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise DataError("tokens: are no row of ids (T,); give at least one id")
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= model.vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise DataError(
            f"tokens: {wrong} is none of the model's ids; give 0 to {model.vocab_size - 1}"
        )
    if len(ids) > model.config.block_size:
        raise DataError(
            f"tokens: are {len(ids):,}, the model has {model.config.block_size:,} positions; "
            "give fewer"
        )
    return ids.long()


def shifted(token_ids: Tensor) -> Tensor:
    """The token that follows each, (T,), IGNORE behind the last."""
    return torch.cat([token_ids[1:], token_ids.new_tensor([IGNORE])])


@contextmanager
def _listening(model: GPT2, streams: list[Tensor], projections: list[Tensor]) -> Iterator[None]:
    """Within it, a pass of one row leaves its streams (T, C) and projections (T, 3 C) here."""
    backbone: Any = model.transformer
    with hooked() as hooks:
        for block in backbone.h:
            hooks.append(block.ln_1.register_forward_pre_hook(_keep_input(streams)))
            hooks.append(block.ln_2.register_forward_pre_hook(_keep_input(streams)))
            hooks.append(block.attn.c_attn.register_forward_hook(_keep_output(projections)))
        hooks.append(backbone.ln_f.register_forward_pre_hook(_keep_input(streams)))
        yield


@contextmanager
def hooked() -> Iterator[list[Any]]:
    """A list for hooks, which are gone afterwards whatever happens."""
    hooks: list[Any] = []
    try:
        yield hooks
    finally:
        for hook in hooks:
            hook.remove()


def _keep_input(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0][0])

    return keep


def _keep_output(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output[0])

    return keep
