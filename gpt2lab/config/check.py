"""What must hold between and within settings beyond their types; every problem found at once."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from gpt2lab.config.changes import shown
from gpt2lab.config.settings import (
    CosineConfig,
    DataConfig,
    GPT2Config,
    PairsConfig,
    PairsSource,
    Precision,
    SampleConfig,
    SamplingConfig,
    SortConfig,
    TextConfig,
    TextSource,
    TrainConfig,
)

HIGHER_IS_BETTER = {
    "val/loss": False,
    "val/perplexity": False,
    "val/bits_per_byte": False,
    "val/exact_match": True,
    "val/token_accuracy": True,
}
"""The metrics that a run can be stopped or judged by, in nats per token or as shares of 1.

Running text has bits_per_byte, and questions with answers have exact_match.
"""

HOMES = ("lightning", "gpt2lab")
"""The packages whose classes a `_target_` may name."""

# Bytes: file systems take 255, and a multirun adds the number of the job.
LONGEST_NAME = 200

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
    "num_nodes": None,
    "plugins": None,
    "num_sanity_val_steps": None,
    "overfit_batches": None,
    "use_distributed_sampler": None,
    "reload_dataloaders_every_n_epochs": None,
    "enable_model_summary": None,
    "barebones": None,
}


def owned_argument(argument: str) -> str:
    ours = OWNED_TRAINER_ARGUMENTS[argument]
    mend = f"use {ours}" if ours else "leave it out, gpt2lab sets it"
    return f"trainer.{argument}: is not set there; {mend}"


def range_problems(config: Any, path: str = "") -> Iterator[str]:
    """One line for each number outside its field's range, in the order of the fields."""
    for field in fields(config):
        key, value = f"{path}{field.name}", getattr(config, field.name)
        if is_dataclass(value):
            yield from range_problems(value, f"{key}.")
        elif (
            (bounds := field.metadata.get("range"))
            and value is not None
            and not bounds.holds(value)
        ):
            yield f"{key}: {value} is out of range; choose {str(bounds).replace('value', key)}"


def model_problems(config: GPT2Config) -> Iterator[str]:
    if config.n_head > 0 and config.n_embd % config.n_head:
        yield (
            f"model.n_head: {config.n_head} does not divide model.n_embd={config.n_embd}; "
            "choose a divisor, so that every head has a whole width"
        )


def sort_problems(data: SortConfig, model: GPT2Config) -> Iterator[str]:
    needed = 2 * data.length - 1
    if model.block_size < needed:
        yield (
            f"model.block_size: {model.block_size} tokens are fewer than the {needed} that "
            f"data.length={data.length} needs; leave it out, or give at least {needed}"
        )
    if model.vocab_size is not None and model.vocab_size < data.num_digits:
        yield (
            f"model.vocab_size: {model.vocab_size} is smaller than "
            f"data.num_digits={data.num_digits}; leave it out, or give at least as many"
        )


def text_problems(data: TextConfig) -> Iterator[str]:
    for name in ("path", "url", "dataset", "text_field"):
        if getattr(data, name) == "":
            yield f"data.{name}: is empty; give a value, or leave data.{name} out"
    if data.val_split is not None and data.val_split == data.dataset_split:
        yield (
            f"data.val_split: {data.val_split} is what is trained on; "
            "choose another split, or leave it out for a share"
        )
    if data.source is TextSource.files and data.path is None and data.url is None:
        yield "data.path: is null; give a text file, a folder or a glob"
    if data.source is TextSource.hub and data.dataset is None:
        yield "data.dataset: is null; give the name of a Hugging Face dataset"
    if data.source is not TextSource.hub:
        default = TextConfig()
        for name in ("dataset", "dataset_config", "dataset_split", "val_split", "streaming"):
            if getattr(data, name) != getattr(default, name):
                yield (
                    f"data.{name}: is not read by data.source={data.source.name}; "
                    "leave it out, or add data.source=hub"
                )
    if data.source is not TextSource.files and data.path is not None:
        yield (
            f"data.path: {data.path} is not read by data.source={data.source.name}; "
            "leave it out, or add data.source=files"
        )


