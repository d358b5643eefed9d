"""Running text: windows of a corpus to train on, and its validation set in order.

A window of T = block_size positions reads T + 1 tokens, the last of which is the first of the next
window: of the tokens a b c d e and T=2, window 0 is  inputs a b, targets b c  and window 1 is
inputs c d, targets d e. So every token but a file's first is a target exactly once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.config import TextConfig
from gpt2lab.data.module import StepDataModule, StepDataset
from gpt2lab.data.order import ALL, Share, epoch_shift, step_epochs
from gpt2lab.data.tokens import Corpus, check_document_mask
from gpt2lab.errors import DataError
from gpt2lab.tokenizer import Tokenizer

Ids = NDArray[Any]
Place = tuple[int, int, int]
"""A file's number, the first token of a window in it, and how many of its targets count."""

EVAL_BATCH_TOKENS = 16_384
COUNT_CHUNK = 2**22
LONGEST_PROMPT = 32


class Windows:
    """Windows of T positions over several files, numbered through; none crosses files.

    Args:
        files: ids, one memory-mapped array a file.
        num_targets: how many targets of each file are used, from its start.
        end_of_text: the id that ends a document, where attention is to stay within documents.
    """

    def __init__(
        self, files: Sequence[Ids], num_targets: Sequence[int], T: int, end_of_text: int | None
    ) -> None:
        self.files = files
        self.num_targets = num_targets
        self.T = T
        self.end_of_text = end_of_text
        self.ends = np.cumsum([-(-n // T) for n in num_targets])
        self._open()

    def _open(self) -> None:
        # Slices of a plain array take a quarter of the time of a memory map's.
        self.arrays = [np.asarray(file) for file in self.files]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def batch(self, windows: NDArray[np.int64], shift: int = 0) -> Batch:
        """These windows, one a row; where a file ends within a window, its targets are IGNORE.

        Args:
            shift: by how many tokens all windows are moved to the right.
        """
        T = self.T
        inputs = np.zeros((len(windows), T), np.int64)
        targets = np.full((len(windows), T), IGNORE, np.int64)
        for row, (file, start, count) in enumerate(self.places(windows)):
            tokens = self.arrays[file][start + shift : start + shift + count + 1]
            inputs[row, :count] = tokens[:-1]
            targets[row, :count] = tokens[1:]
        documents = None
        if self.end_of_text is not None:
            documents = torch.from_numpy(document_numbers(inputs, self.end_of_text))
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets), documents)

    def places(self, windows: NDArray[np.int64]) -> Iterable[Place]:
        files = np.searchsorted(self.ends, windows, side="right")
        firsts = np.concatenate([[0], self.ends])[files]
        for file, start in zip(files.tolist(), (self.T * (windows - firsts)).tolist(), strict=True):
            yield file, start, min(self.T, self.num_targets[file] - start)

    def __getstate__(self) -> dict[str, Any]:
        """Paths in place of ids: a memory map would be pickled with its whole content."""
        maps = [(f.filename, f.dtype, f.offset, f.shape) for f in self.files]  # type: ignore[attr-defined]
        return {**self.__dict__, "files": maps, "arrays": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.files = [
            np.memmap(path, dtype, "r", offset, shape)
            for path, dtype, offset, shape in state["files"]
        ]
        self._open()


def document_numbers(inputs: NDArray[np.int64], end_of_text: int) -> NDArray[np.int64]:
    """The number of each token's document within its row, (B, T); its end_of_text belongs to it.

    With end_of_text=0: 5 0 7 8 0 gives 0 0 1 1 1.
    """
    ends = inputs == end_of_text
    return ends.cumsum(axis=1) - ends


class TextTrain(StepDataset):
    """The next windows of endless shuffled epochs.

    The first epoch reads every token. Later ones move all windows by up to T - 1 tokens, so that
    a token's context is another one each time, at the price of as many tokens at a file's ends.
    """

    def __init__(self, files: Sequence[Ids], T: int, end: int | None, seed: int, batch_size: int):
        self.first = Windows(files, [(len(file) - 1) // T * T for file in files], T, end)
        room = [max(0, len(file) - T) // T * T for file in files]
        self.later = Windows(files, room, T, end) if sum(room) else self.first
        self.seed = seed
        self.batch_size = batch_size

    def __getitem__(self, step: int) -> Batch:
        parts = [windows.batch(numbers, shift) for windows, numbers, shift in self.parts(step)]
        return parts[0] if len(parts) == 1 else joined(parts)

    def parts(self, step: int) -> Iterator[tuple[Windows, NDArray[np.int64], int]]:
        """The windows of a step, those of each epoch apart: of which kind, which, and the shift."""
        num_first, num_later = len(self.first), len(self.later)
        order = self.seed, step, self.batch_size, num_first, num_later, self.share
        for epoch, numbers in step_epochs(*order):
            windows = self.later if epoch else self.first
            room = 1 if windows is self.first else windows.T
            yield windows, numbers, epoch_shift(self.seed, epoch, room)


def joined(parts: Sequence[Batch]) -> Batch:
    """The rows of several batches."""
    documents = [part.documents for part in parts if part.documents is not None]
    return Batch(
        torch.cat([part.inputs for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat(documents) if documents else None,
    )


class TextEvaluation(Dataset[Batch]):
    """All windows in order, in batches of about so many tokens whatever the training's batch.

    Args:
        share: which of the windows.
    """

    def __init__(self, windows: Windows, share: Share = ALL) -> None:
        self.windows = windows
        self.chosen = range(len(windows))[share.of(len(windows))]
        self.rows = max(1, EVAL_BATCH_TOKENS // windows.T)

    def __len__(self) -> int:
        return max(1, -(-len(self.chosen) // self.rows))

    def __getitem__(self, item: int) -> Batch:
        rows = self.chosen[item * self.rows : (item + 1) * self.rows]
        return self.windows.batch(np.arange(rows.start, rows.stop))


class TextDataModule(StepDataModule):
    """Shuffled windows to train on; every target of the validation set, once, to evaluate."""

    has_answers = False
    tokenizer: Tokenizer
    train: TextTrain

    def __init__(
        self, config: TextConfig, corpus: Corpus, *, seed: int, batch_size: int, block_size: int
    ) -> None:
        check_document_mask(config, corpus.tokenizer, corpus.folder)
        end_of_text = corpus.tokenizer.end_of_text if config.document_mask else None
        evaluated = _first([len(file) - 1 for file in corpus.val], config.eval_tokens)
        longest = max(map(len, corpus.train))
        _check_length(corpus, "train", longest - block_size, corpus.train, block_size + 1)
        _check_length(corpus, "val", sum(evaluated), corpus.val, 2)
        train = TextTrain(corpus.train, block_size, end_of_text, seed, batch_size)
        super().__init__(train, batch_size * block_size, config.num_workers)
        self.config = config
        self.corpus = corpus
        self.tokenizer = corpus.tokenizer
        self.evaluation = TextEvaluation(Windows(corpus.val, evaluated, block_size, end_of_text))
        self.val_bytes_per_token = bytes_per_token(corpus, evaluated)
        self.block_size = block_size

    def val_dataloader(self) -> DataLoader[Batch]:
        evaluation = TextEvaluation(self.evaluation.windows, self.share)
        return DataLoader(evaluation, batch_size=None, pin_memory=torch.cuda.is_available())

    def sample_ids(self, step: int) -> list[int]:
        """Where each window begins among the training tokens, all files' one after another.

        Row i of a step reads the tokens ids[i] to ids[i] + block_size, the last one included.
        """
        before = np.cumsum([0, *map(len, self.corpus.train)]).tolist()
        return [
            before[file] + start + shift
            for windows, numbers, shift in self.train.parts(step)
            for file, start, _ in windows.places(numbers)
        ]

    def fingerprint(self) -> str:
        masked = "-documents" if self.config.document_mask else ""
        return f"text-{self.corpus.fingerprint}-{self.block_size}{masked}"

    def decode(self, token_ids: list[int]) -> str:
        return self.tokenizer.decode(token_ids)

    def prompts(self, count: int) -> list[torch.Tensor]:
        """Beginnings, at most 32 tokens, of windows spread over the validation set."""
        P = max(1, min(self.block_size // 2, LONGEST_PROMPT))
        windows = self.evaluation.windows
        chosen = np.linspace(0, len(windows) - 1, min(count, len(windows))).astype(np.int64)
        return [
            torch.from_numpy(windows.arrays[file][start : start + P].astype(np.int64))
            for file, start, _ in windows.places(chosen)
        ]


def _first(num_targets: list[int], wanted: int | None) -> list[int]:
    """So many targets of files, from the first file on; all where None."""
    if wanted is None:
        return num_targets
    wanted = min(wanted, sum(num_targets))
    before = np.cumsum([0, *num_targets[:-1]])
    return np.clip(wanted - before, 0, num_targets).tolist()


def _check_length(
    corpus: Corpus, split: str, num_targets: int, files: Sequence[Ids], need: int
) -> None:
    if num_targets <= 0:
        longest = max(len(file) for file in files)
        raise DataError(
            f"{corpus.folder}: its longest {split} file has {longest} tokens, {need} are needed; "
            "give more text" + (", or lower model.block_size" if split == "train" else "")
        )


def bytes_per_token(corpus: Corpus, evaluated: Sequence[int]) -> float:
    """Mean UTF-8 bytes of the targets that are evaluated.

    Raises:
        DataError: if they stand for no text at all.
    """
    sizes = corpus.tokenizer.bytes_per_token()
    total = sum(
        int(sizes[file[start : min(start + COUNT_CHUNK, count + 1)]].sum())
        for file, count in zip(corpus.val, evaluated, strict=True)
        for start in range(1, count + 1, COUNT_CHUNK)
    )
    if total == 0:
        raise DataError(f"{corpus.folder}: its val tokens stand for no text; give more text")
    return total / sum(evaluated)
