"""One training from settings to a finished run folder."""

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.loggers.logger import Logger
from rich.console import Console
from rich.table import Table

from gpt2lab import run_folder
from gpt2lab.callbacks import Profile, Stop, Throughput, answers
from gpt2lab.checkpoint import (
    AtomicCheckpointIO,
    Checkpoints,
    check_fits,
    find_checkpoint,
    load_checkpoint,
)
from gpt2lab.config import (
    HIGHER_IS_BETTER,
    Precision,
    SortConfig,
    TrainConfig,
    parse,
    parse_stop_at,
    plain,
)
from gpt2lab.config.compose import settings_from
from gpt2lab.data.sort import SortDataModule
from gpt2lab.errors import CheckpointError, ConfigError
from gpt2lab.lightning_module import VAL_METRICS, GPT2LightningModule
from gpt2lab.loggers import CSVLogger, Guarded, read_metrics

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
    if not isinstance(settings, TrainConfig):
        composed = settings_from("train", settings, saved=saved_settings)
        settings, printable = composed.settings, composed.printable
    settings = parse(plain(settings))
    printable = printable or plain(settings)

    folder, checkpoint = place(settings)
    quiet()
    seed_everything(settings.seed % 2**32, verbose=False)
    module = GPT2LightningModule(settings)
    data = build_data(settings)
    step = 0
    if checkpoint is not None:
        content = load_checkpoint(checkpoint)
        check_fits(module, content["state_dict"], checkpoint)
        kind = content["settings"]["optim"]["kind"]
        if settings.optim.kind != kind:
            raise ConfigError(
                f"optim: {settings.optim.kind} cannot go on from the state of {kind}; "
                "leave optim out, or start a new run"
            )
        step = content["global_step"]
        if step >= settings.max_steps:
            raise ConfigError(
                f"max_steps: {settings.max_steps} are done, {checkpoint} is at step {step}; "
                "choose more steps to go on"
            )
    precision = choose_precision(settings)
    stop = Stop(
        max_steps=settings.max_steps, max_minutes=settings.max_minutes, stop_at=settings.stop_at
    )
    throughput = Throughput(data.tokens_per_step)
    checkpoints = Checkpoints(
        folder / "checkpoints",
        every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        monitor=parse_stop_at(settings.stop_at)[0] if settings.stop_at else "val/loss",
        settings=printable,
    )
    facts = run_folder.read_json(folder / "receipt.json") if checkpoint else None
    if facts:
        facts.setdefault("resumed", []).append(run_folder.resumption(step))
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

    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_config(folder, printable)
    run_folder.write_json(folder / "receipt.json", facts)
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
        run_folder.write_json(folder / "summary.json", summary)
        log.info("stopped at step %d: %s", summary["steps"], summary["stop_reason"])
    show_answers(answers(module, data, 8), summary)
    return Result(folder, summary, stop.signal)


