"""strategy=fsdp: each rank keeps some rows of every weight, gradient and optimizer state.

FSDP2, torch's `fully_shard`: the weights of a unit are gathered while it computes. A block is a
unit, but for its norms; so are the norms of all blocks, and all the rest: the token embedding,
which is the head too, the positions and the last norm, around the others. The rows of a weight go
to the ranks in order, ceil(rows / ranks) to each, so that the last ones may have fewer, or none:
the ranks need divide no vocabulary.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from gpt2lab import ranks
from gpt2lab.checkpoint.reading import Content, load_rows
from gpt2lab.checkpoint.writing import put, told, written_by_ranks
from gpt2lab.meta import meta_model
from gpt2lab.model import GPT2
from gpt2lab.ranks import Board


class FSDPStrategy(ModelParallelStrategy):
    """
    Args:
        reshard_after_forward: let go of a block's weights between its forward and its backward
            pass: less memory, for half as much again to be sent.
        process_group_backend: nccl on GPUs and gloo on a CPU, if None.
    """

    def __init__(
        self, reshard_after_forward: bool = True, process_group_backend: str | None = None
    ) -> None:
        super().__init__(tensor_parallel_size=1, process_group_backend=process_group_backend)
        self.reshard_after_forward = reshard_after_forward
        self.sharded: dict[str, Tensor] = {}
        """What is sharded, by its names in the module."""
        self._saves = 0

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        super().setup(trainer)
        # Not to be asked of the module later: it may have whole weights in their place, by which
        # the main thread computes while another one saves.
        self.sharded = dict(self.lightning_module.named_parameters())  # type: ignore[union-attr]

    def shard(self, model: GPT2) -> None:
        """Leave this rank its rows of a model that is the same on all of them."""
        mesh = self.device_mesh["data_parallel"]
        policy = MixedPrecisionPolicy()
        if self.precision_plugin.precision == "bf16-mixed":
            # As autocast has it: products in bf16, norms and the stream between blocks in fp32.
            policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
        blocks = model.transformer.h
        # In fp32 whatever the products are in: around 1, bf16 has steps of 1/128.
        norms: list[Any] = [norm for block in blocks for norm in (block.ln_1, block.ln_2)]
        fully_shard(norms, mesh=mesh, reshard_after_forward=False)  # they are small
        for block in blocks:
            fully_shard(
                block,
                mesh=mesh,
                mp_policy=policy,
                reshard_after_forward=self.reshard_after_forward,
            )
        fully_shard(model, mesh=mesh)
        for name in ("loss", "scores"):  # they read the head's weights, which must be whole then
            register_fsdp_forward_method(model, name)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Within it, gradients add up on each rank, whole and in fp32."""
        units = [m for m in self.lightning_module.modules() if isinstance(m, FSDPModule)]  # type: ignore[union-attr]
        for unit in units:
            unit.set_requires_gradient_sync(False, recurse=False)
        try:
            yield
        finally:
            for unit in units:
                unit.set_requires_gradient_sync(True, recurse=False)

    # What Lightning saves and loads: this rank's rows, under the names and numbers that they have
    # on one device.

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {name: ranks.own(tensor.detach()) for name, tensor in self.sharded.items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        return rows_in(optimizer.state_dict())

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None
    ) -> None:
        """By all ranks at once, a folder of their files.

        Args:
            storage_options: as in AtomicCheckpointIO.
        """
        if storage_options is None:
            self._saves += 1
            storage_options = partial(save_elsewhere, name=f"elsewhere-{self._saves}")
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        allowed = getattr(self.checkpoint_io, "allow_nonfinite", None)
        return load_rows(Path(checkpoint_path), self.global_rank, self.world_size, allowed)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        for name, rows in checkpoint["state_dict"].items():
            ranks.own(self.sharded[name]).copy_(rows)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(sharded(state, optimizer))


def save_elsewhere(content: Content, path: Path, name: str) -> None:
    """A save that a callback of Lightning's has asked for."""
    board = Board()
    with told(path, content), written_by_ranks(content, path, board, name) as file:
        if board.rank == 0:
            put(file.path, path)


def rows_in(value: Any) -> Any:
    """The same, with this rank's rows in place of every tensor that is sharded."""
    if isinstance(value, dict):
        return {key: rows_in(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rows_in(inner) for inner in value]
    return ranks.own(value) if isinstance(value, Tensor) else value


def sharded(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state with each rank's rows joined to a tensor that is sharded.

    Whatever is as large as its parameter is sharded as it is; a count of steps is not.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def shared(value: Any, like: Tensor) -> Any:
        if not isinstance(value, Tensor) or value.dim() == 0 or not isinstance(like, DTensor):
            return value
        return DTensor.from_local(
            value.to(like.device),
            like.device_mesh,
            like.placements,
            run_check=False,
            shape=like.shape,
            stride=like.stride(),
        )

    states = {
        number: {name: shared(value, parameters[number]) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": states}


def gathered(model: GPT2) -> GPT2 | None:
    """A whole copy of a model that is sharded, on the first rank's CPU; None on the others.

    To be called by all ranks, which gather one tensor after another.
    """
    whole = {}
    for name, tensor in model.state_dict().items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if ranks.is_first():
            whole[name] = full.cpu()
    if not whole:
        return None
    copy = meta_model(model.config)
    copy.load_state_dict(whole, assign=True)
    copy.speech = model.speech
    return copy.eval()
