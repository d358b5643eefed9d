"""Optimizers, which parameters they decay, and learning rates as pure functions of the step."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from gpt2lab.config import (
    AdamWConfig,
    CosineConfig,
    MuonConfig,
    OptimConfig,
    ScheduleConfig,
    WSDConfig,
)
from gpt2lab.ranks import is_sharded, own, own_rows

SHARE = "share_of_lr"
"""In a group of parameters, the share of the learning rate that they have, if not all of it."""


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and embeddings decay, biases and norms do not."""
    parameters = list(parameters)
    decayed = [p for p in parameters if p.dim() >= 2]
    others = [p for p in parameters if p.dim() < 2]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """AdamW for everything, or Muon for the matrices inside the blocks and AdamW for the rest."""
    hidden = [p for name, p in model.named_parameters() if ".h." in name and p.dim() == 2]
    taken = {id(p) for p in hidden}
    if not isinstance(config, MuonConfig):
        return _adamw(model.parameters(), config, hidden)
    kind = ShardedMuon if any(map(is_sharded, hidden)) else Muon
    muon = kind(
        hidden,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        # Updates get the root mean square of AdamW's, so that one learning rate suits both.
        adjust_lr_fn="match_rms_adamw",
    )
    return OptimizerPair(
        muon, _adamw((p for p in model.parameters() if id(p) not in taken), config)
    )


def _adamw(
    parameters: Iterable[nn.Parameter], config: OptimConfig, hidden: Sequence[nn.Parameter] = ()
) -> AdamW:
    """
    Args:
        hidden: the matrices among them whose rate may depend on the width.
    """
    groups = decay_groups(parameters, config.weight_decay)
    if isinstance(config, AdamWConfig) and config.base_width is not None:
        groups = apart(groups, hidden, config.base_width / min(hidden[0].shape))
    return AdamW(
        groups,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,  # three times faster, on CPUs too
    )


def apart(
    groups: Iterable[dict[str, Any]], parameters: Iterable[nn.Parameter], share: float
) -> list[dict[str, Any]]:
    """The groups with some of their parameters in groups of their own, at a share of the rate.

    One rate for models of many widths: an update of Adam's is as large in each weight whatever the
    width, so that what it changes behind a matrix grows with the matrix' inputs, and a share of 1 /
    width undoes that (Yang et al. 2022, Tensor Programs V). The paper's initial weights and scale
    of the head are not taken over: those stay GPT-2's.
    """
    chosen, found = {id(p) for p in parameters}, []
    for group in groups:
        rest = [p for p in group["params"] if id(p) not in chosen]
        taken = [p for p in group["params"] if id(p) in chosen]
        found += [{**group, "params": rest}, {**group, "params": taken, SHARE: share}]
    return [group for group in found if group["params"]]


class ShardedMuon(Muon):
    """Muon of matrices whose rows are sharded over the ranks.

    What is orthogonalised is a whole matrix: the momentum is added up by rows, the sum gathered,
    and of what Muon makes of it each rank takes its rows. All ranks do so at once.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)
        return loss

    def _step(self, parameter: Any, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        change = torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
        change.grad = update.full_tensor()
        rest = {"params": [change], "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
        Muon([{**group, **rest}]).step()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        own(parameter).add_(change[own_rows(len(change))])


class OptimizerPair(Optimizer):
    """Two optimizers of different parameters that step, save and load as one."""

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self.pair = (first, second)
        super().__init__(first.param_groups + second.param_groups, {})
        self._share()

    def _share(self) -> None:
        """Let both see the groups and the state of the whole, which is what is saved and loaded."""
        first, second = self.pair
        cut = len(first.param_groups)
        first.param_groups, second.param_groups = self.param_groups[:cut], self.param_groups[cut:]
        first.state = second.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.pair:
            optimizer.step()
        return loss


def learning_rate_factor(step: int, config: ScheduleConfig, max_steps: int) -> float:
    """Share of optim.lr at a step, counted from 0."""
    if step < config.warmup_steps:
        return warmup(step, config.warmup_steps)
    if isinstance(config, CosineConfig):
        end = config.decay_steps or max_steps
        return cosine(step, config.warmup_steps, end, config.final_lr_ratio)
    if isinstance(config, WSDConfig):
        start = max(config.warmup_steps, round(max_steps * (1 - config.decay_ratio)))
        return linear_decay(step, start, max_steps, config.final_lr_ratio)
    return 1.0


def warmup(step: int, warmup_steps: int) -> float:
    """(step + 1) / (warmup_steps + 1): never zero, and one at the step after the last."""
    return (step + 1) / (warmup_steps + 1)


def cosine(step: int, start: int, end: int, final: float) -> float:
    """From 1 at `start` to `final` at `end` and after it, along half a cosine."""
    progress = _progress(step, start, end)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def linear_decay(step: int, start: int, end: int, final: float) -> float:
    """1 until `start`, then a straight line to `final` at `end`."""
    return 1 - (1 - final) * _progress(step, start, end)


def _progress(step: int, start: int, end: int) -> float:
    if step >= end:
        return 1.0
    return max(0.0, (step - start) / max(1, end - start))  # a decay may begin at its end


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(SHARE, 1.0)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """2-norm of all gradients together, of this rank's rows of those that are sharded.

    They are left as they are.
    """
    return nn.utils.get_total_norm([own(p.grad) for p in parameters if p.grad is not None])


def clip_gradients(parameters: Sequence[nn.Parameter], norm: float, largest: float | None) -> None:
    """Scale gradients of this norm down to `largest`, if they are beyond it."""
    if largest is not None and norm > largest:
        # Made on the device: for a number to be copied from here, the host would wait.
        there = torch.full((), norm, device=parameters[0].device)
        nn.utils.clip_grads_with_norm_(parameters, largest, there)
