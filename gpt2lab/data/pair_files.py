"""Pairs of source and target text: read from a file, and divided into training and evaluation."""

from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from gpt2lab.config import PairsConfig, PairsSource
from gpt2lab.data import dates
from gpt2lab.data.jsonl import field, opened, row_of
from gpt2lab.errors import DataError

WRITE = 'write one {"source": ..., "target": ...} a line'


class Pair(NamedTuple):
    """What is given, what is to be answered, and the line that says so, counted from 1."""

    source: str
    target: str
    line: int


class Pairs(NamedTuple):
    """Pairs and the file that they come from, for messages."""

    origin: str
    pairs: list[Pair]


def load_pairs(config: PairsConfig) -> tuple[Pairs, Pairs]:
    """The pairs to train on, and those to evaluate on: at most eval_examples of them.

    Raises:
        DataError: if a file or one of its lines is not what it should be, or either part is empty.
    """
    if config.source is PairsSource.dates:
        generated = [Pair(*pair, line) for line, pair in enumerate(dates.pairs(), 1)]
        every = Pairs("data.source=dates", generated)
    elif config.path is None:
        raise DataError("data.path: is null; give a .jsonl file of pairs")
    else:
        every = read_pairs(Path(config.path))
    if config.val_path is not None:
        held_out = read_pairs(Path(config.val_path))
        return every, Pairs(held_out.origin, sample(held_out.pairs, config.eval_examples))
    train, held_out_pairs = split(every.pairs, config.val_share)
    if not train or not held_out_pairs:
        raise DataError(
            f"{every.origin}: data.val_share={config.val_share} leaves {len(train)} pairs to train "
            f"on and {len(held_out_pairs)} to evaluate; choose another share, give more pairs, or "
            "name a file to evaluate on as data.val_path"
        )
    return Pairs(every.origin, train), Pairs(
        every.origin, sample(held_out_pairs, config.eval_examples)
    )


def read_pairs(path: Path) -> Pairs:
    """The pairs of a .jsonl file, one {"source": ..., "target": ...} a line; .gz and .zst too.

    Raises:
        DataError: naming the line, and the byte where bytes are no text.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check data.path and data.val_path")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: is no ordinary file; name a .jsonl file")
    if path.is_dir():
        raise DataError(f"{path}: is a directory; name a .jsonl file in it")
    pairs, offset = [], 0
    try:
        with opened(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = row_of(line, f"{path}:{number}", offset, WRITE)
                    pairs.append(Pair(field(row, "source"), field(row, "target"), number))
                offset += len(line)
    except OSError as error:
        what = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({what}); make or fetch it anew") from error
    if not pairs:
        raise DataError(f"{path}: is empty; {WRITE}")
    return Pairs(str(path), pairs)


def _hash(pair: Pair) -> int:
    """64 bits that depend on the pair's text alone, on every machine."""
    text = f"{pair.source}\0{pair.target}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest())


def split(pairs: list[Pair], val_share: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs held out, each in the order given.

    A pair's text alone decides where it goes: equal pairs go together, and adding pairs moves none.
    """
    train: list[Pair] = []
    held_out: list[Pair] = []
    for pair in pairs:
        (held_out if _hash(pair) < val_share * 2**64 else train).append(pair)
    return train, held_out


def sample(pairs: list[Pair], count: int) -> list[Pair]:
    """All pairs, or the `count` of smallest hash, in the order given."""
    if len(pairs) <= count:
        return pairs
    smallest = sorted(range(len(pairs)), key=lambda i: (_hash(pairs[i]), i))[:count]
    return [pairs[i] for i in sorted(smallest)]
