"""Where a run goes on: its folder, its checkpoint, and whether the two fit what is asked for."""

from pathlib import Path
from typing import Any

from gpt2lab import run_folder
from gpt2lab.checkpoint import check_fits, find_checkpoint, load_checkpoint
from gpt2lab.config import TrainConfig
from gpt2lab.data.module import StepDataModule
from gpt2lab.errors import CheckpointError, ConfigError, DataError
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.tokenizer import from_plain


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


def resumed_step(checkpoint: Path, module: GPT2LightningModule, data: StepDataModule) -> int:
    """The step that a checkpoint is at.

    Raises:
        CheckpointError, ConfigError, DataError: if this module, its settings and this data cannot
            go on from there.
    """
    content = load_checkpoint(checkpoint)
    check_fits(module, content["state_dict"], checkpoint)
    settings, stored = module.settings, content["settings"].get("optim") or {}
    if settings.optim.kind != stored.get("kind"):
        raise ConfigError(
            f"optim: {settings.optim.kind} cannot go on from the state of {stored.get('kind')}; "
            "leave optim out, or start a new run"
        )
    found = data.fingerprint()
    if found not in (content.get("data"), settings.data.fingerprint):
        raise DataError(
            f"{checkpoint}: was trained on {content.get('data')}, the data now is {found}; "
            f"bring the old data back, or go on with data.fingerprint={found}"
        )
    step: int = content["global_step"]
    if step >= settings.max_steps:
        raise ConfigError(
            f"max_steps: {settings.max_steps} are done, {checkpoint} is at step {step}; "
            "choose more steps to go on"
        )
    return step


def saved_settings(settings: TrainConfig) -> dict[str, Any] | None:
    """The settings stored in the checkpoint that `resume` asks for; None for a fresh start."""
    _, checkpoint = place(settings)
    return None if checkpoint is None else load_checkpoint(checkpoint)["settings"]


def check_tokenizer(checkpoint: Path, stored: dict[str, Any] | None, data: StepDataModule) -> None:
    """
    Raises:
        DataError: if the checkpoint's ids stand for other text than the data's.
    """
    names = [t and t.fingerprint for t in (stored and from_plain(stored), data.tokenizer)]
    if names[0] != names[1]:
        raise DataError(
            f"{checkpoint}: its tokenizer is {names[0]}, the data's is {names[1]}; "
            "give the data that it was trained on"
        )
