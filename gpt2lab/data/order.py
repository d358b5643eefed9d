"""Which samples a step sees: a pure function of (seed, step).

Nothing here has a state, so workers, ranks, accumulation and resumes cannot change the order.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# Streams of random numbers that must not meet: one a purpose.
TRAIN, EVALUATION = 0, 1


def step_rng(seed: int, step: int, stream: int = TRAIN) -> np.random.Generator:
    """A generator of its own for each (seed, step, stream), the same on every machine.

    Philox is a counter-based generator (Salmon et al. 2011): its key is (seed, stream), and each
    step starts at a counter of its own, 2**128 numbers away from the next.
    """
    counter = np.array([0, 0, step, 0], dtype=np.uint64)
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class StepSampler(Sampler[int]):
    """The steps from `start` on, without an end: training stops by itself."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        step = self.start
        while True:
            yield step
            step += 1
