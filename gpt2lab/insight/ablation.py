"""What a head is worth: the loss without it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lab.backends import eager
from gpt2lab.batch import IGNORE
from gpt2lab.config import Ablation
from gpt2lab.insight.inside import Inside, hooked, shifted
from gpt2lab.loss import score_targets
from gpt2lab.model import GPT2

TOKENS_AT_ONCE = 4096
"""Of all variants that are computed together: a bound of the memory."""


@torch.no_grad()
def ablation_costs(
    model: GPT2,
    inside: Inside,
    how: Ablation | str = Ablation.mean,
    targets: Tensor | None = None,
) -> Tensor:
    """How much the mean loss rises when one head is taken away, in nats per token: (L, H).

    Michel et al., "Are Sixteen Heads Really Better than One?" (2019), put zero in the place of a
    head's output before c_proj; its mean, as in Wang et al., "Interpretability in the Wild" (2023),
    leaves the layers behind what they are used to. Here the mean is over the tokens of this text.
    Negative where the text is better predicted without the head.

    Args:
        inside: what `attention` found.
        how: zero or mean.
        targets: (T,), IGNORE where it does not count; None for the next tokens of the text.
    Returns:
        NaN everywhere if no target counts.
    """
    how, config = Ablation(how), model.config
    targets = shifted(inside.token_ids) if targets is None else targets
    costs = inside.weights.new_full((config.n_layer, config.n_head), torch.nan)
    if not (targets != IGNORE).any():
        return costs
    rows = max(1, TOKENS_AT_ONCE // len(targets))
    dtype = model.transformer.ln_f.weight.dtype
    with model.evaluating(), eager(model):
        for layer, stream in enumerate(inside.after_layers()[:-1].to(dtype)):
            for heads in torch.arange(config.n_head).split(rows):
                costs[layer, heads] = _loss_without(model, layer, heads, how, stream, targets)
        return costs - _loss(model, inside.streams[-1:].to(dtype), targets)


def _loss_without(
    model: GPT2, layer: int, heads: Tensor, how: Ablation, stream: Tensor, targets: Tensor
) -> Tensor:
    """The mean loss without each of these heads of a layer, (n,), from the stream (T, C) before it.

    What lies before is the same for all of them, and not computed again.
    """
    blocks: Any = model.transformer.h[layer:]
    x = stream.expand(len(heads), -1, -1)
    with hooked() as hooks:
        replace = _replacing(heads, model.config.n_head, how)
        hooks.append(blocks[0].attn.c_proj.register_forward_pre_hook(replace))
        for block in blocks:
            x = block(x)
    return _loss(model, x, targets)


def _replacing(heads: Tensor, n_head: int, how: Ablation) -> Callable[..., tuple[Tensor]]:
    """A hook by which row i of a batch loses the output of heads[i]."""

    def replace(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        outputs = inputs[0].unflatten(-1, (n_head, -1)).clone()  # (n, T, H, D)
        for row, head in enumerate(heads):
            own = outputs[row, :, head]
            outputs[row, :, head] = 0 if how is Ablation.zero else own.mean(0)
        return (outputs.flatten(-2),)

    return replace


def _loss(model: GPT2, streams: Tensor, targets: Tensor) -> Tensor:
    """Mean loss of each last stream (n, T, C), in nats per token: (n,)."""
    counts = targets != IGNORE
    hidden = model.transformer.ln_f(streams[:, counts])
    targets = targets[counts].expand(len(hidden), -1)
    weight = model.transformer.wte.weight
    loss, _ = score_targets(hidden, weight, targets, vocab_size=model.vocab_size)
    return loss.mean(-1)
