"""The last or the best checkpoint of a run that can be trusted, and order after a kill."""

import errno
import os
import shutil
import warnings
from pathlib import Path

from gpt2lab.checkpoint.folder import file_of, size_of
from gpt2lab.checkpoint.manifest import (
    MANIFEST,
    Entry,
    Manifest,
    known_best,
    read_manifest,
    step_files,
    temporary_of,
    write_manifest,
)
from gpt2lab.checkpoint.verify import fault, sha256
from gpt2lab.durable import sync_folder
from gpt2lab.errors import CheckpointError


def find_checkpoint(
    run: Path, which: str, *, instead: str = "go on with resume=last"
) -> Path | None:
    """The `last` or `best` checkpoint of a run folder; None if it has none.

    A damaged last one gives a warning, and the one before it is taken. Without a manifest, or
    with a damaged one, the files' names and their own checksums say which is which.

    Args:
        instead: what to do where the best is damaged.
    Raises:
        CheckpointError: if the best is damaged, or all are.
    """
    folder = run / "checkpoints"
    manifest = read_manifest(folder)
    if manifest is None:
        last = _newest_whole(folder, dict.fromkeys(step_files(folder)))
        return last if last is None or which == "last" else _best_known_to(last, instead)
    manifest = without_unfinished(folder, manifest)
    if which == "last":
        return _newest_whole(folder, {folder / e.file: e for e in manifest.checkpoints})
    best = manifest.best
    return None if best is None else _best(folder / best.file, best, instead)


def _newest_whole(folder: Path, candidates: dict[Path, Entry | None]) -> Path | None:
    faults = []
    if (folder / MANIFEST).exists() and None in candidates.values():
        faults.append(f"{folder / MANIFEST}: is damaged")
    for path, entry in candidates.items():
        what = fault(path, entry)
        if what is None:
            if faults:
                warnings.warn(f"{'; '.join(faults)}; going on from {path.name}", stacklevel=3)
            return path
        faults.append(f"{path}: {what}")
    if candidates:
        raise CheckpointError(f"{'; '.join(faults)}; no checkpoint is left, bring back a copy")
    return None


def _best(path: Path, entry: Entry | None, instead: str) -> Path:
    what = fault(path, entry)
    if what is not None:
        raise CheckpointError(f"{path}: {what}; {instead}")
    return path


def _best_known_to(last: Path, instead: str) -> Path | None:
    """The best checkpoint by what the last one holds."""
    from gpt2lab.checkpoint.reading import load_facts  # torch, for this rare case alone

    best, _ = known_best(load_facts(last))
    return None if best is None else _best(last.with_name(best.file), None, instead)


def without_unfinished(folder: Path, manifest: Manifest) -> Manifest:
    """Without what was being saved when the run was killed: recorded, but not yet renamed."""
    checkpoints = [
        entry
        for entry in manifest.checkpoints
        if not temporary_of(folder / entry.file).exists()
        or fault(folder / entry.file, entry) is None
    ]
    return Manifest(manifest.run, manifest.monitor, checkpoints)


def recovered(folder: Path) -> list[Entry]:
    """What a lost manifest would say of the whole files, but for their metrics; newest first."""
    return [
        Entry(path.name, int(path.stem[5:]), size_of(path), sha256(file_of(path)), None)
        for path in step_files(folder)
        if fault(path, None) is None
    ]


def clean(folder: Path) -> None:
    """Make a run's folder of checkpoints, and clear away what a killed save left there.

    For whoever holds the run's lock.

    Raises:
        CheckpointError: if nothing can be saved there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (folder.parent, folder.parent.parent):
            sync_folder(parent)  # or a power cut may take the folder itself
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        left = list(folder.glob(".*.tmp"))
        manifest = read_manifest(folder)
        if left and manifest is not None:
            # First the record: once its temporary file is gone, it would look like a lost one.
            whole = without_unfinished(folder, manifest)
            if whole != manifest:
                write_manifest(folder, whole)
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written to ({error.strerror}); make it a folder of yours"
        ) from error