def pairs_problems(data: PairsConfig, model: GPT2Config) -> Iterator[str]:
    if data.source is PairsSource.file and data.path is None:
        yield "data.path: is null; give a .jsonl file of pairs"
    if data.source is not PairsSource.file and data.path is not None:
        yield (
            f"data.path: {data.path} is not read by data.source={data.source.name}; "
            "leave it out, or choose data.source=file"
        )
    if model.block_size < data.context:
        yield (
            f"model.block_size: {model.block_size} tokens are fewer than "
            f"data.context={data.context}; leave it out, or give at least as many"
        )


def stop_at_problems(stop_at: str, data: DataConfig) -> Iterator[str]:
    unmeasured = "val/exact_match" if isinstance(data, TextConfig) else "val/bits_per_byte"
    try:
        metric, target = parse_stop_at(stop_at)
    except ValueError:
        metric, target = "", 0.0
    highest = 1.0 if HIGHER_IS_BETTER.get(metric) else float("inf")
    if metric not in HIGHER_IS_BETTER:
        choices = ", ".join(name for name in HIGHER_IS_BETTER if name != unmeasured)
        yield f"stop_at: {stop_at!r} is not <metric>:<number>; the metrics are {choices}"
    elif metric == unmeasured:
        yield f"stop_at: {metric} is not measured on data={data.kind}; choose another metric"
    elif not 0 <= target <= highest or target == float("inf"):
        yield f"stop_at: {target:g} is never reached by {metric}; choose a value that can be"


def parse_stop_at(stop_at: str) -> tuple[str, float]:
    """('val/loss', 1.5) for 'val/loss:1.5'."""
    metric, _, target = stop_at.rpartition(":")
    return metric, float(target)


def step_problems(config: TrainConfig) -> Iterator[str]:
    schedule = config.schedule
    end = config.max_steps
    if isinstance(schedule, CosineConfig) and schedule.decay_steps is not None:
        end = schedule.decay_steps
    if schedule.warmup_steps > end:
        yield (
            f"schedule.warmup_steps: {schedule.warmup_steps} is beyond the end of the schedule at "
            f"step {end}; choose at most {end}"
        )
    micro, devices = config.micro_batch_size, config.devices
    if devices > 0 and config.batch_size % (devices * (micro or 1)):
        on = f"{devices} device{'s' * (devices > 1)}"
        what = f"micro_batch_size: {micro} on {on}" if micro else f"devices: {on}"
        yield (
            f"{what} does not divide batch_size={config.batch_size}; "
            "choose a divisor, so that every micro-batch is whole"
        )
    kept = config.checkpoint_keep_every
    if kept and kept % config.checkpoint_every:
        yield (
            f"checkpoint_keep_every: {kept} is not a multiple of "
            f"checkpoint_every={config.checkpoint_every}; choose one, or leave it out"
        )


def run_problems(config: TrainConfig) -> Iterator[str]:
    if config.name is not None and not is_file_name(config.name):
        shown = config.name if len(config.name) < 80 else f"{config.name[:60]}..."
        yield (
            f"name: {shown!r} cannot be a folder's name; "
            f"use at most {LONGEST_NAME} letters, digits, - _ and ."
        )
    for key in ("runs_dir", "data_dir", "resume"):
        if getattr(config, key) == "":
            yield f"{key}: is empty; give a value, or leave {key} out"
    if config.resume in ("last", "best", "auto") and config.name is None:
        yield f"resume: {config.resume} needs a run to go on with; add name=<folder in runs_dir>"


def is_file_name(name: str) -> bool:
    """Whether a run can be called so: no separators, no '=', which overrides cannot hold."""
    fits = 0 < len(name.encode()) <= LONGEST_NAME
    return fits and name not in (".", "..") and all(c.isalnum() or c in "-_." for c in name)


