"""From a checkpoint to a folder that others read, which is read again before it is there."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2lab.checkpoint import is_checkpoint, load_checkpoint
from gpt2lab.checkpoint.reading import walk
from gpt2lab.checkpoint.writing import bytes_needed as file_bytes
from gpt2lab.checkpoint.writing import put, written
from gpt2lab.config import ExportFormat, StoredPrecision
from gpt2lab.durable import check_room, is_full, whole_folder, write_whole
from gpt2lab.errors import CheckpointError, RunError
from gpt2lab.loading import located, read
from gpt2lab.model import GPT2
from gpt2lab.origin import origin
from gpt2lab.weights.graph import compare_graph, write_graph
from gpt2lab.weights.model_card import model_card, with_onnxruntime, with_transformers
from gpt2lab.weights.reread import compare_ours, compare_transformers, has_transformers
from gpt2lab.weights.stored import bytes_needed, write_model
from gpt2lab.weights.target import check_target, check_target_file
from gpt2lab.weights.tensors import count_nonfinite
from gpt2lab.weights.tokenizer_files import tokenizer_files

NO_TOKENIZER = (
    "checkpoint: nothing says what its ids stand for, so that no tokenizer is written; "
    "add the files of one"
)


@dataclass
class Exported:
    """What was written, and what was read again."""

    files: dict[str, int]
    """Bytes of each file."""
    compared: dict[str, list[str]]
    """What was equal, by who read it."""


def export(
    checkpoint: Path,
    to: Path,
    *,
    form: ExportFormat = ExportFormat.hf,
    precision: StoredPrecision = StoredPrecision.fp32,
    overwrite: bool = False,
    allow_nonfinite: str | None = None,
) -> Exported:
    """Write a model into a folder that takes the place of `to` when it is whole.

    Args:
        overwrite: replace an earlier export; what holds anything else is never replaced.
    Raises:
        CheckpointError: if the checkpoint is damaged.
        ConfigError: if `to` holds what would be lost, or numbers are too large for the format.
        RunError: if there is no room, or what was written is not what was meant.
    """
    path = located(checkpoint)
    check_target(to, path, overwrite)
    model = read(path, allow_nonfinite).eval()
    if model.speech is None:
        warnings.warn(NO_TOKENIZER, stacklevel=2)
    facts = origin(path, str(checkpoint), allow_nonfinite)
    needed = bytes_needed(model, precision)
    facts["Export"]["weights stored in"] = precision.name
    is_graph = form is ExportFormat.onnx
    with told(to, needed), whole_folder(to.resolve()) as folder:
        check_room(folder, needed)
        write_tokenizer(model, folder)
        use = with_onnxruntime if is_graph else with_transformers
        card = model_card(to.resolve().name, model.config, model.speech, facts, use(model.speech))
        write_whole(folder / "README.md", card.encode())
        if is_graph:
            write_graph(model, folder)
            equal = {"onnxruntime": [compare_graph(model, folder)]}
        else:
            write_model(model, folder, precision)
            equal = compared(model, folder, precision)
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return Exported(files, equal)


def export_checkpoint(
    checkpoint: Path, to: Path, overwrite: bool = False, allow_nonfinite: str | None = None
) -> Exported:
    """Write a checkpoint of one file or of several ranks' into one file, optimizer included.

    Raises:
        CheckpointError: if the checkpoint is damaged, or none of ours.
        ConfigError: if `to` is there, or cannot be.
        RunError: if there is no room, or what was written is not what was meant.
    """
    path = located(checkpoint)
    if not is_checkpoint(path):
        raise CheckpointError(f"{path}: has no state of an optimizer; give a run of ours")
    check_target_file(to, path, overwrite)
    content = load_checkpoint(path, allow_nonfinite)
    needed = file_bytes(content)
    with told(to, needed), written(content, to) as file:
        again = load_checkpoint(file.path, allow_nonfinite)
        if not same(again, content):
            raise RunError(f"{to}: is not what was written; see the disk's health, and try again")
        put(file.path, to)
    count = len(content["state_dict"])
    return Exported({to.name: file.bytes}, {"gpt2lab": [f"{count} weights", "optimizer"]})


def same(a: Any, b: Any) -> bool:
    """Whether two contents are equal, bit for bit: NaN to NaN too."""
    both = list(zip(walk(a), walk(b), strict=False))
    return len([*walk(a)]) == len([*walk(b)]) and all(
        name == other and equal(value, wanted) for (name, value), (other, wanted) in both
    )


def equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, Tensor) and isinstance(wanted, Tensor):
        return value.dtype == wanted.dtype and torch.equal(as_bytes(value), as_bytes(wanted))
    if isinstance(value, dict | list | tuple):
        return type(value) is type(wanted)
    return bool(value == wanted) or value != value


def as_bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def write_tokenizer(model: GPT2, folder: Path) -> None:
    if model.speech is not None:
        files = tokenizer_files(model.speech.tokenizer, model.config.block_size)
        for name, content in files.items():
            write_whole(folder / name, content)


def compared(model: GPT2, folder: Path, precision: StoredPrecision) -> dict[str, list[str]]:
    """What was equal, by who read it."""
    again, said = compare_ours(model, folder, precision)
    found = {"gpt2lab": said}
    if any(map(count_nonfinite, again.parameters())):
        warnings.warn("allow_nonfinite: with NaN or infinity no logits are compared", stacklevel=2)
    elif has_transformers():
        found["transformers"] = [*compare_transformers(again, folder)]
    else:
        warnings.warn(
            "transformers: is not installed, so that it has not read what was written; "
            "pip install 'gpt2lab[hf]' adds it",
            stacklevel=2,
        )
    return found


@contextmanager
def told(to: Path, needed: int) -> Iterator[None]:
    """A failure to write, in a line that says what is needed and what to do.

    Raises:
        RunError: for an OSError.
    """
    try:
        yield
    except BlockingIOError as error:
        raise RunError(f"{to}: another export writes it now; wait for it") from error
    except OSError as error:
        above = next(parent for parent in to.resolve().parents if parent.exists())
        mend = "make room" if is_full(error) else "make it writable"
        raise RunError(
            f"{to}: cannot be written ({error.strerror or error}): up to {needed:,} bytes are "
            f"needed, {shutil.disk_usage(above).free:,} are free; {mend}, or choose another folder"
        ) from error
