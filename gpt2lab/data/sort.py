"""The toy task of minGPT's demo: digits, then the same digits sorted.

length=5 and the digits 1 2 1 0 1 make the row 1 2 1 0 1 | 0 1 1 1 2:
inputs  1 2 1 0 1 0 1 1 1
targets . . . . 0 1 1 1 2     (2 1 0 1 are ignored: they were given)
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from gpt2lab.batch import Batch, mask_prefix
from gpt2lab.config import SortConfig
from gpt2lab.data.module import StepDataModule, StepDataset
from gpt2lab.data.order import EVALUATION, splitmix64, step_rng
from gpt2lab.errors import DataError
from gpt2lab.tokenizer import DigitTokenizer

Digits = NDArray[np.int64]

HELD_OUT_SHARE = 4  # one input in four is never trained on
EVAL_BATCH = 1024


def is_held_out(digits: Digits) -> NDArray[np.bool_]:
    """Which rows (n, length) are kept for evaluation: about a quarter, chosen by a stable hash.

    A polynomial of the digits, then splitmix64's finalizer (Steele et al. 2014), in wrapping
    64-bit arithmetic, so that every machine and process makes the same choice.
    """
    powers = np.full(digits.shape[1], 0x9E3779B97F4A7C15, dtype=np.uint64).cumprod()
    state = (digits.astype(np.uint64) + np.uint64(1)) @ powers
    return splitmix64(state) % np.uint64(HELD_OUT_SHARE) == 0


def to_batch(digits: Digits) -> Batch:
    """Rows of digits (B, length) as inputs and targets (B, 2 * length - 1)."""
    B, length = digits.shape
    rows = torch.from_numpy(np.concatenate([digits, np.sort(digits, axis=1)], axis=1))
    targets = mask_prefix(rows[:, 1:], torch.full((B,), length))
    return Batch(rows[:, :-1].contiguous(), targets)


class SortTrain(StepDataset):
    """Random inputs, none of them held out."""

    def __init__(self, config: SortConfig, seed: int, batch_size: int) -> None:
        self.config = config
        self.seed = seed
        self.batch_size = batch_size

    def __getitem__(self, step: int) -> Batch:
        rng = step_rng(self.seed, step)
        kept: list[Digits] = []
        missing = self.batch_size
        while missing > 0:
            # A third more than needed replaces the held-out quarter; the rest is for bad luck.
            draws = missing * 3 // 2 + 8
            digits = rng.integers(self.config.num_digits, size=(draws, self.config.length))
            kept.append(digits[~is_held_out(digits)][:missing])
            missing -= len(kept[-1])
        return to_batch(np.concatenate(kept)[self.share.of(self.batch_size)])


def held_out_inputs(config: SortConfig) -> Digits:
    """Distinct held-out inputs (n, length): all of them, or a fixed sample of eval_examples.

    Raises:
        DataError: if the task has so few inputs that none is held out, or none is left to train on.
    """
    wanted = config.eval_examples
    num_inputs = config.num_digits**config.length
    if num_inputs <= 2 * HELD_OUT_SHARE * wanted:
        every = _all_inputs(config)
        held_out = every[is_held_out(every)]
        if len(held_out) in (0, len(every)):
            raise DataError(
                f"data.length: {config.length} digits below {config.num_digits} make {num_inputs} "
                f"inputs, of which {len(held_out)} are held out; choose a larger task"
            )
        if len(held_out) <= wanted:
            return held_out
        chosen = step_rng(0, 0, EVALUATION).permutation(len(held_out))[:wanted]
        return held_out[np.sort(chosen)]
    return _sampled_inputs(config)


def _all_inputs(config: SortConfig) -> Digits:
    """Every input in ascending order, (num_digits ** length, length)."""
    shape = (config.num_digits,) * config.length
    return np.indices(shape).reshape(config.length, -1).T.astype(np.int64)


def _sampled_inputs(config: SortConfig) -> Digits:
    """A fixed sample of distinct held-out inputs, in the order drawn."""
    rng = step_rng(0, 0, EVALUATION)
    found: dict[bytes, Digits] = {}
    while len(found) < config.eval_examples:
        size = (HELD_OUT_SHARE * config.eval_examples, config.length)
        digits = rng.integers(config.num_digits, size=size)
        found |= {row.tobytes(): row for row in digits[is_held_out(digits)]}
    return np.stack(list(found.values())[: config.eval_examples])


class SortDataModule(StepDataModule):
    """Whole steps to train on; every distinct held-out input, or a fixed sample, to evaluate."""

    train: SortTrain

    def __init__(self, config: SortConfig, *, seed: int, batch_size: int) -> None:
        train = SortTrain(config, seed, batch_size)
        super().__init__(train, batch_size * (2 * config.length - 1), config.num_workers)
        self.config = config
        self.digits = DigitTokenizer(config.num_digits)
        self.held_out = held_out_inputs(config)

    def val_dataloader(self) -> DataLoader[Batch]:
        held_out = self.held_out[self.share.of(len(self.held_out))]
        rows = np.array_split(held_out, range(EVAL_BATCH, len(held_out), EVAL_BATCH))
        return DataLoader([to_batch(digits) for digits in rows], batch_size=None)  # type: ignore[arg-type]

    def sample_ids(self, step: int) -> list[int]:
        """Rows counted through all steps: row 2 of step 10 is number 10 * batch_size + 2.

        They are drawn anew for each step, so that only step and row find one again.
        """
        size = self.train.batch_size
        return list(range(step * size, (step + 1) * size)[self.train.share.of(size)])

    def fingerprint(self) -> str:
        return f"sort-{self.config.length}x{self.config.num_digits}"

    def decode(self, token_ids: list[int]) -> str:
        return self.digits.decode(token_ids)

    def questions(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Held-out inputs (n, length), spread over all of them, and their right answers."""
        count = min(count, len(self.held_out))
        chosen = self.held_out[np.linspace(0, len(self.held_out) - 1, count).astype(int)]
        return torch.from_numpy(chosen), torch.from_numpy(np.sort(chosen, axis=1))
