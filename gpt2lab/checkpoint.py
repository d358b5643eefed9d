"""Checkpoints: written whole or not at all, found again by step, `last` and `best`."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import CheckpointIO

from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.durable import sync_folder, write_json
from gpt2lab.errors import CheckpointError

MANIFEST = "manifest.json"


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, flushes to disk, renames: a kill leaves the old file or the new."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: plain types and tensors on the CPU; code in it never runs.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; see the folder's other files")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # torch raises half a dozen types for damaged files, and its advice is to load them anyway
        size = path.stat().st_size
        raise CheckpointError(
            f"{path}: {size} bytes that are not a whole checkpoint; take another one"
        ) from error
    kinds = {"state_dict": dict, "settings": dict, "global_step": int, "optimizer_states": list}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in kinds.items()
    ):
        raise CheckpointError(f"{path}: not a checkpoint of gpt2lab; take one from checkpoints/")
    return content


def check_fits(model: LightningModule, state: dict[str, torch.Tensor], path: Path) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: naming the first tensor that differs, with both shapes.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: {name} is {found.get(name, 'missing')} there and "
                f"{wanted.get(name, 'missing')} in the model; take the checkpoint's own settings"
            )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Which files are `last` and `best`; empty when there are none yet."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(manifest, dict):
        return {}
    return {name: entry for name, entry in manifest.items() if isinstance(entry, dict)}


def find_checkpoint(run: Path, which: str) -> Path | None:
    """The `last` or `best` checkpoint of a run folder, if there is one."""
    folder = run / "checkpoints"
    name = read_manifest(folder).get(which, {}).get("file")
    if name is None and which == "last":
        # The manifest is written after the file: between the two, the newest file is right.
        name = max((p.name for p in folder.glob("step-*.ckpt")), default=None)
    return folder / name if name else None


class Checkpoints(Callback):
    """Saves every n steps and at the end, after the step's evaluation; keeps `last` and `best`.

    `best` is the best evaluated one among those saved, by the metric that `monitor` names.

    Args:
        content: what stands in every checkpoint besides Lightning's: the settings, the data's
            fingerprint and tokenizer; plain types only.
    """

    def __init__(
        self, folder: Path, *, every: int, eval_every: int, monitor: str, content: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.every = every
        self.eval_every = eval_every
        self.monitor = monitor
        self.content = content

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint |= self.content

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        due = trainer.global_step % self.every == 0 or trainer.should_stop
        evaluation_follows = trainer.global_step % self.eval_every == 0 or trainer.should_stop
        if due and not (evaluation_follows and trainer.enable_validation):
            self.save(trainer, None)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step % self.every == 0 or trainer.should_stop:
            self.save(trainer, pl_module.latest.get(self.monitor))

    def save(self, trainer: Trainer, metric: float | None) -> None:
        name = f"step-{trainer.global_step:06d}.ckpt"
        trainer.save_checkpoint(self.folder / name)
        manifest = read_manifest(self.folder)
        entry = {"file": name, "step": trainer.global_step, self.monitor: metric}
        manifest["last"] = entry
        if metric is not None and self._improves(metric, manifest.get("best")):
            manifest["best"] = entry
        write_json(self.folder / MANIFEST, manifest)
        # Only now, the new one being whole and named, may old ones go.
        kept = {entry["file"] for entry in manifest.values()}
        for file in self.folder.glob("step-*.ckpt"):
            if file.name not in kept:
                with suppress(OSError):
                    file.unlink()

    def _improves(self, metric: float, best: dict[str, Any] | None) -> bool:
        if best is None or best.get(self.monitor) is None:
            return True
        if HIGHER_IS_BETTER[self.monitor]:
            return metric > best[self.monitor]
        return metric < best[self.monitor]
