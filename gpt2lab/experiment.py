"""From settings to a finished run folder: where it is, who trains, and the parts of a training."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import seed_everything

from gpt2lab import launch, run_folder
from gpt2lab.backends import choose_products
from gpt2lab.checkpoint import clean
from gpt2lab.config import (
    PairsConfig,
    Precision,
    SortConfig,
    TextConfig,
    TrainConfig,
    parse,
    plain,
)
from gpt2lab.config.check.train import AUTO
from gpt2lab.config.compose import settings_from
from gpt2lab.data.module import StepDataModule
from gpt2lab.data.pairs import PairsDataModule
from gpt2lab.data.prepare import Needs, prepare
from gpt2lab.data.sort import SortDataModule
from gpt2lab.data.text import TextDataModule
from gpt2lab.data.tokens import open_corpus
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.heap import freed_memory_is_kept
from gpt2lab.init_from import Source, check_shape, source_of, vocabulary_of
from gpt2lab.launch import joined
from gpt2lab.launch.restarts import with_restarts
from gpt2lab.launch.started import started, with_devices
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.lock import lock
from gpt2lab.model import GPT2
from gpt2lab.precision import chosen_precision, device_type, has_bf16
from gpt2lab.resume import (
    Origin,
    Restart,
    changed_settings,
    check_tokenizer,
    finished,
    place,
    resumed_step,
    saved_settings,
)
from gpt2lab.targets import build_strategy
from gpt2lab.tokenizer import Tokenizer, check_vocabulary
from gpt2lab.training import Result, Training
from gpt2lab.weights.initial import same_rows, take_weights


def fit(settings: TrainConfig | Sequence[str], printable: dict[str, Any] | None = None) -> Result:
    """Train by these settings, or by overrides such as ["model=nano", "data=sort"].

    Called on each of the ranks that torchrun or SLURM has started, it trains as one of them.

    Args:
        printable: the settings as they may be stored, without secrets; if None, and no overrides
            are given, the settings as they are.
    Raises:
        ConfigError, DataError, CheckpointError: before the first step, with nothing written.
        RunError: for a fault after that.
    """
    if isinstance(settings, str):
        raise ConfigError(f"fit: {settings!r} is one text; give a list of overrides")
    if not isinstance(settings, TrainConfig):
        composed = settings_from("train", with_devices(settings), saved=saved_settings)
        settings, printable = composed.settings, composed.printable
    settings = parse(plain(settings))  # those made in Python are not checked yet
    printable = printable or plain(settings)
    launch.check_devices(settings)
    for doubt in doubts(settings):
        warnings.warn(doubt, stacklevel=2)
    if (member := joined.member()) is None:
        return in_folder(settings, printable, None)
    with member:
        member.agree(plain(settings))
        if member.is_first:
            return in_folder(settings, printable, member)
        place_of_run, resumed, is_over = member.hear()
        folder, checkpoint = Path(place_of_run), resumed and Path(resumed)
        if is_over:
            return Result(folder, {})
        source = None if checkpoint else source_of(settings)
        return train(settings, printable, folder, checkpoint, source, rank=member.place.rank)


def doubts(settings: TrainConfig) -> Iterator[str]:
    """What can be done, and is hardly what was meant."""
    if settings.max_restarts and (settings.world_size == 1 or started()):
        whose = "one device" if settings.world_size == 1 else "ranks that others have started"
        yield f"max_restarts: is without effect on {whose}; start the run again with resume=auto"
    device = device_type(settings.trainer.get("accelerator"))
    if device == "cpu" and settings.precision is Precision.bf16 and not has_bf16(device):
        yield (
            "precision: bf16 takes two to three times as long as fp32 on this processor, which has "
            "no products in it; choose precision=auto"
        )


def fit_and_show(settings: TrainConfig, printable: dict[str, Any]) -> int:
    """The exit code of a command that trains; the run folder's path is the last line of stdout."""
    result = fit(settings, printable)
    print(result.folder, flush=True)
    return 128 + result.signal if result.signal else 0


def in_folder(
    settings: TrainConfig, printable: dict[str, Any], member: joined.Member | None
) -> Result:
    """Find or make the run's folder, lock it, and train: here, or on ranks that are started here.

    Args:
        member: the first of the ranks that others have started, if there are any.
    """

    def begin(checkpoint: Path | None, restart: Restart | None) -> Result:
        everything = settings, printable, folder, checkpoint, source, restart
        if member is not None:
            member.tell([str(folder), checkpoint and str(checkpoint), False])
        elif settings.world_size > 1:
            return launch.on_ranks(settings.devices, train, *everything)
        return train(*everything)

    build_strategy(settings)  # what is wrong with its arguments comes before a folder is there
    folder = run_folder.folder_of(settings)
    # Asked once: a run that another process begins from here on is refused by its lock.
    is_there = run_folder.is_run(folder)
    with ExitStack() as held:
        if settings.resume is not None and is_there:
            held.enter_context(lock(folder))  # before anything in it is read
        checkpoint = place(settings, folder)
        source = None if checkpoint else source_of(settings)
        if not is_there:
            held.enter_context(run_folder.made(folder))
        elif checkpoint and settings.resume == "auto" and (key := finished(checkpoint, settings)):
            clean(folder / "checkpoints")
            if member is not None:
                member.tell([str(folder), str(checkpoint), True])
            print(f"{checkpoint}: has reached {key}={getattr(settings, key)}; nothing is left")
            return Result(folder, run_folder.read_json(folder / run_folder.SUMMARY))
        return with_restarts(begin, folder, checkpoint, settings.max_restarts)


