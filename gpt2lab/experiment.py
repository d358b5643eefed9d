"""One training from settings to a finished run folder."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything

from gpt2lab import run_folder
from gpt2lab.callbacks import Profile, Stop, Throughput
from gpt2lab.checkpoint import Checkpoints, load_checkpoint
from gpt2lab.config import (
    PairsConfig,
    Precision,
    SortConfig,
    TextConfig,
    TrainConfig,
    parse,
    parse_stop_at,
    plain,
)
from gpt2lab.config.compose import settings_from
from gpt2lab.data.module import StepDataModule
from gpt2lab.data.pairs import PairsDataModule
from gpt2lab.data.prepare import Needs, prepare
from gpt2lab.data.sort import SortDataModule
from gpt2lab.data.text import TextDataModule
from gpt2lab.data.tokens import open_corpus
from gpt2lab.durable import write_json
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.loggers import CSVLogger, Guarded
from gpt2lab.report import show, summarize
from gpt2lab.resume import check_tokenizer, place, resumed_step, saved_settings
from gpt2lab.targets import build_callbacks, build_loggers, build_trainer
from gpt2lab.tokenizer import check_vocabulary

log = logging.getLogger("gpt2lab")


@dataclass
class Result:
    """What a training leaves: its folder and the content of summary.json."""

    folder: Path
    summary: dict[str, Any]
    signal: int | None = None
    """The signal that ended it, if one did."""


def fit(settings: TrainConfig | Sequence[str], printable: dict[str, Any] | None = None) -> Result:
    """Train by these settings, or by overrides such as ["model=nano", "data=sort"].

    Args:
        printable: the settings as they may be stored, without secrets; made from `settings` if
            None.
    Raises:
        ConfigError, DataError, CheckpointError: before the first step, with nothing written.
    """
    if isinstance(settings, str):
        raise ConfigError(f"fit: {settings!r} is one text; give a list of overrides")
    if not isinstance(settings, TrainConfig):
        composed = settings_from("train", settings, saved=saved_settings)
        settings, printable = composed.settings, composed.printable
    settings = parse(plain(settings))
    printable = printable or plain(settings)

    folder, checkpoint = place(settings)
    precision = choose_precision(settings)
    quiet()
    seed_everything(settings.seed % 2**32, verbose=False)
    data = build_data(settings)
    if checkpoint is not None:
        check_tokenizer(checkpoint, load_checkpoint(checkpoint).get("tokenizer"), data)
    settings = with_vocabulary(settings, data)
    printable |= {"model": plain(settings.model)}
    module = GPT2LightningModule(settings)
    step = 0 if checkpoint is None else resumed_step(checkpoint, module, data)
    stop = Stop(
        max_steps=settings.max_steps, max_minutes=settings.max_minutes, stop_at=settings.stop_at
    )
    throughput = Throughput(data.tokens_per_step)
    checkpoints = Checkpoints(
        folder / "checkpoints",
        every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        monitor=parse_stop_at(settings.stop_at)[0] if settings.stop_at else "val/loss",
        content={
            "settings": printable,
            "data": data.fingerprint(),
            "tokenizer": data.tokenizer.plain() if data.tokenizer else None,
        },
    )
    facts = run_folder.read_json(folder / "receipt.json") if checkpoint else None
    if facts:
        leg = run_folder.resumption(step, data=data.fingerprint(), precision=precision.name)
        facts.setdefault("resumed", []).append(leg)
    facts = facts or run_folder.receipt(
        seed=settings.seed,
        data=data.fingerprint(),
        precision=precision.name,
        world_size=1,
        parameters=module.model.num_parameters(),
    )
    metrics_file = folder / "metrics.csv"
    trainer = build_trainer(
        settings,
        precision,
        callbacks=[
            stop,
            throughput,
            *build_callbacks(settings, folder),
            *([Profile(folder / "profile")] if settings.profile else []),
            checkpoints,
        ],
        loggers=[
            Guarded("metrics.csv", partial(CSVLogger, metrics_file)),
            *build_loggers(settings, folder, facts["id"]),
        ],
    )

    run_folder.make(folder)
    run_folder.write_config(folder, printable)
    write_json(folder / "receipt.json", facts)
    if checkpoint is not None:
        CSVLogger(metrics_file).resume_at(step)
    with log_file(folder / "train.log"):
        for logger in trainer.loggers:
            logger.log_hyperparams(printable)
        log.info("training %s parameters in %s", f"{facts['parameters']:,}", folder)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as error:  # Lightning's answer to a second Ctrl-C
            raise KeyboardInterrupt from error
        summary = summarize(metrics_file, trainer, throughput, stop)
        write_json(folder / "summary.json", summary)
        log.info("stopped at step %d: %s", summary["steps"], summary["stop_reason"])
    show(module, data, summary)
    return Result(folder, summary, stop.signal)


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


def with_vocabulary(settings: TrainConfig, data: StepDataModule) -> TrainConfig:
    """The settings with as many token ids as the data's tokenizer has.

    Raises:
        ConfigError: if they name another number.
    """
    if data.tokenizer is None:
        return settings
    check_vocabulary(data.tokenizer, settings.model.vocab_size)
    model = replace(settings.model, vocab_size=data.tokenizer.vocab_size)
    return replace(settings, model=model)


def choose_precision(settings: TrainConfig) -> Precision:
    """What `auto` stands for on this machine.

    Raises:
        ConfigError: if the device that the trainer asks for is not there.
    """
    accelerator = settings.trainer.get("accelerator", "auto")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda") and not has_gpu:
        raise ConfigError(
            f"trainer.accelerator: {accelerator} was asked for, 0 GPUs were found; use trainer=auto"
        )
    if settings.precision is not Precision.auto:
        return settings.precision
    if accelerator != "cpu" and has_gpu:
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        bf16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return Precision.bf16 if bf16 else Precision.fp32


def quiet() -> None:
    """Lightning's remarks on its own workings; what concerns a user, we say."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # making a batch here costs less than sending it
        ".*LeafSpec.*",
        ".*GPU available but not used.*",
        ".*overridden `transfer_batch_to_device`.*",  # on purpose: the module knows Batch
    ):
        warnings.filterwarnings("ignore", message)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """While open, what we log goes to a file."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
