"""Where a run goes on: its folder, its checkpoint, and whether the two fit what is asked for."""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2lab import run_folder
from gpt2lab.checkpoint import check_fits, find_checkpoint, load_facts, load_shapes
from gpt2lab.config import TrainConfig
from gpt2lab.config.changes import changes, model_problems, shown
from gpt2lab.config.check.train import RESUME
from gpt2lab.data.module import StepDataModule
from gpt2lab.durable import check_writable
from gpt2lab.errors import CheckpointError, ConfigError, DataError
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.lock import check_unlocked
from gpt2lab.tokenizer import from_plain

log = logging.getLogger("gpt2lab")


@dataclass
class Restart:
    """All ranks started again by their parent, after one was lost."""

    reason: str
    """Which rank was lost, and how."""
    minutes: float
    """Those of max_minutes that are gone."""


@dataclass
class Origin:
    """Where a training begins."""

    checkpoint: Path | None = None
    """What it goes on from; None for a fresh start."""
    step: int = 0
    changed: dict[str, list[Any]] = field(default_factory=dict)
    """Old and new value of each setting that is not what it was in the checkpoint."""
    weights: dict[str, Any] | None = None
    """What a fresh start has its weights from, as the receipt says it; None for random ones."""
    restart: Restart | None = None
    """The loss that it goes on after; None for what a user has started."""


def place(settings: TrainConfig, folder: Path) -> Path | None:
    """The checkpoint that a run goes on from, verified; None for a fresh start.

    Args:
        folder: the run's, as run_folder.folder_of gives it.
    Raises:
        ConfigError: if the folder is taken, or cannot be made.
        CheckpointError: if there is nothing to resume.
    """
    check_writable(Path(settings.runs_dir), "runs_dir")
    if settings.resume not in (None, *RESUME):
        checkpoint = Path(str(settings.resume)).absolute()
        load_facts(checkpoint, settings.allow_nonfinite)
        if checkpoint.parent.name != "checkpoints" or not (folder / "receipt.json").exists():
            raise CheckpointError(
                f"{checkpoint}: is not in a run's checkpoints/; a run goes on in its own folder"
            )
        if settings.name not in (None, folder.name):
            raise ConfigError(
                f"name: {settings.name} is not the run of {checkpoint}; leave name out"
            )
        return checkpoint
    if settings.resume is not None:
        found = find_checkpoint(folder, "best" if settings.resume == "best" else "last")
        if found is not None:
            load_facts(found, settings.allow_nonfinite)
            return found
        if settings.resume != "auto":
            raise CheckpointError(
                f"{folder}: has no {settings.resume} checkpoint to resume; "
                "check name= and runs_dir=, or start afresh with resume=auto"
            )
    if not (settings.resume == "auto" and run_folder.is_run(folder)):
        # a run that was killed before its first checkpoint starts afresh in its folder
        run_folder.check_free(folder)
    return None


def saved_settings(settings: TrainConfig) -> dict[str, Any] | None:
    """The settings stored in the checkpoint that `resume` asks for; None for a fresh start."""
    folder = run_folder.folder_of(settings)
    check_unlocked(folder)
    checkpoint = place(settings, folder)
    if checkpoint is None:
        return None
    return load_facts(checkpoint, settings.allow_nonfinite)["settings"]


def finished(checkpoint: Path, settings: TrainConfig) -> str | None:
    """The setting that a run has ended by, max_steps or stop_at; None while anything is left.

    That may be no step, but an evaluation that a signal has cut off, or the summary alone.
    """
    step = load_facts(checkpoint, settings.allow_nonfinite)["global_step"]
    run = checkpoint.parent.parent
    summary = run_folder.read_json(run / run_folder.SUMMARY)
    is_told = run_folder.is_finished(run) and summary.get("steps") == step
    if step > settings.max_steps or (is_told and step == settings.max_steps):
        return "max_steps"
    if is_told and summary.get("stop_reason") == f"stop_at={settings.stop_at}":
        return "stop_at"
    return None


def changed_settings(
    checkpoint: Path, settings: TrainConfig, printable: dict[str, Any]
) -> dict[str, list[Any]]:
    """Old and new value of each setting that differs from the checkpoint's.

    Raises:
        ConfigError: if one of them makes another model of it, or another optimizer.
    """
    stored = load_facts(checkpoint, settings.allow_nonfinite)["settings"]
    changed = changes(stored, printable)
    problems = model_problems(changed)
    if "optim.kind" in changed:
        old, new = changed["optim.kind"]
        problems.append(
            f"optim: {new} cannot go on from the state of {old}; "
            "leave optim out, or start a new run"
        )
    elif None in (widths := changed.get("optim.base_width", ())):
        old, new = map(shown, widths)
        problems.append(
            f"optim.base_width: {old} in the checkpoint, {new} now, and the state is laid out for "
            "one of them; leave it out, or start a new run"
        )
    if settings.init_from != stored.get("init_from"):
        old, new = shown(stored.get("init_from")), shown(settings.init_from)
        problems.append(
            f"init_from: {old} in the checkpoint, {new} now, and a run has begun but once; "
            "leave it out, or start a new run"
        )
    if problems:
        raise ConfigError(*problems)
    return changed


def show_changes(changed: dict[str, list[Any]]) -> None:
    """On stderr and in the log, one line for each setting that is not what it was."""
    for key, (old, new) in changed.items():
        line = f"{key}: {shown(old)} -> {shown(new)}"
        print(line, file=sys.stderr)
        log.info(line)


def resumed_step(checkpoint: Path, module: GPT2LightningModule, data: StepDataModule) -> int:
    """The step that a checkpoint is at.

    Raises:
        CheckpointError, ConfigError, DataError: if this module, its settings and this data cannot
            go on from there.
    """
    settings = module.settings
    content = load_facts(checkpoint, settings.allow_nonfinite)
    check_fits(module, load_shapes(checkpoint), checkpoint)
    found = data.fingerprint()
    if found not in (content.get("data"), settings.data.fingerprint):
        raise DataError(
            f"{checkpoint}: was trained on {content.get('data')}, the data now is {found}; "
            f"bring the old data back, or go on with data.fingerprint={found}"
        )
    step: int = content["global_step"]
    if (key := finished(checkpoint, settings)) is not None:
        mend = "choose more steps" if key == "max_steps" else "choose another target, or null,"
        raise ConfigError(
            f"{key}: {getattr(settings, key)} is reached, {checkpoint} is at step {step}; "
            f"{mend} to go on"
        )
    return step


def check_tokenizer(checkpoint: Path, settings: TrainConfig, data: StepDataModule) -> None:
    """
    Raises:
        DataError: if the checkpoint's ids stand for other text than the data's.
    """
    stored = load_facts(checkpoint, settings.allow_nonfinite).get("tokenizer")
    names = [t and t.fingerprint for t in (stored and from_plain(stored), data.tokenizer)]
    if names[0] != names[1]:
        raise DataError(
            f"{checkpoint}: its tokenizer is {names[0]}, the data's is {names[1]}; "
            "give the data that it was trained on"
        )
