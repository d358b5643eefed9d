"""Lightning's own arguments: classes that may be named, and settings that are ours."""

import math
from collections.abc import Iterator
from typing import Any

from gpt2lab.config.settings.train import TrainConfig

HOMES = ("lightning", "gpt2lab")
"""The packages whose classes a `_target_` may name."""

LOG_MODEL = (None, False, "best", "last", "all")
"""Which checkpoints become an artifact; Lightning's True speaks of its own ModelCheckpoint."""

# Lightning's own arguments that would contradict a setting of ours.
OWNED_TRAINER_ARGUMENTS: dict[str, str | None] = {
    "max_steps": "max_steps",
    "max_epochs": "max_steps",
    "min_steps": "max_steps",
    "min_epochs": "max_steps",
    "max_time": "max_minutes",
    "precision": "precision",
    "accumulate_grad_batches": "micro_batch_size",
    "gradient_clip_val": "optim.grad_clip",
    "gradient_clip_algorithm": "optim.grad_clip",
    "val_check_interval": "eval_every",
    "check_val_every_n_epoch": "eval_every",
    "default_root_dir": "runs_dir",
    "logger": "logger",
    "callbacks": "callbacks",
    "profiler": "profile",
    "enable_progress_bar": "callbacks.progress",
    "enable_checkpointing": "checkpoint_every",
    "limit_train_batches": "max_steps",
    "fast_dev_run": "max_steps",
    # set by us alone
    "limit_val_batches": None,
    "devices": "devices",
    "strategy": "strategy",
    "num_nodes": "num_nodes",
    "plugins": None,
    "num_sanity_val_steps": None,
    "overfit_batches": None,
    "use_distributed_sampler": None,
    "reload_dataloaders_every_n_epochs": None,
    "enable_model_summary": None,
    "barebones": None,
}


STRATEGY_SWITCHES = (
    *("reshard_after_forward", "find_unused_parameters", "static_graph", "init_sync"),
    *("gradient_as_bucket_view", "broadcast_buffers", "forward_sync_buffers"),
    *("check_reduction", "skip_all_reduce_unused_params", "batched_grad_copy"),
)
"""Of strategies' arguments, those of which torch would take any text for true."""


def owned_argument(argument: str) -> str:
    ours = OWNED_TRAINER_ARGUMENTS[argument]
    mend = f"use {ours}" if ours else "leave it out, gpt2lab sets it"
    return f"trainer.{argument}: is not set there; {mend}"


def target_problems(config: TrainConfig) -> Iterator[str]:
    """Nodes that name what is neither Lightning's nor ours, or arguments that we own.

    This looks at the text alone, so that it comes before any import; `targets.instantiate`
    then checks the class itself.
    """
    nodes = {"trainer": config.trainer}
    if "_target_" in config.strategy:
        nodes["strategy"] = config.strategy
    elif config.strategy:
        argument = next(iter(config.strategy))
        yield f"strategy.{argument}: no strategy is chosen; add strategy=ddp or strategy=fsdp"
    nodes |= {f"logger.{name}": node for name, node in config.logger.items()}
    nodes |= {f"callbacks.{name}": node for name, node in config.callbacks.items()}
    for key, node in nodes.items():
        if node is None:
            continue
        if not isinstance(node, dict):
            group = key.split(".")[0]
            yield f"{key}: {node!r} is not a mapping with a _target_; see the files in conf/{group}"
            continue
        target = node.get("_target_")
        if not isinstance(target, str) or target.split(".")[0] not in HOMES:
            yield (
                f"{key}._target_: {target} is not allowed; "
                "name a class of lightning or gpt2lab, by its full path"
            )
        for inner, name in special_keys({k: v for k, v in node.items() if k != "_target_"}, key):
            yield f"{inner}: {name} is not allowed here; only the node itself has a _target_"
    for name, node in config.logger.items():
        log_model = node.get("log_model") if isinstance(node, dict) else None
        if log_model not in LOG_MODEL:
            yield f"logger.{name}.log_model: {log_model!r} is no choice; best, last, all, false are"
    ranks = config.world_size
    if ranks > 1 and "Single" in str(config.strategy.get("_target_")):
        yield (f"strategy: single is for one device, not devices={ranks}; use strategy=ddp or fsdp")
    for name in STRATEGY_SWITCHES:
        value = config.strategy.get(name, True)
        is_open = value is None and name != "reshard_after_forward"  # torch's own default, for DDP
        if not isinstance(value, bool) and not is_open:
            yield f"strategy.{name}: {value!r} is not true or false; give one of them"
    bucket = config.strategy.get("bucket_cap_mb")
    is_number = isinstance(bucket, int | float) and not isinstance(bucket, bool)
    if bucket is not None and not (is_number and 0 < bucket < math.inf):
        yield f"strategy.bucket_cap_mb: {bucket!r} is no size in MiB; give a number above 0"
    if config.is_sharded and config.micro_batch_size == "auto":
        yield (
            "micro_batch_size: auto tries what does not fit, on which ranks of strategy=fsdp would "
            "wait for each other; give a number"
        )
    if config.micro_batch_size == "auto" and config.trainer.get("accelerator") == "cpu":
        yield (
            "micro_batch_size: auto tries what fits into the memory of an NVIDIA GPU, "
            "trainer.accelerator is cpu; give a number, or null"
        )
    log_every = config.trainer.get("log_every_n_steps", 1)
    if type(log_every) is not int or log_every < 1:
        yield f"trainer.log_every_n_steps: {log_every!r} is no number of steps; choose 1 or more"
    for argument in sorted(OWNED_TRAINER_ARGUMENTS.keys() & config.trainer.keys()):
        yield owned_argument(argument)


def special_keys(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Hydra's instantiation words (_target_, _args_, ...) anywhere within a node's arguments."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).startswith("_"):
                yield f"{path}.{key}", str(key)
            yield from special_keys(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from special_keys(inner, f"{path}[{i}]")
