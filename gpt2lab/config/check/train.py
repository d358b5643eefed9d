"""Rules of training."""

from collections.abc import Iterator

from gpt2lab.config.check.metrics import stop_at_problems
from gpt2lab.config.check.targets import target_problems
from gpt2lab.config.settings.data import (
    PairsConfig,
    PairsSource,
    SortConfig,
    TextConfig,
    TextSource,
)
from gpt2lab.config.settings.model import GPT2Config
from gpt2lab.config.settings.optim import CosineConfig
from gpt2lab.config.settings.train import TrainConfig

# Bytes: file systems take 255, and a multirun adds the number of the job.
LONGEST_NAME = 200
RESUME = ("last", "best", "auto")
"""What `resume` may be, if no path."""


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


AUTO = "auto"


def step_problems(config: TrainConfig) -> Iterator[str]:
    schedule = config.schedule
    end = config.max_steps
    if isinstance(schedule, CosineConfig) and schedule.decay_steps is not None:
        end = schedule.decay_steps
    if schedule.warmup_steps > end > 0:
        yield (
            f"schedule.warmup_steps: {schedule.warmup_steps} is beyond the end of the schedule at "
            f"step {end}; choose at most {end}"
        )
    micro, devices = config.micro_batch_size, config.world_size
    if isinstance(micro, str):
        if micro != AUTO:
            yield f"micro_batch_size: {micro!r} is not a whole number; give one, or auto, or null"
        micro = None
    if devices > 0 and config.batch_size % (devices * (micro or 1)):
        on = f"{devices} device{'s' * (devices > 1)}"
        if config.num_nodes > 1:
            on += f" of {config.num_nodes} nodes"
        what = f"micro_batch_size: {micro} on {on}" if micro else f"devices: {on}"
        do = "does" if micro or devices == 1 else "do"
        yield (
            f"{what} {do} not divide batch_size={config.batch_size}; "
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
    for key in ("runs_dir", "data_dir", "resume", "init_from"):
        if getattr(config, key) == "":
            yield f"{key}: is empty; give a value, or leave {key} out"
    if config.resume in RESUME and config.name is None:
        yield f"resume: {config.resume} needs a run to go on with; add name=<folder in runs_dir>"
    if config.init_extend and config.init_from is None:
        yield "init_extend: true adds to the weights of init_from, which is null; leave it out"


def is_file_name(name: str) -> bool:
    """Whether a run can be called so: no separators, no '=', which overrides cannot hold."""
    fits = 0 < len(name.encode()) <= LONGEST_NAME
    return fits and name not in (".", "..") and all(c.isalnum() or c in "-_." for c in name)


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
