"""GPT-2's byte-pair encoding, one stage after the other, to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from gpt2lab.tokenizer.gpt2 import PIECE_PATTERN, byte_characters, read_merges
from gpt2lab.tokenizer.protocol import code_points


@dataclass(frozen=True)
class Piece:
    """What becomes of one piece of a text."""

    text: str
    characters: str
    """A printable character for each byte of the text."""
    merges: tuple[tuple[str, str], ...]
    """Pairs in the order they are joined, each everywhere in the piece at once."""
    tokens: tuple[str, ...]
    """What the merges leave."""
    ids: tuple[int, ...]

    def steps(self) -> list[list[str]]:
        """The characters, then what is left after each merge."""
        found = [list(self.characters)]
        for pair in self.merges:
            found.append(joined(found[-1], pair))
        return found


@dataclass(frozen=True)
class Explanation:
    """How a text becomes ids; `print` shows a line a piece."""

    pieces: tuple[Piece, ...]

    @property
    def ids(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.ids]

    def __str__(self) -> str:
        rows = [("piece", "bytes", "merges in order", "tokens", "ids")]
        for piece in self.pieces:
            merges = "  ".join(f"{first}+{second}" for first, second in piece.merges)
            ids = " ".join(map(str, piece.ids))
            rows.append((repr(piece.text), piece.characters, merges, " ".join(piece.tokens), ids))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines)


def explain(text: str) -> Explanation:
    """GPT-2's four stages: pieces, their bytes as characters, merges in order, ids.

    Written for reading, apart from tiktoken: `explain(text).ids == gpt2_tokenizer().encode(text)`.
    " low" has the bytes Ġlow, in which Ġ+l, then o+w, then Ġl+ow are joined: id 1877.

    Raises:
        DataError: for a lone surrogate, or if the vocabulary is missing.
    """
    return Explanation(tuple(map(explained, pieces_of(text))))


def pieces_of(text: str) -> list[str]:
    """
    Raises:
        DataError: for a lone surrogate.
    """
    import regex  # type: ignore[import-untyped]  # the standard library's re knows no \p{L}

    code_points(text)  # refuses lone surrogates
    found: list[str] = regex.findall(PIECE_PATTERN, text)
    return found


def explained(piece: str) -> Piece:
    """What becomes of a piece; takes time with the square of its length."""
    ranks, ids = _ranks_and_ids()
    characters = "".join(byte_characters()[byte] for byte in piece.encode())
    merges, tokens = _merge(list(characters), ranks)
    return Piece(piece, characters, merges, tokens, tuple(ids[t] for t in tokens))


@cache
def _ranks_and_ids() -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """The rank of each merge, and the id of each token: 256 bytes, then what the merges make."""
    ranks = {pair: rank for rank, pair in enumerate(read_merges())}
    tokens = [*byte_characters().values(), *map("".join, read_merges())]
    return ranks, {token: number for number, token in enumerate(tokens)}


def _merge(
    tokens: list[str], ranks: Mapping[tuple[str, str], int]
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Join the pair of lowest rank, everywhere from the left, until none is left."""
    merges = []
    while known := [pair for pair in pairwise(tokens) if pair in ranks]:
        pair = min(known, key=ranks.__getitem__)
        merges.append(pair)
        tokens = joined(tokens, pair)
    return tuple(merges), tuple(tokens)


def joined(tokens: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """The tokens with a pair joined wherever it stands: a b a b and (a, b) give ab ab."""
    found: list[str] = []
    place = 0
    while place < len(tokens):
        is_pair = tuple(tokens[place : place + 2]) == pair
        found.append("".join(pair) if is_pair else tokens[place])
        place += 1 + is_pair
    return found
