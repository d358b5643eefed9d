"""A text longer than a model's context, cut into windows that score every token once.

With a context of 4 and a stride of 2, eight tokens 0 .. 7 make three windows. The model reads the
first four tokens, then four that begin two further on, and so on; each window counts what no
window before it has counted:

    reads  0 1 2 3    counts  1 2 3 4
    reads  2 3 4 5    counts      5 6
    reads  4 5 6      counts        7
"""

from collections.abc import Iterator

import numpy as np

from gpt2lab.evaluation.items import Ids, Item


def windows(stream: Ids, context: int, stride: int) -> Iterator[Item]:
    """Items that score each token of a stream once, but for the first, which nothing precedes.

    A start token put before a text makes its own first token the second of the stream. The items
    share the stream's memory.

    Args:
        context: tokens that the model reads at most.
        stride: tokens by which windows move on, 1 <= stride <= context; at `context` windows do not
            overlap and each token is read once.
    """
    assert 1 <= stride <= context
    begin, counted = 0, 1
    while counted < len(stream):
        end = min(begin + context, len(stream) - 1)  # of what is read
        yield Item(stream[begin:counted], [stream[counted : end + 1]])
        begin, counted = begin + stride, end + 1


def started(ids: Ids, start: int | None) -> Ids:
    """The stream of a text, behind a start token if there is one."""
    return ids if start is None else np.concatenate([np.array([start], ids.dtype), ids])
