"""Prefix tasks: source text is given, target text is to be predicted.

With a character for each token, the source "ab", the separator "\\n" and the target "c" make the
row a b \\n | c <|endoftext|>; of six positions (context=6) the last two are padding:
inputs  a b \\n c       . .
targets . . c  <|end|> . .     (b and \\n are ignored: they were given)
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from gpt2lab.batch import IGNORE, Batch, mask_prefix
from gpt2lab.config import PairsConfig, Vocabulary
from gpt2lab.data.module import StepDataModule, StepDataset
from gpt2lab.data.order import step_windows
from gpt2lab.data.packing import Ints, Packing, one_a_row, pack
from gpt2lab.data.pair_files import Pairs, load_pairs
from gpt2lab.errors import DataError
from gpt2lab.tokenizer import CharTokenizer, Tokenizer, gpt2_tokenizer

EVAL_TOKENS = 2**14  # of one batch of the evaluation


@dataclass(frozen=True)
class EncodedPairs:
    """Each pair as ids: source and separator, which are its prefix, target, end token."""

    ids: NDArray[np.uint32]
    """All pairs, one after another."""
    starts: Ints
    """Pair i is ids[starts[i] : starts[i + 1]]."""
    prefixes: Ints
    """Tokens of each pair that are given, at least 1."""

    def __len__(self) -> int:
        return len(self.prefixes)

    @cached_property
    def lengths(self) -> Ints:
        """Positions of a row that each pair takes: its last id is only ever a target."""
        return np.diff(self.starts) - 1

    def shifted(self, chosen: Ints) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets without the prefix, and whether a position is the pair's own: (n, L)."""
        lengths = self.lengths[chosen]
        positions = np.arange(lengths.max(initial=0) + 1)
        # Past the end of a pair stands the next one's beginning, which is not its own.
        at = np.minimum(self.starts[chosen][:, None] + positions, len(self.ids) - 1)
        ids = torch.from_numpy(self.ids[at].astype(np.int64))
        targets = mask_prefix(ids[:, 1:], torch.from_numpy(self.prefixes[chosen]))
        own = torch.from_numpy(positions[:-1] < lengths[:, None])
        return ids[:, :-1], targets, own


