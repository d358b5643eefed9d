"""Objects of Lightning's that settings name by `_target_`: the trainer, loggers, callbacks."""

import importlib
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from gpt2lab.checkpoint import AtomicCheckpointIO
from gpt2lab.config import HIGHER_IS_BETTER, Precision, TrainConfig
from gpt2lab.config.check.targets import HOMES
from gpt2lab.errors import ConfigError
from gpt2lab.fsdp import FSDPStrategy
from gpt2lab.loggers import Guarded


def build_trainer(
    settings: TrainConfig,
    precision: Precision,
    callbacks: list[Callback],
    loggers: list[Logger],
    folder: Path,
) -> Trainer:
    return instantiate(
        "trainer",
        settings.trainer,
        Trainer,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=build_strategy(settings),
        precision="bf16-mixed" if precision is Precision.bf16 else "32-true",
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=settings.eval_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        inference_mode=not settings.is_sharded,  # what is gathered in it cannot be trained
        logger=loggers,
        callbacks=callbacks,
        # Lightning goes by SLURM's variables otherwise: other ranks, other checks, a requeue of its
        # own, and a checkpoint that it finds by its name in its root folder.
        plugins=[
            AtomicCheckpointIO(settings.allow_nonfinite),
            LightningEnvironment() if settings.world_size == 1 else TorchElasticEnvironment(),
        ],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def build_strategy(settings: TrainConfig) -> DDPStrategy | FSDPStrategy | str:
    """How several devices share a step; one device needs no strategy.

    Raises:
        ConfigError: for a wrong argument, which would be as wrong on several devices.
    """
    check_ddp_arguments(settings.strategy)
    if settings.world_size == 1:
        if settings.strategy:
            instantiate("strategy", settings.strategy, Strategy)
        return "auto"
    node = settings.strategy or {"_target_": "lightning.pytorch.strategies.DDPStrategy"}
    if settings.is_sharded:
        return instantiate("strategy", node, FSDPStrategy)
    # The gradients lie in the memory that is exchanged, not beside it.
    return instantiate("strategy", node, DDPStrategy, gradient_as_bucket_view=True)


def check_ddp_arguments(node: dict[str, Any]) -> None:
    """Lightning takes any argument for DDP, and torch refuses it once all ranks have begun.

    Raises:
        ConfigError: for one that neither of them knows.
    """
    if not node or resolve_target("strategy", node["_target_"], Strategy) is not DDPStrategy:
        return
    known = {*signature(DDPStrategy).parameters, *signature(DistributedDataParallel).parameters}
    known -= {"kwargs", "module", "device_ids", "output_device"}  # Lightning's to give
    if unknown := sorted(node.keys() - known - {"_target_"}):
        see = f"see the arguments of {node['_target_']}"
        raise ConfigError(*(f"strategy: there is no argument {one!r}; {see}" for one in unknown))


def build_callbacks(settings: TrainConfig, folder: Path, rank: int = 0) -> list[Callback]:
    """The callbacks of the settings; ours, which write and show, on the first rank only.

    Lightning's may stop a training, which all ranks must do alike.
    """
    files = {"samples": "samples.md", "curves": "curves.png", "attention": "attention"}
    built = []
    for name, node in settings.callbacks.items():
        if node is not None:
            if rank > 0 and node["_target_"].startswith("gpt2lab."):
                continue
            defaults = {"path": str(folder / files[name])} if name in files else {}
            callback = instantiate(f"callbacks.{name}", node, Callback, **defaults)
            monitor = getattr(callback, "monitor", None)
            if monitor is not None and monitor not in HIGHER_IS_BETTER:
                raise ConfigError(
                    f"callbacks.{name}.monitor: there is no metric {monitor}; "
                    f"choose one of {', '.join(HIGHER_IS_BETTER)}"
                )
            built.append(callback)
    return built


def build_loggers(settings: TrainConfig, folder: Path, run_id: str) -> list[Logger]:
    """The loggers of the settings, each so wrapped that its failure is a warning."""
    known: dict[str, dict[str, Any]] = {
        "lightning.pytorch.loggers.TensorBoardLogger": {"save_dir": str(folder)},
        "gpt2lab.wandb_logger.WandbLogger": {
            "save_dir": str(folder),
            "name": folder.name,
            "id": run_id,
            "resume": "allow",
        },
    }
    loggers: list[Logger] = []
    for name, node in settings.logger.items():
        if node is not None:
            defaults = known.get(node["_target_"], {})
            key = f"logger.{name}"
            resolve_target(key, node["_target_"], Logger)
            loggers.append(Guarded(key, partial(instantiate, key, node, Logger, **defaults)))
    return loggers


def instantiate(key: str, node: dict[str, Any], kind: type, **arguments: Any) -> Any:
    """An object of the class that a `_target_` names, which must be of the kind its node calls for.

    Raises:
        ConfigError: for any other class, function or argument.
    """
    cls = resolve_target(key, node["_target_"], kind)
    given = {name: value for name, value in node.items() if name != "_target_"}
    try:
        return cls(**{**arguments, **given})
    except TypeError as error:
        raise ConfigError(f"{key}: {error}; see the arguments of {node['_target_']}") from error
    except Exception as error:
        if kind is Logger:
            raise
        what = " ".join(str(error).split())
        raise ConfigError(f"{key}: {what}; see the arguments of {node['_target_']}") from error


def resolve_target(key: str, target: str, kind: type) -> type:
    """The class of that path: a subclass of `kind` that lightning or gpt2lab itself defines."""
    module, _, name = target.rpartition(".")
    try:
        # Importing runs a module's code, so nothing of anyone else's is imported even to be judged.
        of_ours = target.split(".")[0] in HOMES
        found = getattr(importlib.import_module(module), name) if of_ours else None
    except (ImportError, AttributeError, ValueError):
        found = None
    home = getattr(found, "__module__", "").split(".")[0]
    if not isinstance(found, type) or not issubclass(found, kind) or home not in HOMES:
        raise ConfigError(
            f"{key}._target_: {target} is not allowed; "
            f"name a {kind.__name__} class of lightning or gpt2lab, by its full path"
        )
    return found
