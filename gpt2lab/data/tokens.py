"""Token files: ids on disk, memory-mapped, and never trusted before they are checked.

Three kinds of corpus are read:

- a prepared folder of ours: `train.bin`, `val.bin` and a `manifest.json` with counts and checksums;
- nanoGPT's folder: `train.bin` and `val.bin`, and `meta.pkl` where the ids are characters;
- shards with a header of 256 int32, as llm.c and modded-nanogpt write them: a folder or a glob of
  files whose names say `_train_` or `_val_`.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.config import TextConfig
from gpt2lab.data.verify import PREPARE, TokenFile, check, size_of
from gpt2lab.errors import DataError
from gpt2lab.tokenizer import CharTokenizer, Tokenizer, from_plain, gpt2_tokenizer

MANIFEST = "manifest.json"
FORMAT = 1

SHARD_MAGIC, SHARD_VERSION = 20240520, 1
LLAMA_MAGIC = 20240801
HEADER_BYTES = 256 * 4

# So many places hold a 0 in none but a file of wider ids.
ZEROS = 2**16

COPY = "copy or download it again"


@dataclass(frozen=True)
class Corpus:
    """Token ids in files, and what they stand for."""

    folder: Path
    train: tuple[NDArray[Any], ...]
    """Memory-mapped ids, uint16 or uint32, one array a file."""
    val: tuple[NDArray[Any], ...]
    tokenizer: Tokenizer
    fingerprint: str
    """Two corpora with equal fingerprints hold the same ids, of the same tokenizer."""


def is_prepared(folder: Path) -> bool:
    """Whether this is a whole corpus of ours: the manifest is written last."""
    return (folder / MANIFEST).is_file()


def fingerprint_of(tokenizer: Tokenizer, sums: Sequence[str]) -> str:
    """Names the ids of a prepared corpus, by its tokenizer and its files' sha256."""
    text = "\n".join([tokenizer.fingerprint, *sums])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_document_mask(config: TextConfig, tokenizer: Tokenizer, where: object) -> None:
    """
    Raises:
        DataError: if documents are to be told apart, and nothing ends them.
    """
    if config.document_mask and tokenizer.end_of_text is None:
        raise DataError(
            f"data.document_mask: the {tokenizer.kind} tokenizer of {where} has no end of text, "
            "as of a corpus of one document; leave data.document_mask out"
        )


def open_corpus(folder_or_glob: Path) -> Corpus:
    """The corpus of a folder, or of the shards that a glob names.

    Raises:
        DataError: if anything is missing, damaged, or not what its manifest or header says.
    """
    path = folder_or_glob
    if is_prepared(path):
        return _open_prepared(path)
    if (path / "train.bin").exists() or (path / "val.bin").exists():
        return _open_nanogpt(path)
    if path.is_dir():
        return _open_shards(path, path, sorted(path.glob("*.bin")))
    if path.is_file() or not has_magic(str(path)):
        what = "is one file" if path.is_file() else "does not exist"
        raise DataError(f"{path}: {what}; give a folder of token files, or a glob of them")
    found = sorted(map(Path, glob(str(path), recursive=True)))  # noqa: PTH207
    return _open_shards(path.parent, path, found)


def _open_prepared(folder: Path) -> Corpus:
    manifest = read_manifest(folder)
    try:
        tokenizer = from_plain(manifest["tokenizer"])
        splits = [
            TokenFile(
                folder / str(manifest["splits"][name]["file"]),
                {"uint16": "<u2", "uint32": "<u4"}[manifest["dtype"]],
                int(manifest["splits"][name]["tokens"]),
                sha256=str(manifest["splits"][name]["sha256"]),
            )
            for name in ("train", "val")
        ]
        written, fingerprint = manifest["tokenizer_fingerprint"], str(manifest["fingerprint"])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, DataError) as error:
        raise DataError(
            f"{folder / MANIFEST}: is not a whole manifest ({type(error).__name__}: {error}); "
            f"{PREPARE}"
        ) from error
    if fingerprint != fingerprint_of(tokenizer, [str(file.sha256) for file in splits]):
        raise DataError(
            f"{folder / MANIFEST}: its fingerprint {fingerprint} is not of these files; {PREPARE}"
        )
    if tokenizer.fingerprint != written:
        raise DataError(
            f"{folder / MANIFEST}: its ids are of tokenizer {written}, this one is "
            f"{tokenizer.fingerprint}; {PREPARE}"
        )
    for file in splits:
        expected = file.tokens * np.dtype(file.dtype).itemsize
        found = size_of(file.path)
        if found != expected:
            raise DataError(
                f"{file.path}: has {found:,} bytes, its manifest says {expected:,}; {PREPARE}"
            )
    train, val = splits
    for split in ([train], [val]):
        check(folder, split, tokenizer)
    return Corpus(folder, (train.open(),), (val.open(),), tokenizer, fingerprint)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of manifest.json.

    Raises:
        DataError: if it is not JSON, or of a format that we do not know.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); {PREPARE}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise DataError(f"{path}: has format {found}, {FORMAT} is read; {PREPARE}")
    return manifest


