"""A checkpoint that several ranks have written: a folder, with a file of each and an index.

    step-000500.ckpt/
      index.json                  size and sha256 of each file; its own sha256 is the checkpoint's
      common.ckpt                 what is the same on all ranks: the step, the settings, the metrics
      rank-00000-of-00002.ckpt    state_dict and optimizer_states, with the rows of this rank

torch.distributed.checkpoint would do, but for its `.metadata`, a pickle that is loaded as such:
code in a stranger's checkpoint would run. Importing this loads no torch.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2lab.checkpoint.manifest import step_of
from gpt2lab.durable import write_json

INDEX = "index.json"
COMMON = "common.ckpt"


@dataclass(frozen=True)
class File:
    """A file as it was written."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.bytes, int) or not isinstance(self.sha256, str):
            raise TypeError(f"{self.name}: {self.bytes!r}, {self.sha256!r}")
        if Path(self.name).name != self.name:
            raise ValueError(f"{self.name!r} is no file of this folder")


def name_of_rank(rank: int, count: int) -> str:
    return f"rank-{rank:05d}-of-{count:05d}.ckpt"


def is_folder(path: Path) -> bool:
    """Whether this is a checkpoint of several files, or was one before it was damaged."""
    return path.is_dir() and ((path / INDEX).is_file() or step_of(path.name) is not None)


def is_checkpoint(path: Path) -> bool:
    """Whether this is a checkpoint of ours, of one file or several, by its looks."""
    return path.is_file() or is_folder(path)


def file_of(path: Path) -> Path:
    """The file whose checksum tells a checkpoint from any other."""
    return path / INDEX if is_folder(path) else path


def files_of(path: Path) -> dict[str, Path]:
    """A checkpoint's files, by their names beside other checkpoints."""
    if not path.is_dir():
        return {path.name: path}
    return {f"{path.name}/{file.name}": file for file in sorted(path.iterdir())}


def size_of(path: Path) -> int:
    """Bytes of a checkpoint's files."""
    return sum(file.stat().st_size for file in files_of(path).values())


def files_of_ranks(path: Path) -> list[Path]:
    """The files with rows, in the order of the ranks."""
    return sorted(path.glob("rank-*.ckpt"))


def write_index(folder: Path, files: list[File]) -> None:
    write_json(folder / INDEX, {"files": [asdict(file) for file in files]})


def read_index(folder: Path) -> list[File] | None:
    """None if there is none, or no whole one: each rank's file, and what is common to all."""
    try:
        content: Any = json.loads((folder / INDEX).read_bytes())
        files = [File(**entry) for entry in content["files"]]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    count = len(files) - 1
    wanted = {COMMON, *(name_of_rank(rank, count) for rank in range(count))}
    return files if count > 0 and {file.name for file in files} == wanted else None


def remove(path: Path, aside: Path) -> None:
    """Of a folder, nothing is left under its name at once; then its files go, from `aside`."""
    if path.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        shutil.rmtree(aside)
    else:
        path.unlink()
