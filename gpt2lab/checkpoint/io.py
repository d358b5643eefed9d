"""What Lightning asks for where a checkpoint is written or read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import CheckpointIO

from gpt2lab.checkpoint.folder import remove
from gpt2lab.checkpoint.manifest import temporary_of
from gpt2lab.checkpoint.reading import Content, load_checkpoint
from gpt2lab.checkpoint.writing import put, told, written


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, flushes to disk, renames: a kill leaves the old file or the new.

    Args:
        allow_nonfinite: the tensor that may hold NaN or infinity when a checkpoint is loaded.
    """

    def __init__(self, allow_nonfinite: str | None = None) -> None:
        self.allow_nonfinite = allow_nonfinite

    def save_checkpoint(
        self,
        checkpoint: Content,
        path: str | Path,
        storage_options: Callable[[Content, Path], None] | None = None,
    ) -> None:
        """
        Args:
            storage_options: a writing of the caller's own, as `Checkpoints` has.
        """
        if storage_options is not None:
            storage_options(checkpoint, Path(path))
        else:
            with told(Path(path), checkpoint), written(checkpoint, Path(path)) as file:
                put(file.path, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> Content:
        # Not mapped: optimizers keep the tensors that they are given, and with them a file's space.
        return load_checkpoint(Path(path), self.allow_nonfinite, mapped=False)

    def remove_checkpoint(self, path: str | Path) -> None:
        if Path(path).exists():
            remove(Path(path), temporary_of(Path(path)))
