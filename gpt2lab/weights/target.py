"""The folder of an export or an insight: whether it may be written, found out without torch."""

import re
import zipfile
from pathlib import Path

from gpt2lab.durable import check_writable
from gpt2lab.errors import ConfigError

FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|vocab|gpt2lab)\.json"
    r"|merges\.txt|README\.md|model\.onnx(\.data)?"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
)
"""What an export writes, and may overwrite."""
MARK = ("README.md", "exported by gpt2lab")
"""A file of every export, and what stands at its beginning."""
CHECKPOINTS = "checkpoints"
"""The folder of a run that holds them."""
MARKED_WITHIN = 4096
"""Characters of such a beginning."""


def check_target(
    to: Path,
    source: Path,
    overwrite: bool,
    files: re.Pattern[str] = FILES,
    kind: str = "export",
    mark: tuple[str, str] = MARK,
) -> None:
    """
    Args:
        source: what is exported.
        files: names of what is written, and may be overwritten.
        kind: what such a folder is called.
        mark: a file that each of them has, and what stands at its beginning.
    Raises:
        ConfigError: if the folder cannot be written, or holds what would be lost.
    """
    try:
        check_place(to)
        if to.is_dir():
            check_content(to, source, overwrite, files, kind, mark)
    except OSError as error:
        raise ConfigError(
            f"to: {to} cannot be a folder ({error.strerror}); choose another one"
        ) from error


def check_place(to: Path) -> None:
    """
    Raises:
        ConfigError: if there can be no folder.
    """
    place = to.resolve()
    if place == Path.cwd():
        raise ConfigError(f"to: {to} is the folder that you are in; name one inside of it")
    if place.exists() and not place.is_dir():
        raise ConfigError(f"to: {place} is a file; choose a folder")
    check_writable(place.parent, "to")  # where the folder is written before it takes its place


def check_content(
    to: Path,
    source: Path,
    overwrite: bool,
    files: re.Pattern[str],
    kind: str,
    mark: tuple[str, str],
) -> None:
    """
    Raises:
        ConfigError: if the folder holds what would be lost.
    """
    names = sorted(path.name for path in to.iterdir())
    foreign = [name for name in names if not files.fullmatch(name) or not (to / name).is_file()]
    if not foreign and not is_marked(to, *mark):
        foreign = names  # called as ours are, and somebody else's
    if foreign:
        raise ConfigError(f"to: {to} holds {foreign[0]}, which is no {kind}; choose another folder")
    if names and to.resolve() == source.resolve():
        raise ConfigError(f"to: {to} is what checkpoint= names; choose another folder")
    if names and not overwrite:
        raise ConfigError(
            f"to: {to} holds an {kind} already; choose another folder, or add overwrite=true"
        )


def is_marked(folder: Path, name: str, text: str) -> bool:
    try:
        with (folder / name).open(encoding="utf-8", errors="replace") as file:
            return text in file.read(MARKED_WITHIN)
    except OSError:
        return False


def check_target_file(to: Path, source: Path, overwrite: bool) -> None:
    """
    Raises:
        ConfigError: if no file can be written there, or what is there would be lost.
    """
    place = to.resolve()
    if place.is_dir():
        raise ConfigError(f"to: {to} is a folder; name a file, such as {to / 'whole.ckpt'}")
    if place == source.resolve():
        raise ConfigError(f"to: {to} is what checkpoint= names; choose another file")
    if place.exists() and not (place.is_file() and zipfile.is_zipfile(place)):
        raise ConfigError(f"to: {to} is there, and no checkpoint; choose another file")
    if place.exists() and place.parent.name == CHECKPOINTS:
        raise ConfigError(f"to: {to} is there; choose another file, for a run has this one")
    if place.exists() and not overwrite:
        raise ConfigError(f"to: {to} is there; choose another file, or add overwrite=true")
    check_writable(place.parent, "to")