def train(
    settings: TrainConfig,
    printable: dict[str, Any],
    folder: Path,
    checkpoint: Path | None,
    source: Source | None,
    restart: Restart | None = None,
    rank: int = 0,
) -> Result:
    """Train in a folder that is locked, in this process: alone, or as one of several ranks.

    Args:
        checkpoint: what the run goes on from; None for a fresh start.
        source: the weights that a fresh start begins with; None for random ones.
        restart: the loss of a rank after which this begins, if any.
    """
    changed = {} if checkpoint is None else changed_settings(checkpoint, settings, printable)
    precision = choose_precision(settings)
    choose_products(precision)
    quiet()
    seed_everything(settings.seed % 2**32, verbose=False)
    data = build_data(settings)
    if checkpoint is not None:
        check_tokenizer(checkpoint, settings, data)
    weights = None if source is None else source.read(settings.allow_nonfinite)
    settings = with_vocabulary(settings, data, weights)
    printable = printable | {"model": plain(settings.model)}
    module = GPT2LightningModule(settings)
    if weights is not None:
        rows = same_rows(weights, vocabulary(data), module.model.vocab_size)
        take_weights(module.model, weights, rows)
        del weights
    step = 0 if checkpoint is None else resumed_step(checkpoint, module, data)
    begun_with = source.facts() if source is not None and rank == 0 else None
    origin = Origin(checkpoint, step, changed, begun_with, restart)
    training = Training(
        settings,
        printable,
        folder=folder,
        origin=origin,
        precision=precision,
        module=module,
        data=data,
        rank=rank,
    )
    with freed_memory_is_kept():
        return training.run()


def build_data(settings: TrainConfig) -> StepDataModule:
    """The datamodule of the settings; a corpus that is not prepared yet is.

    Raises:
        DataError: if there is no such data, or it is not what the settings say it must be.
    """
    config = settings.data
    order = {"seed": settings.seed, "batch_size": settings.batch_size}
    data: StepDataModule
    if isinstance(config, TextConfig):
        corpus = open_corpus(prepare(config, Path(settings.data_dir), Needs.of(settings)))
        data = TextDataModule(config, corpus, block_size=settings.model.block_size, **order)
    elif isinstance(config, PairsConfig):
        data = PairsDataModule(config, **order)
    else:
        assert isinstance(config, SortConfig)
        data = SortDataModule(config, **order)
    if config.fingerprint not in (None, data.fingerprint()):
        raise DataError(
            f"data.fingerprint: the data is {data.fingerprint()}, not {config.fingerprint}; "
            "bring the right data, or leave data.fingerprint out"
        )
    return data


def with_vocabulary(
    settings: TrainConfig, data: StepDataModule, weights: GPT2 | None = None
) -> TrainConfig:
    """The settings with as many token ids as the data's tokenizer has, unless they name more.

    Args:
        weights: what the model begins with.
    Raises:
        ConfigError: if they name fewer, or the weights are of another shape.
        DataError: if the weights are of another tokenizer.
    """
    if data.tokenizer is not None:
        check_vocabulary(data.tokenizer, settings.model.vocab_size)
    if weights is not None:
        check_shape(settings, weights.config)
        vocab_size = vocabulary_of(settings, vocabulary(data), weights)
    elif data.tokenizer is not None:
        vocab_size = settings.model.vocab_size or data.tokenizer.vocab_size
    else:
        return settings
    return replace(settings, model=replace(settings.model, vocab_size=vocab_size))


def vocabulary(data: StepDataModule) -> Tokenizer:
    """What the ids of data stand for, where they are what they are too."""
    tokenizer = data.digits if isinstance(data, SortDataModule) else data.tokenizer
    assert tokenizer is not None
    return tokenizer


def choose_precision(settings: TrainConfig) -> Precision:
    """What `auto` stands for on this machine.

    Raises:
        ConfigError: if this machine cannot do what is asked for.
    """
    device = device_type(settings.trainer.get("accelerator"))
    if settings.micro_batch_size == AUTO and device != "cuda":
        raise ConfigError(
            "micro_batch_size: auto tries what fits into the memory of an NVIDIA GPU, "
            f"this is {device}; give a number, or null"
        )
    return chosen_precision(settings.precision, device, settings.model.n_embd)


def quiet() -> None:
    """Lightning's remarks on its own workings; what concerns a user, we say."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a library's log that meets a full disk: no traceback
    for message in (
        ".*does not have many workers.*",  # making a batch here costs less than sending it
        ".*LeafSpec.*",
        ".*GPU available but not used.*",
        ".*recommended to use.*sync_dist.*",  # what we log is the same on all ranks by then
        ".*overridden `transfer_batch_to_device`.*",  # on purpose: the module knows Batch
    ):
        warnings.filterwarnings("ignore", message)
