"""What a trainer asks of any data: whole steps to train on, and something to evaluate."""

import signal
from abc import abstractmethod

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from gpt2lab.batch import Batch
from gpt2lab.data.order import ALL, Share, StepSampler
from gpt2lab.tokenizer import Tokenizer


def leave_signals_to_parent(worker: int) -> None:
    """A signal to all processes ends the step in the parent, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class StepDataset(Dataset[Batch]):
    """Item i is the batch of step i, a pure function of (seed, step)."""

    share: Share = ALL
    """Which rows of each step are made here; the other ranks make the rest."""


class StepDataModule(LightningDataModule):
    """Training items are whole optimizer steps, each a pure function of (seed, step).

    Args:
        train: item i is the batch of step i.
        tokens_per_step: positions of a whole step, for speed and totals.
        num_workers: loader processes; 0 makes batches in this one.
    """

    has_answers = True
    """Whether evaluation asks questions, for `val/exact_match`; else it reads running text, for
    `val/bits_per_byte`, and the module has `val_bytes_per_token` and `prompts`."""
    tokenizer: Tokenizer | None = None
    """What ids stand for; None where they are what they are."""

    def __init__(self, train: StepDataset, tokens_per_step: int, num_workers: int) -> None:
        super().__init__()
        self.train = train
        self.tokens_per_step = tokens_per_step
        self.num_workers = num_workers
        self.start_step = 0
        """The first step to train on, set when a run goes on."""

    @property
    def share(self) -> Share:
        """What this rank sees of every step and of every evaluation: a run of rows of its own."""
        trainer = self.trainer
        return ALL if trainer is None else Share(trainer.global_rank, trainer.world_size)

    def train_dataloader(self) -> DataLoader[Batch]:
        self.train.share = self.share
        return DataLoader(
            self.train,
            batch_size=None,
            sampler=StepSampler(self.start_step),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=torch.cuda.is_available(),
        )

    @abstractmethod
    def val_dataloader(self) -> DataLoader[Batch]:
        """This rank's share of what is evaluated: at least one batch, if need be without a row,
        for a rank without any would not wait for the others' sums."""

    @abstractmethod
    def sample_ids(self, step: int) -> list[int] | list[list[int]]:
        """What each row of `train[step]` is to be found by again, in the rows' order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Names the examples: two runs with equal fingerprints see the same data."""

    @abstractmethod
    def decode(self, token_ids: list[int]) -> str: ...