def _open_nanogpt(folder: Path) -> Corpus:
    meta = folder / "meta.pkl"
    tokenizer: Tokenizer = _read_meta(meta) if meta.is_file() else gpt2_tokenizer()
    files = []
    for name in ("train.bin", "val.bin"):
        path = folder / name
        if not path.exists():
            what = "validation" if name == "val.bin" else "training"
            raise DataError(f"{path}: does not exist; add a file of {what} ids")
        size = size_of(path)
        if size % 2:
            raise DataError(
                f"{path}: has {size:,} bytes, ids of 16 bits need an even number; {COPY}"
            )
        file = TokenFile(path, "<u2", size // 2)
        # Wider ids than ours leave nothing but zeros in every second place.
        if file.tokens > 2 and not file.open()[1 : 2 * ZEROS : 2].any():
            raise DataError(
                f"{path}: every second of its ids of 16 bits is 0, as if they had 32 or 64; "
                "write them as uint16"
            )
        files.append(file)
    return _foreign(folder, [files[:1], files[1:]], tokenizer)


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists and dicts: no class, no function, so that no code runs."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _read_meta(path: Path) -> Tokenizer:
    """The character vocabulary in nanoGPT's meta.pkl: {"vocab_size": 65, "itos": ..., "stoi": ...}.

    Raises:
        DataError: if it holds anything but such a dict, with ids in code-point order.
    """
    try:
        with path.open("rb") as file:
            itos = _PlainUnpickler(file).load()["itos"]
        characters = [itos[i] for i in range(len(itos))]
        if characters != sorted(set("".join(characters))):
            raise ValueError("its ids are not characters in code-point order")
        return CharTokenizer("".join(characters))
    # A pickle can fail in any way that its bytes ask for.
    except Exception as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: is not a character vocabulary of nanoGPT's ({what}); make it again, or take "
            "it away where the ids are GPT-2's"
        ) from error


def _open_shards(folder: Path, named: Path, paths: Sequence[Path]) -> Corpus:
    splits = []
    for split in ("train", "val"):
        files = [_shard(p) for p in paths if re.search(rf"_{split}[_.]", p.name)]
        if not files:
            what = "validation" if split == "val" else "training"
            raise DataError(
                f"{named}: has no {what} file among {len(paths)} token files; add shards whose "
                f"names say _{split}_, or give a folder with train.bin and val.bin"
            )
        splits.append(files)
    return _foreign(folder, splits, gpt2_tokenizer())


def _shard(path: Path) -> TokenFile:
    """A shard whose header fits its size: 256 int32 (magic, version, tokens, zeros), then uint16.

    Raises:
        DataError: if it is of another kind, or shorter or longer than its header says.
    """
    size = size_of(path)
    if size < HEADER_BYTES:
        raise DataError(f"{path}: has {size:,} bytes, its header needs {HEADER_BYTES:,}; {COPY}")
    magic, version, tokens = np.fromfile(path, "<i4", count=3).tolist()
    if (magic, version) != (SHARD_MAGIC, SHARD_VERSION):
        kind = " (llama-3's ids of 32 bits)" if magic == LLAMA_MAGIC else ""
        raise DataError(
            f"{path}: its header says magic {magic}, version {version}{kind}; shards of GPT-2 ids "
            f"with magic {SHARD_MAGIC}, version {SHARD_VERSION} are read"
        )
    expected = HEADER_BYTES + 2 * tokens
    if size != expected:
        raise DataError(
            f"{path}: has {size:,} bytes, the {tokens:,} ids of its header need {expected:,}; "
            f"{COPY}"
        )
    if tokens == 0:
        raise DataError(f"{path}: is empty, its header says 0 ids; {COPY}")
    return TokenFile(path, "<u2", tokens, HEADER_BYTES)


def _foreign(folder: Path, splits: list[list[TokenFile]], tokenizer: Tokenizer) -> Corpus:
    """A corpus of files that others wrote; names and content make its fingerprint."""
    digest = hashlib.sha256(tokenizer.fingerprint.encode())
    for split in splits:
        for file, content in zip(split, check(folder, split, tokenizer), strict=True):
            digest.update(f"\n{file.path.name} {content.sha256}".encode())
    train, val = (tuple(file.open() for file in split) for split in splits)
    return Corpus(folder, train, val, tokenizer, digest.hexdigest()[:16])
