"""A device of this machine: parts of the model timed at the shape at which it would train.

No share of a peak has to be guessed then. The parts are one block and all that is not a block;
a model is so many of the first and one of the second.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt2lab.backends import choose_products, compile_blocks
from gpt2lab.batch import IGNORE, Batch
from gpt2lab.config import OptimConfig, Precision
from gpt2lab.heap import freed_memory_is_kept
from gpt2lab.measure import now
from gpt2lab.model import GPT2, document_mask
from gpt2lab.optim import OptimizerPair, build_optimizer, clip_gradients, gradient_norm
from gpt2lab.planning.memory import FP32
from gpt2lab.planning.work import Work

CPU_TOKENS, GPU_TOKENS = 1024, 2**15
"""Timed at once at most; more take as much longer as they are more."""
AT_MOST_S = 0.5
"""What timing one part may take, beyond a first try that picks kernels."""
AT_MOST_TIMES = 50
BLOCKS = 2
"""In the model that is timed: the weights of one alone would stay in a cache."""


@dataclass(frozen=True)
class Timed:
    """Seconds of the parts.

    Args:
        block, rest: of one sequence, forward and backward.
        matrices: Muon's update of those of one block; 0 for AdamW.
        number: AdamW's update of one number, norm and clipping included.
        sharing: how many devices share what was timed, as processes share a CPU.
    """

    block: float
    rest: float
    matrices: float
    number: float
    sharing: int

    def products(self, work: Work) -> float:
        sequence = work.model.n_layer * self.block + self.rest
        return self.sharing * work.rows * sequence

    def update(self, work: Work) -> float:
        numbers = work.parameters
        shards = work.devices if work.is_sharded else 1
        by_adam = numbers.all
        if work.uses_muon:
            by_adam -= numbers.n_layer * numbers.block_matrices
        # Muon's matrices are orthogonalised as a whole, on every device that has rows of them.
        return self.sharing * (numbers.n_layer * self.matrices + by_adam * self.number / shards)


def timed(
    work: Work,
    optim: OptimConfig,
    device: torch.device,
    precision: Precision,
    compiled: bool | None = False,
) -> Timed:
    """Takes some seconds, and the memory of a model of two blocks. No random state is touched.

    Args:
        compiled: as the setting `compile`.
    """
    choose_products(precision)
    most = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    rows = min(work.rows, max(1, most // work.tokens))
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), freed_memory_is_kept():
        model = GPT2(replace(work.model, n_layer=BLOCKS)).to(device).train()
        compile_blocks(model, compiled, device, is_sharded=work.is_sharded)
        batch = batch_of(work, rows, device)
        stream = torch.randn(rows, work.tokens, work.model.n_embd, device=device)
        stream.requires_grad_()
        blocks = median_seconds(lambda: run_blocks(model, stream, batch, work), device)
        matrices, number = update_of(model, optim, device)
        model.transformer.h = nn.ModuleList()
        rest = median_seconds(lambda: run_all(model, batch, work), device)
    sharing = work.devices_a_node if device.type == "cpu" else 1
    return Timed(blocks / BLOCKS / rows, rest / rows, matrices, number, sharing)


def batch_of(work: Work, rows: int, device: torch.device) -> Batch:
    """Random tokens, which cost what text costs; of a task with prefixes, the last ones count."""
    ids = torch.randint(work.model.vocab_size or 1, (rows, work.tokens), device=device)
    targets = ids.clone()
    targets[:, : work.tokens - round(work.tokens * work.counted)] = IGNORE
    documents = torch.zeros_like(ids) if work.is_masked else None
    return Batch(ids, targets, documents).with_counted()


def run_all(model: GPT2, batch: Batch, work: Work) -> None:
    """A forward and a backward pass, as `GPT2LightningModule.training_step` makes them."""
    model.zero_grad()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=work.width < FP32):
        loss = model.loss(batch)
    loss.backward()


def run_blocks(model: GPT2, stream: Tensor, batch: Batch, work: Work) -> None:
    """The same of the blocks alone."""
    model.zero_grad()
    stream.grad = None
    mask = None if batch.documents is None else document_mask(batch.documents)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=work.width < FP32):
        x = stream
        for block in model.transformer.h:
            if work.model.activation_checkpointing:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
    x.backward(torch.ones_like(x))


def update_of(model: GPT2, optim: OptimConfig, device: torch.device) -> tuple[float, float]:
    """Seconds of Muon for the matrices of a block, and of all the rest for one number."""
    optimizer = build_optimizer(model, optim)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-8)

    def others() -> None:
        norm = float(gradient_norm(parameters))
        clip_gradients(parameters, norm, optim.grad_clip)
        adam.step()

    matrices, adam = 0.0, optimizer
    if isinstance(optimizer, OptimizerPair):
        muon, adam = optimizer.pair
        matrices = median_seconds(muon.step, device) / BLOCKS
    by_adam = sum(p.numel() for group in adam.param_groups for p in group["params"])
    return matrices, median_seconds(others, device) / by_adam


def memory_rate(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(2**25, device=device)  # beyond any cache
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), device)
    return 2 * source.nbytes / seconds


def median_seconds(action: Callable[[], object], device: torch.device) -> float:
    """Of a few times, after one that is not counted."""
    action()
    seconds: list[float] = []
    while len(seconds) < AT_MOST_TIMES and sum(seconds) < AT_MOST_S:
        begun = now(device)
        action()
        seconds.append(now(device) - begun)
    return statistics.median(seconds)
