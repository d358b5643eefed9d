"""Writing a checkpoint whole or not at all, and reading one without believing it."""

import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning import LightningModule
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from gpt2lab.checkpoint.manifest import temporary_of
from gpt2lab.checkpoint.verify import check_whole, once_a_file
from gpt2lab.durable import check_room, is_full, sync_folder
from gpt2lab.errors import CheckpointError, RunError
from gpt2lab.weights.tensors import (
    check_finite,
    check_shapes,
    count_nonfinite,
    is_ordinary,
    shapes,
)

Content = dict[str, Any]


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
        Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class Written:
    """A file that is whole and on disk, and has no name yet that anyone looks for."""

    path: Path
    bytes: int
    sha256: str


@contextmanager
def written(content: Content, path: Path) -> Iterator[Written]:
    """The content in a temporary file beside its target; gone after the body, if still there."""
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(path.parent, bytes_needed(content))
        with temporary.open("wb") as file:
            hashed = HashedFile(file)
            torch.save(content, cast(BinaryIO, hashed))
            if hashed.error is not None:
                raise hashed.error
            file.flush()
            os.fsync(file.fileno())
        yield Written(temporary, hashed.bytes, hashed.sha256.hexdigest())
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def put(temporary: Path, path: Path) -> None:
    """Give a file its name, for good."""
    temporary.replace(path)
    sync_folder(path.parent)


class HashedFile:
    """Knows the checksum of what was written through it, and the first error met.

    torch.save hides an error of its file behind one of its own. It is told that all is well, and
    whoever called it asks for `error` afterwards.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.error: BaseException | None = None

    def write(self, data: memoryview) -> int:
        if self.error is None:
            try:
                self.file.write(data)
                self.sha256.update(data)
            except BaseException as error:
                self.error = error
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Done by the caller, who wants to know of its errors."""


@contextmanager
def told(path: Path, content: Content) -> Iterator[None]:
    """A failure to write, in a line that says what is needed and what to do.

    Raises:
        RunError: for an OSError, and for content that no checkpoint takes.
    """
    for name, value in walk(content):
        if foreign(value):
            raise RunError(
                f"{path}: {name} is a {type(value).__name__}, a checkpoint holds plain types and "
                "tensors only; leave out the callback that adds it"
            )
    try:
        yield
    except OSError as error:
        try:
            free = f"{shutil.disk_usage(path.parent).free:,}"
        except OSError:
            free = "an unknown number"
        mend = "make room" if is_full(error) else "make it writable"
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}): "
            f"{bytes_needed(content):,} bytes are needed, {free} are free; "
            f"{mend} and go on with name={path.absolute().parent.parent.name} resume=last"
        ) from error


def bytes_needed(content: Content) -> int:
    """Size of a checkpoint's file, at most some kilobytes more or less."""
    overhead = 256  # of the zip, a tensor
    sizes = [v.nbytes + overhead for _, v in walk(content) if isinstance(v, Tensor)]
    return sum(sizes) + 2**14


def load_checkpoint(
    path: Path, allow_nonfinite: str | None = None, *, mapped: bool = True
) -> Content:
    """The content of a checkpoint: plain types and tensors on the CPU; code in it never runs.

    Args:
        allow_nonfinite: the tensor that may hold NaN or infinity, as the refusal names it.
        mapped: read tensors from the file as they are needed, which asks for no memory; the file
            must not be cut short meanwhile. Ours never is, only replaced.
    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything else.
    """
    check_whole(path)
    content = read(path, mapped)
    check_finite(nonfinite(path), allow_nonfinite, path)
    return content


def load_weights(path: Path, allow_nonfinite: str | None = None) -> Content:
    """The same without the state of the optimizer, which is not looked at: it stays on disk."""
    check_whole(path)
    content = read(path, mapped=True)
    check_finite(nonfinite_weights(path), allow_nonfinite, path)
    return {name: value for name, value in content.items() if name != "optimizer_states"}


def read(path: Path, mapped: bool) -> Content:
    """
    Raises:
        CheckpointError: if this is no checkpoint of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # torch raises half a dozen types for foreign files, and its advice is to load them anyway
        raise CheckpointError(
            f"{path}: has {path.stat().st_size:,} bytes that are not a whole checkpoint; "
            "take another one"
        ) from error
    if not is_ours(content):
        raise CheckpointError(f"{path}: not a checkpoint of gpt2lab; take one from checkpoints/")
    return content


def is_ours(content: Any) -> bool:
    """Whether all that a training goes on from is there, and of the right types."""
    kinds = {"state_dict": dict, "settings": dict, "global_step": int, "optimizer_states": list}
    if (
        not isinstance(content, dict)
        or not all(isinstance(content.get(name), kind) for name, kind in kinds.items())
        or any(foreign(value) for _, value in walk(content))
        or not all(isinstance(value, Tensor) for value in content["state_dict"].values())
        or len(content["optimizer_states"]) != 1
        or not isinstance(content["optimizer_states"][0], dict)
    ):
        return False
    # Before the first update, and where every step was left out, an optimizer knows nothing yet.
    updates = content["global_step"] - content.get("skipped_steps", 0)
    state = content["optimizer_states"][0].get("state")
    return content["global_step"] >= 0 and isinstance(state, dict) and (bool(state) or not updates)


@once_a_file
def nonfinite(path: Path) -> dict[str, tuple[int, int]]:
    """The tensors of weights and optimizer with NaN or infinity: how many, of how many."""
    return nonfinite_in(path, "state_dict", "optimizer_states")


@once_a_file
def nonfinite_weights(path: Path) -> dict[str, tuple[int, int]]:
    return nonfinite_in(path, "state_dict")


def nonfinite_in(path: Path, *parts: str) -> dict[str, tuple[int, int]]:
    content = read(path, mapped=True)
    states = {name: content[name] for name in parts}
    tensors = {name: value for name, value in walk(states) if isinstance(value, Tensor)}
    counts = {name: (count_nonfinite(tensor), tensor.numel()) for name, tensor in tensors.items()}
    return {name: count for name, count in counts.items() if count[0]}


PLAIN = (str, int, float, bool, type(None), dict, OrderedDict, list, tuple)


def walk(content: Any) -> Iterator[tuple[str, Any]]:
    """Everything in nested dicts, lists and tuples, under dotted names; what is there twice, once.

    No recursion: a stranger's nest may be deeper than Python's stack, or bite its own tail.
    """
    seen = set()
    ahead = [("", content)]
    while ahead:
        name, value = ahead.pop()
        yield name, value
        if isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            inner = [(f"{name}.{key}" if name else str(key), part) for key, part in parts]
            ahead += reversed(inner)


def foreign(value: Any) -> bool:
    """Whether this is no value of a checkpoint: neither of a plain type nor an ordinary tensor."""
    return not is_ordinary(value) if isinstance(value, Tensor) else type(value) not in PLAIN


def check_fits(model: LightningModule, state: dict[str, Tensor], path: Path) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: naming the first tensor that differs, with both shapes.
    """
    mend = "take the checkpoint's own settings"
    check_shapes(shapes(model.state_dict()), shapes(state), path, mend)
