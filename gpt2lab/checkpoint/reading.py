"""Reading a checkpoint without believing it: of one file, or of several ranks' files."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lab.checkpoint.folder import COMMON, files_of_ranks, is_folder
from gpt2lab.checkpoint.verify import check_whole, once_a_file
from gpt2lab.errors import CheckpointError
from gpt2lab.ranks import rows_of
from gpt2lab.weights.tensors import (
    check_finite,
    check_shapes,
    count_nonfinite,
    is_ordinary,
    shapes,
)

Content = dict[str, Any]


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
    check_finite(nonfinite(path), allow_nonfinite, path)
    return read(path, mapped)


def load_weights(path: Path, allow_nonfinite: str | None = None) -> Content:
    """The same without the state of the optimizer, which is not looked at: it stays on disk."""
    check_whole(path)
    check_finite(nonfinite(path, "state_dict"), allow_nonfinite, path)
    return read(path, mapped=True, states=("state_dict",))


def load_facts(path: Path, allow_nonfinite: str | None = None) -> Content:
    """All but the tensors of weights and optimizer, which are checked like the rest."""
    check_whole(path)
    check_finite(nonfinite(path), allow_nonfinite, path)
    return read(path, mapped=True, states=())


def load_rows(path: Path, rank: int, count: int, allow_nonfinite: str | None = None) -> Content:
    """The content of a checkpoint with one rank's rows of each tensor, in memory.

    Args:
        count: of the ranks, which need not be that of those that have written it.
    """
    check_whole(path)
    check_finite(nonfinite(path), allow_nonfinite, path)
    return read(path, mapped=True, part=(rank, count))


def load_shapes(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint by their names, as tensors without numbers."""
    parts = [read_file(file, mapped=True)["state_dict"] for file in state_files(path)]
    state: dict[str, Tensor] = joined(parts, lambda pieces: torch.cat([*map(empty, pieces)]), path)
    return state


def empty(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


STATES = ("state_dict", "optimizer_states")
"""What of a content is in rows where several ranks have written it."""


def read(
    path: Path,
    mapped: bool,
    states: tuple[str, ...] = STATES,
    part: tuple[int, int] | None = None,
) -> Content:
    """
    Args:
        states: the parts of STATES that are wanted.
        part: a rank and the number of ranks, for that rank's rows alone.
    Raises:
        CheckpointError: if this is no checkpoint of ours.
    """
    parts = [read_file(file, mapped) for file in state_files(path)]
    common = read_file(path / COMMON, mapped) if is_folder(path) else parts[0]
    facts = {name: value for name, value in common.items() if name not in STATES}
    if not all(is_ours(facts | {name: p.get(name) for name in STATES}) for p in parts):
        raise CheckpointError(f"{path}: not a checkpoint of gpt2lab; take one from checkpoints/")
    if not is_folder(path) and part is None:
        return {n: value for n, value in common.items() if n not in STATES or n in states}
    chosen = [{name: p[name] for name in states} for p in parts]
    try:
        found: Content = joined(chosen, partial(rows, part=part), path)
    except RecursionError as error:
        raise CheckpointError(f"{path}: not a checkpoint of gpt2lab; take another one") from error
    return facts | found


def state_files(path: Path) -> list[Path]:
    return files_of_ranks(path) if is_folder(path) else [path]


def read_file(path: Path, mapped: bool) -> Content:
    """
    Raises:
        CheckpointError: if torch cannot read it, or it holds no dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # torch raises half a dozen types for foreign files, and its advice is to load them anyway
        raise CheckpointError(
            f"{path}: has {path.stat().st_size:,} bytes that are not a whole checkpoint; "
            "take another one"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint of gpt2lab; take one from checkpoints/")
    return content


def joined(parts: list[Any], join: Callable[[list[Tensor]], Tensor], path: Path) -> Any:
    """One content of those of all ranks: their rows one after another, all else as in the first.

    A tensor without a dimension, such as a count of steps, has no rows.

    Raises:
        CheckpointError: if they are no parts of one.
    """
    first = parts[0]
    if isinstance(first, Tensor) and first.dim() > 0:
        if not all(isinstance(part, Tensor) and kind(part) == kind(first) for part in parts):
            raise CheckpointError(f"{path}: its files are no parts of one; take another one")
        return join(parts)
    if not isinstance(first, dict | list):
        return first
    keys = keys_of(first)
    if not all(type(part) is type(first) and keys_of(part) == keys for part in parts):
        raise CheckpointError(f"{path}: its files are no parts of one; take another one")
    found = [joined([part[key] for part in parts], join, path) for key in keys]
    return found if isinstance(first, list) else dict(zip(keys, found, strict=True))


def kind(rows: Tensor) -> tuple[Any, ...]:
    """What the rows of one tensor have in common."""
    return rows.dtype, rows.shape[1:]


def keys_of(value: dict[Any, Any] | list[Any]) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def rows(pieces: list[Tensor], part: tuple[int, int] | None) -> Tensor:
    """The rows of pieces that follow one another, all of them or those of one rank, copied."""
    if part is None:
        return torch.cat(pieces)
    wanted = rows_of(sum(map(len, pieces)), *part)
    found, first = [], 0
    for piece in pieces:
        found.append(piece[max(wanted.start - first, 0) : max(wanted.stop - first, 0)])
        first += len(piece)
    return torch.cat(found)


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


def nonfinite(path: Path, *states: str) -> dict[str, tuple[int, int]]:
    """The tensors of weights and optimizer with NaN or infinity: how many, of how many.

    Args:
        states: what of STATES is looked at; nothing stands for both.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for file in state_files(path):
        count = nonfinite_weights if states == ("state_dict",) else nonfinite_in_all
        for name, counts in count(file).items():
            found.setdefault(name, []).append(counts)
    return {
        name: (sum(n for n, _ in counts), sum(total for _, total in counts))
        for name, counts in found.items()
        if any(n for n, _ in counts)
    }


@once_a_file
def nonfinite_in_all(file: Path) -> dict[str, tuple[int, int]]:
    return nonfinite_in(file, *STATES)


@once_a_file
def nonfinite_weights(file: Path) -> dict[str, tuple[int, int]]:
    return nonfinite_in(file, "state_dict")


def nonfinite_in(file: Path, *parts: str) -> dict[str, tuple[int, int]]:
    """Of each tensor in a file, how many numbers are not finite, and how many there are."""
    content = read_file(file, mapped=True)
    states = {name: content.get(name) for name in parts}
    tensors = {name: value for name, value in walk(states) if isinstance(value, Tensor)}
    return {name: (count_nonfinite(tensor), tensor.numel()) for name, tensor in tensors.items()}


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


def check_fits(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: naming the first tensor that differs, with both shapes.
    """
    mend = "take the checkpoint's own settings"
    check_shapes(shapes(model.state_dict()), shapes(state), path, mend)
