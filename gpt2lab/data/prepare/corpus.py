"""Text into token files: `train.bin`, `val.bin` and the manifest that makes them a corpus.

documents (sources) -> batches, each bound for a split (batches) -> ids, in several processes
(encode) -> `<folder>.partial/` with a journal (partial) -> `<folder>/`, at once and whole
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2lab.config import TextConfig, TextSource, TrainConfig, Vocabulary
from gpt2lab.data.prepare import batches as batching
from gpt2lab.data.prepare.batches import TRAIN, VAL, batches
from gpt2lab.data.prepare.encode import Encoder, encoded
from gpt2lab.data.prepare.files import chunks_of, local_files
from gpt2lab.data.prepare.partial import (
    DiskError,
    Writer,
    locked,
    publish,
    read_journal,
    write_whole,
)
from gpt2lab.data.prepare.sources import Source, dataset_files, deciding, open_source, stem
from gpt2lab.data.tokens import (
    FORMAT,
    MANIFEST,
    check_document_mask,
    fingerprint_of,
    is_prepared,
    read_manifest,
)
from gpt2lab.data.verify import PREPARE
from gpt2lab.durable import at_home
from gpt2lab.errors import DataError, Gpt2labError
from gpt2lab.progress import Progress, say
from gpt2lab.tokenizer import (
    CharTokenizer,
    Tokenizer,
    check_vocabulary,
    from_plain,
    gpt2_tokenizer,
)


@dataclass(frozen=True)
class Needs:
    """What a training asks of a corpus, to be refused before anything is written."""

    block_size: int = 0
    """Positions of a window, which reads one token more; 0 for whatever there is."""
    vocab_size: int | None = None

    @classmethod
    def of(cls, settings: TrainConfig) -> "Needs":
        # A checkpoint's vocabulary is compared later, by the names of both tokenizers.
        vocab_size = settings.model.vocab_size if settings.resume is None else None
        return cls(settings.model.block_size, vocab_size)


def prepare(config: TextConfig, data_dir: Path, needs: Needs = Needs()) -> Path:
    """The folder of token files that the settings name, written first where it is missing.

    Raises:
        DataError: if the text is missing, empty, damaged, or has changed since it was prepared.
            Nothing stays behind then but what a full disk cut short, which is gone on from.
    """
    folder = corpus_folder(config, data_dir)
    if names_token_files(config):
        return folder
    if is_prepared(folder):
        check_unchanged(folder, config)
        return folder
    if data_dir.exists() and not data_dir.is_dir():
        raise DataError(f"data_dir: {data_dir} is a file; choose a folder")
    if folder.exists():
        raise DataError(f"{folder}: is there, but is no whole corpus; remove it")
    with _nothing_left_of(data_dir):
        source = open_source(config, data_dir)
        with locked(folder) as partial:
            # Another process may have been faster while this one waited.
            if is_prepared(folder):
                shutil.rmtree(partial, ignore_errors=True)
            else:
                _go_on(config, source, partial, folder, needs)
    return folder


def corpus_folder(config: TextConfig, data_dir: Path) -> Path:
    """Where the token files are or will be: data.path where it names them, else in data_dir.

    In data/input-char-1f3a5b7c the end is a hash of what decides the bytes.
    """
    if config.path is not None and names_token_files(config):
        return Path(at_home(config.path))
    text = json.dumps(deciding(config), sort_keys=True)
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    return data_dir / f"{stem(config)}-{config.tokenizer.name}-{short}"


def names_token_files(config: TextConfig) -> bool:
    """Whether data.path is prepared already, by us or by others."""
    if config.source is not TextSource.files or config.path is None:
        return False
    path = Path(at_home(config.path))
    if path.is_dir():
        return is_prepared(path) or any(path.glob("*.bin"))
    return path.suffix == ".bin" and (path.is_file() or has_magic(config.path))


def check_unchanged(folder: Path, config: TextConfig) -> None:
    """Refuse a corpus whose text is another one now; text that is gone is not missed.

    Raises:
        DataError: naming the first file that is new or not what it was.
    """
    mend = f"since {folder} was prepared; remove that folder to prepare it anew"
    try:
        known = {file["path"]: file for file in read_manifest(folder)["source"]["files"]}
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{folder / MANIFEST}: does not say what it was made from; {PREPARE}"
        ) from error
    for path in map(Path, known):
        then = known[str(path)]
        if not path.exists():
            continue
        stat = path.stat()
        is_same = stat.st_size == then["size"] and (
            stat.st_mtime_ns == then["mtime_ns"] or _sha256(path) == then["sha256"]
        )
        if not is_same:
            raise DataError(f"{path}: has changed {mend}")
    found: list[Path] = []
    if config.source is TextSource.files and config.path is not None:
        with suppress(DataError):  # no such file any more
            found = local_files(config.path)
    elif config.source is TextSource.hub:
        found = dataset_files(config)
    added = [path for path in found if str(path.absolute()) not in known]
    if added:
        raise DataError(f"{added[0]}: was added {mend}")


def _go_on(config: TextConfig, source: Source, partial: Path, folder: Path, needs: Needs) -> None:
    """Write what is missing in the partial folder, and give it its name."""
    try:
        # A whole one was killed just before it got its name; the text may be another one by now.
        if not is_prepared(partial) or not _is_of(read_manifest(partial), config, source):
            _write(config, source, partial, folder, needs)
        publish(partial, folder)
    except KeyboardInterrupt:
        say(f"{partial}: is not whole yet; the same command goes on from there")
        raise
    except DiskError:
        raise
    except Gpt2labError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write(config: TextConfig, source: Source, partial: Path, folder: Path, needs: Needs) -> None:
    began = time.monotonic()
    settings = _settings(config, source)
    journal = read_journal(partial, settings)
    done = journal["batches"] if journal else 0
    say(
        f"{folder}: goes on behind batch {done:,} of {source.title}"
        if done
        else f"{folder}: prepares {source.title}"
    )
    facts = journal["facts"] if journal else survey(config, source)
    tokenizer = from_plain(facts["tokenizer"])
    check_vocabulary(tokenizer, needs.vocab_size)
    check_document_mask(config, tokenizer, source.title)
    writer = Writer(partial, settings, facts, journal)
    end = None if facts["is_single"] else tokenizer.end_of_text
    encoder = Encoder(tokenizer, dtype_of(tokenizer), end, config.val_share)
    try:
        remaining = batches(source, facts["is_single"], config.val_share)
        position = max((batch.position for batch in islice(remaining, done)), default=0)
        results = encoded(remaining, encoder, config.num_processes)
        with closing(results), closing(Progress(source.total, position)) as progress:
            for batch, parts in results:
                writer.add(parts)
                progress.add(batch.position, sum(part.tokens for part in parts.values()))
        _check_splits(config, source, writer, needs)
        writer.save()
        if _settings(config, source) != settings:
            raise DataError(f"{source.title}: changed while it was read; start again")
        write_whole(partial / MANIFEST, manifest(source, settings, tokenizer, writer))
    except KeyboardInterrupt:
        writer.save()
        raise
    finally:
        writer.close()
    if source.replaced():
        say(f"warning: {source.title}: {source.replaced():,} times bytes were not UTF-8, replaced")
    counts = " and ".join(f"{writer.splits[n].tokens:,} {n}" for n in (TRAIN, VAL))
    say(f"{folder}: {counts} tokens in {time.monotonic() - began:.1f} s")


def _is_of(manifest: dict[str, Any], config: TextConfig, source: Source) -> bool:
    """Whether a manifest was written from what the settings and sources are now."""
    settings = _settings(config, source)
    then = manifest.get("source", {})
    files = [{k: v for k, v in file.items() if k != "sha256"} for file in then.get("files", [])]
    return {**then, "files": files} == {**settings, "replaced": then.get("replaced")}


def survey(config: TextConfig, source: Source) -> dict[str, Any]:
    """What must be known before the first id: whether there is one document, and its vocabulary.

    Characters are collected from the whole corpus; GPT-2's vocabulary needs two documents at most.

    Raises:
        DataError: if there is no document.
    """
    is_char = config.tokenizer is Vocabulary.char
    characters: set[str] = set()
    count = 0
    for val in (False, True) if source.has_val else (False,):
        for document in islice(source.documents(val), None if is_char else 2):
            count += 1
            if is_char:
                for chunk in chunks_of(document):
                    characters.update(chunk)
    if count == 0:
        raise DataError(f"{source.title}: holds no text; give documents to train on")
    is_single = count == 1 and not source.has_val
    tokenizer: Tokenizer = gpt2_tokenizer()
    if is_char:
        tokenizer = CharTokenizer("".join(sorted(characters)), end_of_text=not is_single)
    return {"is_single": is_single, "tokenizer": tokenizer.plain()}


def dtype_of(tokenizer: Tokenizer) -> str:
    return "<u2" if tokenizer.vocab_size <= 2**16 else "<u4"


def manifest(
    source: Source, settings: dict[str, Any], tokenizer: Tokenizer, writer: Writer
) -> dict[str, Any]:
    splits = {
        name: {
            "file": split.path.name,
            "tokens": split.tokens,
            "documents": split.documents,
            "bytes": split.bytes,
            "sha256": split.digest.hexdigest(),
        }
        for name, split in writer.splits.items()
    }
    sums = [str(splits[name]["sha256"]) for name in (TRAIN, VAL)]
    files = [{**file, "sha256": _sha256(Path(file["path"]))} for file in settings["files"]]
    return {
        "format": FORMAT,
        "tokenizer": tokenizer.plain(),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "dtype": {"<u2": "uint16", "<u4": "uint32"}[dtype_of(tokenizer)],
        "splits": splits,
        "source": {**settings, "files": files, "replaced": source.replaced()},
        "fingerprint": fingerprint_of(tokenizer, sums),
    }


def _settings(config: TextConfig, source: Source) -> dict[str, Any]:
    """What a journal must agree with to be gone on from; the manifest keeps it too."""
    files = [
        {"path": str(path.absolute()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        for path in source.files()
        for stat in [_stat(path)]
    ]
    return {**deciding(config), "batch_chars": batching.BATCH_CHARS, "files": files}


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; bring it back, and start again") from error


def _check_splits(config: TextConfig, source: Source, writer: Writer, needs: Needs) -> None:
    documents = sum(split.documents for split in writer.splits.values())
    for name, what in ((TRAIN, "training"), (VAL, "validation")):
        if writer.splits[name].tokens == 0:
            share = (
                f"val_split={config.val_split}"
                if source.has_val
                else f"val_share={config.val_share}"
            )
            raise DataError(
                f"{source.title}: no document of {documents:,} is left for the {what} split by "
                f"data.{share}; give more documents, or another share"
            )
    for name, need in ((TRAIN, needs.block_size + 1), (VAL, 2)):
        if needs.block_size and writer.splits[name].tokens < need:
            raise DataError(
                f"{source.title}: gives {writer.splits[name].tokens} {name} tokens, {need} are "
                "needed; give more text"
                + (", or lower model.block_size" if name == TRAIN else ", or a larger share")
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _nothing_left_of(data_dir: Path) -> Iterator[None]:
    """Take away, after an error, the empty folders that were made for what then was not written."""
    made = [folder for folder in (data_dir, *data_dir.parents) if not folder.exists()]
    try:
        yield
    except Gpt2labError:
        with suppress(OSError):  # one that holds something stays
            for folder in made:
                folder.rmdir()
        raise