def place(settings: TrainConfig) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint that it goes on from.

    Raises:
        ConfigError: if the folder is taken, or cannot be made.
        CheckpointError: if there is nothing to resume.
    """
    runs_dir = Path(settings.runs_dir)
    run_folder.check_writable(runs_dir)
    if settings.resume not in (None, "last", "best", "auto"):
        checkpoint = Path(str(settings.resume)).absolute()
        load_checkpoint(checkpoint)
        folder = checkpoint.parent.parent
        if checkpoint.parent.name != "checkpoints" or not (folder / "receipt.json").exists():
            raise CheckpointError(
                f"{checkpoint}: is not in a run's checkpoints/; a run goes on in its own folder"
            )
        if settings.name not in (None, folder.name):
            raise ConfigError(
                f"name: {settings.name} is not the run of {checkpoint}; leave name out"
            )
        return folder, checkpoint
    folder = runs_dir / (settings.name or run_folder.new_name())
    if settings.resume is not None:
        found = find_checkpoint(folder, "best" if settings.resume == "best" else "last")
        if found is not None:
            load_checkpoint(found)
            return folder, found
        if settings.resume != "auto":
            raise CheckpointError(
                f"{folder}: has no {settings.resume} checkpoint to resume; "
                "check name= and runs_dir=, or leave resume out"
            )
    if not (settings.resume == "auto" and (folder / "receipt.json").exists()):
        # a run that was killed before its first checkpoint starts afresh in its folder
        run_folder.check_free(folder)
    return folder, None


def saved_settings(settings: TrainConfig) -> dict[str, Any] | None:
    """The settings stored in the checkpoint that `resume` asks for; None for a fresh start."""
    _, checkpoint = place(settings)
    return None if checkpoint is None else load_checkpoint(checkpoint)["settings"]


def build_data(settings: TrainConfig) -> SortDataModule:
    assert isinstance(settings.data, SortConfig)
    return SortDataModule(settings.data, seed=settings.seed, batch_size=settings.batch_size)


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


def build_trainer(
    settings: TrainConfig,
    precision: Precision,
    callbacks: list[Callback],
    loggers: list[Logger],
) -> Trainer:
    return instantiate(
        "trainer",
        settings.trainer,
        Trainer,
        devices=1,
        precision={Precision.bf16: "bf16-mixed", Precision.fp32: "32-true"}[precision],
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=settings.eval_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def build_callbacks(settings: TrainConfig, folder: Path) -> list[Callback]:
    files = {"samples": "samples.md", "curves": "curves.png"}
    built = []
    for name, node in settings.callbacks.items():
        if node is not None:
            defaults = {"path": str(folder / files[name])} if name in files else {}
            built.append(instantiate(f"callbacks.{name}", node, Callback, **defaults))
    return built


def build_loggers(settings: TrainConfig, folder: Path, run_id: str) -> list[Logger]:
    """The loggers of the settings, each so wrapped that its failure is a warning."""
    known = {
        "lightning.pytorch.loggers.TensorBoardLogger": {"save_dir": str(folder)},
        "lightning.pytorch.loggers.WandbLogger": {
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
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        found = None
    home = getattr(found, "__module__", "").split(".")[0]
    if (
        not isinstance(found, type)
        or not issubclass(found, kind)
        or home not in ("lightning", "gpt2lab")
    ):
        raise ConfigError(
            f"{key}._target_: {target} is not allowed; "
            f"name a {kind.__name__} class of lightning or gpt2lab, by its full path"
        )
    return found


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


def summarize(
    metrics: Path, trainer: Trainer, throughput: Throughput, stop: Stop
) -> dict[str, Any]:
    """The content of summary.json."""
    rows = read_metrics(metrics)
    last: dict[str, float] = {}
    best: dict[str, float] = {}
    for row in rows:
        for name, text in row.items():
            if name == "step" or not text:
                continue
            last[name] = float(text)
            if name in VAL_METRICS:
                choose = max if HIGHER_IS_BETTER[name] else min
                best[name] = choose(best.get(name, last[name]), last[name])
    steps = trainer.global_step
    return {
        "last": last,
        "best": best,
        "steps": steps,
        "tokens": steps * throughput.tokens_per_step,
        "seconds": round(throughput.seconds, 3),
        "tokens_per_second": round(throughput.tokens_per_second, 1),
        "peak_memory_bytes": run_folder.peak_memory_bytes(),
        "stop_reason": stop.reason or "a callback",
    }


def show_answers(rows: list[tuple[str, str, str]], summary: dict[str, Any]) -> None:
    """The table at the end: input, GPT-2's answer, right answer."""
    table = Table("input", "GPT-2's answer", "right answer", "")
    for given, answer, right in rows:
        table.add_row(given, answer, right, "yes" if answer == right else "no")
    console = Console()
    console.print(table)
    metrics = "  ".join(
        f"{name} {summary['last'][name]:.4f}" for name in VAL_METRICS if name in summary["last"]
    )
    console.print(f"{metrics}\n{summary['steps']} steps, {summary['seconds']:.1f} s of training")
    console.print(f"stopped by {summary['stop_reason']}")