def target_problems(config: TrainConfig) -> Iterator[str]:
    """Nodes that name what is neither Lightning's nor ours, or arguments that we own.

    This looks at the text alone, so that it comes before any import; `targets.instantiate`
    then checks the class itself.
    """
    nodes = {"trainer": config.trainer}
    if config.strategy:
        nodes["strategy"] = config.strategy
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
    if config.devices > 1 and "Single" in str(config.strategy.get("_target_")):
        yield f"strategy: single is for one device, not devices={config.devices}; use strategy=ddp"
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


def train_problems(config: TrainConfig) -> Iterator[str]:
    yield from model_problems(config.model)
    if isinstance(config.data, SortConfig):
        yield from sort_problems(config.data, config.model)
    if isinstance(config.data, TextConfig):
        yield from text_problems(config.data)
    if isinstance(config.data, PairsConfig):
        yield from pairs_problems(config.data, config.model)
    if config.stop_at is not None:
        yield from stop_at_problems(config.stop_at, config.data)
    yield from step_problems(config)
    yield from run_problems(config)
    yield from target_problems(config)


def checkpoint_problems(checkpoint: str | None) -> Iterator[str]:
    """Of whatever needs one; whether it is there is found out later."""
    if not checkpoint:
        yield (
            f"checkpoint: is {'null' if checkpoint is None else 'empty'}; give a run folder, "
            "a checkpoint file, or a folder in the Hugging Face layout"
        )


def prompt_problems(config: SampleConfig) -> Iterator[str]:
    if config.prompts == "":
        yield "prompts: is empty; name a file, or leave prompts out"
    if config.prompts is not None and config.prompt is not None:
        yield f"prompts: {config.prompts} and prompt= are both given; leave one out"
    try:
        (config.prompt or "").encode()
    except UnicodeEncodeError as error:
        yield f"prompt: character {error.start + 1} is no whole one; give the text as UTF-8"


def output_problems(config: SampleConfig) -> Iterator[str]:
    """Ways of showing text that do not go together."""
    given = {
        name: f"{name}={shown(getattr(config, name))}"
        for name in ("json", "json_lines", "num_samples", "prompts")
        if getattr(config, name) != getattr(SampleConfig, name)
    }
    if config.interactive:
        yield from (
            f"interactive: true asks for each prompt; leave out {o}" for o in given.values()
        )
    elif config.stream:
        yield from (
            f"stream: true shows one text as it comes; leave out {o}" for o in given.values()
        )
    if {"json", "json_lines"} <= given.keys():
        yield "json: true makes one object of what json_lines=true makes lines; leave one out"
    if config.logprobs and not {"json", "json_lines"} & given.keys():
        yield "logprobs: true shows in JSON alone; add json_lines=true or json=true"
    if config.logprobs and config.sampling.num_beams > 1:
        yield "logprobs: true is for one token after another, not for beams; leave one out"


def beam_problems(sampling: SamplingConfig) -> Iterator[str]:
    for name in ("temperature", "top_k", "top_p", "min_p"):
        if sampling.num_beams > 1 and (value := getattr(sampling, name)):
            yield (
                f"sampling.num_beams: {sampling.num_beams} beams draw nothing, which "
                f"sampling.{name}={value} is for; add sampling=greedy, or leave one out"
            )


def sample_problems(config: SampleConfig) -> Iterator[str]:
    yield from checkpoint_problems(config.checkpoint)
    yield from prompt_problems(config)
    yield from output_problems(config)
    yield from beam_problems(config.sampling)
    if config.sampling.num_beams > 1 and config.num_samples > 1:
        yield (
            f"num_samples: {config.num_samples} searches by beams find the same; "
            "leave it out, or leave out sampling.num_beams"
        )
    if config.quantize is not None and config.precision is Precision.fp32:
        yield f"quantize: {config.quantize.name} is not precision=fp32; leave one out"


RULES: dict[type, Callable[[Any], Iterator[str]]] = {
    TrainConfig: train_problems,
    SampleConfig: sample_problems,
}
"""What must hold between the settings of each command line."""


def problems(config: Any) -> list[str]:
    """Everything wrong with settings whose types are right; empty when all is well."""
    return [*range_problems(config), *RULES[type(config)](config)]
