"""What is said of a step whose loss or gradient is not finite: spike.json, and the error."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2lab import ranks
from gpt2lab.batch import IGNORE, Batch
from gpt2lab.durable import write_json
from gpt2lab.errors import RunError

FILE = "spike.json"


def nonfinite(loss: float, norm: float) -> str:
    """Which of the two is not finite, in words: the gradient's norm only where the loss is."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return f"the gradient norm is {norm}"


class Spikes:
    """Writes spike.json, and makes the error that ends the run.

    Args:
        folder: the run's; None where there is none, and so nothing to write and no checkpoint.
        newest: finds the last good checkpoint of the run, if there is one.
    """

    def __init__(
        self, folder: Path | None = None, newest: Callable[[], Path | None] = lambda: None
    ) -> None:
        self.folder = folder
        self.newest = newest

    def error(self, module: Any, step: int, loss: float, norm: float) -> RunError:
        """The error that ends the run; spike.json is written first.

        To be called while the gradients are there, and before anything changes. Of several ranks,
        the first writes, and all say what it says.

        Args:
            step: counted as in the metrics: steps done + 1.
        """
        return RunError(ranks.of_first(self._line(module, step, loss, norm)))

    def _line(self, module: Any, step: int, loss: float, norm: float) -> str:
        what = f"step {step}: {nonfinite(loss, norm)}; nothing was changed by it"
        skip = (
            f"leave {'one more such step' if module.skipped_steps else 'such a step'} out with "
            f"skip_nonfinite={module.skipped_steps + 1}"
        )
        if self.folder is None:
            return f"{what}; lower optim.lr, or {skip}"
        written = self._write(describe(module, step, loss, norm))
        checkpoint = self.newest()
        if checkpoint is None:
            return (
                f"{what}, there is no checkpoint yet, and {written}; "
                f"start anew with a lower optim.lr, or {skip}"
            )
        return (
            f"{what}, the last good checkpoint is {checkpoint}, and {written}; "
            f"go on with name={self.folder.name} resume=last and a lower optim.lr, or {skip}"
        )

    def _write(self, content: dict[str, Any]) -> str:
        assert self.folder is not None
        path = self.folder / FILE
        try:
            if ranks.is_first():
                write_json(path, content)
        except OSError as error:  # it must not take the place of what it tells of
            return f"{path} cannot be written ({error.strerror})"
        return f"{path} says which samples and layers"


def describe(module: Any, step: int, loss: float, norm: float) -> dict[str, Any]:
    """The content of spike.json, in JSON's types alone: a number that is not finite is a text.

    `step` is the one that was being made, as the metrics count: steps done + 1. `layers` holds the
    2-norm of each layer's parameters and that of their gradients, before any clipping; `samples`,
    in the order of the batch, each row's name as `sample_ids` of the datamodule gives it, its mean
    loss over the targets that count (null where none does), and its text.
    """
    data = module.trainer.datamodule
    # Read again, for it is a function of the step alone: nothing has to be kept for it.
    batch = data.train[step - 1]
    losses = row_losses(module, batch, step)
    ids = data.sample_ids(step - 1)
    samples = [
        {"id": name, "loss": None if row is None else json_number(row), "text": text}
        for name, row, text in zip(ids, losses, texts(data, batch), strict=True)
    ]
    return {
        "step": step,
        "loss": json_number(loss),
        "gradient_norm": json_number(norm),
        "layers": layer_norms(module.model.transformer),
        "samples": ranks.joined(samples),
    }


def json_number(value: float) -> float | str:
    """A number as strict JSON can hold it: "nan", "inf" and "-inf" are texts."""
    return value if math.isfinite(value) else str(value)


def layer_norms(backbone: torch.nn.Module) -> dict[str, dict[str, float | str | None]]:
    """Of wte, wpe, h.0, h.1 ... and ln_f: {"weight": 2-norm, "gradient": 2-norm}."""
    layers: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in backbone.named_parameters():
        first, second, *_ = name.split(".")
        layers.setdefault(f"h.{second}" if first == "h" else first, []).append(parameter)
    return {
        name: {
            "weight": norm_of([p.detach() for p in parameters]),
            "gradient": norm_of([p.grad for p in parameters if p.grad is not None]),
        }
        for name, parameters in layers.items()
    }


def norm_of(tensors: list[Tensor]) -> float | str | None:
    """2-norm of all together; None where there is none."""
    if not tensors:
        return None
    # In float64, for the squares of finite fp32 numbers may be beyond fp32; some GPUs have none.
    square = sum(float(ranks.own(t).cpu().double().square().sum()) for t in tensors)
    if ranks.is_sharded(tensors[0]):
        square = sum(ranks.joined([square]))
    return json_number(math.sqrt(square))


@torch.no_grad()
def row_losses(module: Any, batch: Batch, step: int) -> list[float | None]:
    """Each row's mean loss over its targets that count, in nats, by the forward pass of the step.

    The same micro-batches in the same number format, with the same dropout.
    """
    module.seed_dropout(step - 1)
    losses: list[float | None] = []
    with module.trainer.precision_plugin.forward_context():
        for part in module.parts(batch):
            nll, _ = module.model.scores(part.to(module.device))
            counted = (part.targets != IGNORE).sum(1).tolist()
            sums = nll.cpu().double().sum(1).tolist()
            losses += [s / n if n else None for s, n in zip(sums, counted, strict=True)]
    return losses


def texts(data: Any, batch: Batch) -> list[str]:
    """What each row says, without padding."""
    # The tokenizer's own text, in which the ends of documents and answers can be seen.
    decode = data.decode if data.tokenizer is None else data.tokenizer.decode
    rows = zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)
    return [decode(row_ids(inputs, targets)) for inputs, targets in rows]


def row_ids(inputs: list[int], targets: list[int]) -> list[int]:
    """The ids of a row, up to its last target that counts: what follows is padding.

    Of two pairs a | b <end> and c | d <end> in one row, the ends are no inputs:
    inputs a b c d, targets b <end> d <end> give a b <end> c d <end>.
    """
    T = max((t for t, target in enumerate(targets, 1) if target != IGNORE), default=0)
    ids = []
    for token, target, following in zip(inputs[:T], targets, [*inputs[1:T], None], strict=False):
        ids.append(token)
        if target not in (IGNORE, following):
            ids.append(target)
    return ids
