"""Batches of text into ids, in this process or in several, always in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.data.prepare.batches import TRAIN, VAL, TextBatch, is_val
from gpt2lab.tokenizer import Tokenizer, from_plain

FEW_BATCHES = 8
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
BATCHES_AHEAD = 2  # more than there are processes, so that none waits for the next one


@dataclass
class Part:
    """What a batch adds to one split."""

    ids: bytes = b""
    tokens: int = 0
    documents: int = 0
    bytes: int = 0


Results = Generator[tuple[TextBatch, dict[str, Part]], None, None]


@dataclass(frozen=True)
class Encoder:
    """Turns batches into the bytes of token files.

    Args:
        dtype: <u2 or <u4.
        end: id that ends a document; None writes none.
    """

    tokenizer: Tokenizer
    dtype: str
    end: int | None
    val_share: float
    _end: NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        end = [] if self.end is None else [self.end]
        object.__setattr__(self, "_end", np.array(end, np.uint32))

    def __call__(self, batch: TextBatch) -> dict[str, Part]:
        ids: dict[str, list[NDArray[np.uint32]]] = {TRAIN: [], VAL: []}
        parts = {TRAIN: Part(), VAL: Part()}
        encode = self.tokenizer.encode_array
        for text in batch.texts:
            data = text.encode()
            split = batch.split or (VAL if is_val(data, self.val_share) else TRAIN)
            ids[split].append(encode(text))
            if batch.ends:
                ids[split].append(self._end)
                parts[split].documents += 1
            parts[split].bytes += len(data)
        for split, part in parts.items():
            if ids[split]:
                joined = np.concatenate(ids[split], dtype=self.dtype, casting="same_kind")
                part.tokens = len(joined)
                part.ids = joined.tobytes()
        return parts


def encoded(batches: Iterable[TextBatch], encoder: Encoder, num_processes: int | None) -> Results:
    """Each batch (its texts left out) with what it adds.

    At most num_processes + BATCHES_AHEAD batches are held at once, whatever there is to read.
    """
    batches = iter(batches)
    processes = num_processes or available_processors()
    first = list(islice(batches, FEW_BATCHES))
    batches = chain(first, batches)
    # Starting processes takes longer than so few batches do.
    if processes == 1 or len(first) < FEW_BATCHES:
        for batch in batches:
            yield batch, encoder(batch)
        return
    yield from _in_processes(batches, encoder, processes)


def available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not a Linux
        return os.cpu_count() or 1


def _in_processes(batches: Iterable[TextBatch], encoder: Encoder, processes: int) -> Results:
    plain = (encoder.tokenizer.plain(), encoder.dtype, encoder.end, encoder.val_share)
    pool = ProcessPoolExecutor(
        processes,
        # spawned: a fork copies locks that threads of this process may hold
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=plain,
    )
    waiting: deque[tuple[TextBatch, Future[dict[str, Part]]]] = deque()
    resource_tracker.ensure_running()  # which lets signals through again when it begins
    try:
        for batch in batches:
            without = TextBatch([], batch.split, batch.ends, batch.position)
            with _signals_blocked():  # submitting starts a process now and then
                waiting.append((without, pool.submit(_encode, batch)))
            if len(waiting) >= processes + BATCHES_AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """In a process started meanwhile for good: Ctrl-C reaches all, and the parent ends the rest."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_encoder: Encoder | None = None  # of a worker process


def _begin(plain: dict[str, Any], dtype: str, end: int | None, val_share: float) -> None:
    global _encoder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _encoder = Encoder(from_plain(plain), dtype, end, val_share)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, which would wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(batch: TextBatch) -> dict[str, Part]:
    assert _encoder is not None
    return _encoder(batch)