def encode_pairs(found: Pairs, tokenizer: Tokenizer, config: PairsConfig) -> EncodedPairs:
    """Text to ids. Prefix and target are encoded apart, so that no token spans the two.

    Raises:
        DataError: for a pair longer than data.context, or one that gives nothing to begin with.
    """
    parts: list[NDArray[np.uint32]] = []
    prefixes, sizes = [], []
    end = np.array([tokenizer.end_of_text], dtype=np.uint32)
    for pair in found.pairs:
        prefix = tokenizer.encode_array(pair.source + config.separator)
        if not len(prefix):
            raise DataError(
                f"{found.origin}:{pair.line}: source and data.separator are both empty; "
                "give one of them, so that there is a token to begin with"
            )
        target = tokenizer.encode_array(pair.target)
        parts += (prefix, target, end)
        prefixes.append(len(prefix))
        sizes.append(len(prefix) + len(target) + 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    encoded = EncodedPairs(np.concatenate(parts), starts, np.array(prefixes))
    longest = int(encoded.lengths.argmax())
    needed = int(encoded.lengths[longest])
    if needed > config.context:
        count = int((encoded.lengths > config.context).sum())
        raise DataError(
            f"{found.origin}:{found.pairs[longest].line}: the pair needs {needed} tokens, "
            f"data.context is {config.context} (too few for {count} of {len(encoded)} pairs); "
            f"give data.context={needed}, or shorten them"
        )
    return encoded


@dataclass(frozen=True)
class PairRows:
    """Pairs laid out in rows of `context` positions, ready to be taken as batches."""

    pairs: EncodedPairs
    packing: Packing
    context: int
    pad: int
    """The input where there is no pair; its target is IGNORE."""
    numbered: bool
    """Whether batches have `documents`: needed where pairs share a row."""

    def __len__(self) -> int:
        return len(self.packing.offsets) - 1

    def batch(self, rows: Ints) -> Batch:
        """Some rows as a batch (len(rows), context)."""
        chosen, row_of, number = self.packing.take(rows)
        inputs, targets, own = self.pairs.shifted(chosen)  # (n, L)
        lengths = self.pairs.lengths[chosen]
        before = np.cumsum(lengths) - lengths  # positions of all pairs before this one
        start = before - before[number == 0][row_of] + row_of * self.context
        places = torch.from_numpy(start)[:, None] + torch.arange(inputs.shape[1])

        def laid_out(values: Tensor, fill: Tensor) -> Tensor:
            rows = fill[:, None].repeat(1, self.context)  # (B, T)
            rows.view(-1)[places[own]] = values[own]
            return rows

        B = len(rows)
        batch = Batch(
            laid_out(inputs, torch.full((B,), self.pad)),
            laid_out(targets, torch.full((B,), IGNORE)),
        )
        if not self.numbered:
            return batch
        # Padding comes after the last pair, as a document of its own.
        documents = torch.from_numpy(number)[:, None].expand(inputs.shape)
        counts = torch.from_numpy(np.bincount(row_of, minlength=B))
        return batch._replace(documents=laid_out(documents, counts))


class PairsTrain(StepDataset):
    """Each row once an epoch, in a shuffled order."""

    def __init__(self, rows: PairRows, seed: int, batch_size: int) -> None:
        self.rows = rows
        self.seed = seed
        self.batch_size = batch_size

    def __getitem__(self, step: int) -> Batch:
        return self.rows.batch(self.numbers(step))

    def numbers(self, step: int) -> Ints:
        """The rows of a step, (batch_size,), or this rank's share of them."""
        return step_windows(self.seed, step, self.batch_size, len(self.rows), self.share)


def build_tokenizer(config: PairsConfig, *parts: Pairs) -> Tokenizer:
    """GPT-2's, or one for all the characters that occur, those to be evaluated included."""
    if config.tokenizer is Vocabulary.gpt2:
        return gpt2_tokenizer()
    characters = set(config.separator)
    for part in parts:
        for pair in part.pairs:
            characters.update(pair.source, pair.target)
    return CharTokenizer("".join(sorted(characters)), end_of_text=True)


class PairsDataModule(StepDataModule):
    """Whole steps to train on, one pair a row or several; held-out pairs, one a row, to evaluate.

    Raises:
        DataError: if the pairs cannot be read, divided or fitted into rows.
    """

    tokenizer: Tokenizer
    train: PairsTrain

    def __init__(self, config: PairsConfig, *, seed: int, batch_size: int) -> None:
        train, held_out = load_pairs(config)
        tokenizer = build_tokenizer(config, train, held_out)
        assert tokenizer.end_of_text is not None
        end = tokenizer.end_of_text
        pairs = encode_pairs(train, tokenizer, config)
        packing = pack(pairs.lengths, config.context) if config.packed else one_a_row(len(pairs))
        rows = PairRows(pairs, packing, config.context, end, config.packed)
        steps = PairsTrain(rows, seed, batch_size)
        super().__init__(steps, batch_size * config.context, config.num_workers)
        self.config = config
        self.lines = np.array([pair.line for pair in train.pairs])
        self.tokenizer = tokenizer
        self.end = end
        # One a row, packed or not: exact match counts rows.
        held = encode_pairs(held_out, tokenizer, config)
        self.held_out = PairRows(held, one_a_row(len(held)), config.context, end, False)

    def val_dataloader(self) -> DataLoader[Batch]:
        size = max(1, EVAL_TOKENS // self.config.context)
        chosen = np.arange(len(self.held_out))[self.share.of(len(self.held_out))]
        parts = np.array_split(chosen, range(size, len(chosen), size))
        return DataLoader([self.held_out.batch(rows) for rows in parts], batch_size=None)  # type: ignore[arg-type]

    def sample_ids(self, step: int) -> list[int] | list[list[int]]:
        """Lines of the file of pairs, from 1 on; a list of them a row where pairs share rows.

        Dates are in the order of the days: number 1 is the 1st of January 1900.
        """
        rows = self.train.numbers(step)
        chosen, row_of, _ = self.train.rows.packing.take(rows)
        lines = self.lines[chosen]
        if not self.config.packed:
            return lines.tolist()
        return [lines[row_of == row].tolist() for row in range(len(rows))]

    def fingerprint(self) -> str:
        digest = blake2b(self.tokenizer.fingerprint.encode(), digest_size=6)
        for rows in (self.train.rows, self.held_out):
            for array in (rows.pairs.ids, rows.pairs.starts, rows.pairs.prefixes, *rows.packing):
                digest.update(np.ascontiguousarray(array).tobytes())
        return f"pairs-{self.config.context}-{digest.hexdigest()}"

    def decode(self, token_ids: list[int]) -> str:
        """Text up to the first end token: there an answer is over."""
        ends = token_ids.index(self.end) if self.end in token_ids else None
        return self.tokenizer.decode(token_ids[:ends])

    def questions(self, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Held-out prefixes, spread over all of them, and their right answers, end token included.

        Each is a row of ids of its own length, (T,).
        """
        pairs = self.held_out.pairs
        prompts, wanted = [], []
        for i in np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int):
            ids = torch.from_numpy(
                pairs.ids[pairs.starts[i] : pairs.starts[i + 1]].astype(np.int64)
            )
            prompts.append(ids[: pairs.prefixes[i]])
            wanted.append(ids[pairs.prefixes[i] :])
        return prompts, wanted
