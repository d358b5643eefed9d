"""Memory that a step frees stays with the process, for the next step to use again.

Every step on a CPU makes and frees the same large tensors. The C library gives each back to the
system at once, and Linux clears every page anew when it is touched again: a tenth of a step of
GPT-2 small in bf16. Kept, it is not always where the next tensor fits: 0 to 6 % more memory.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from gpt2lab.signals import leaving_at_once

# man mallopt: the names, and what they are without us but for the sizes, which adapt themselves.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL_MMAP_MAX = 65536
LARGEST_TRIM_THRESHOLD = 2**31 - 1
LARGEST_MMAP_THRESHOLD = 2**25


@contextmanager
def freed_memory_is_kept() -> Iterator[None]:
    """Within it so; afterwards, what is free goes back. Where the library is not glibc, nothing."""
    libc = glibc()
    if libc is None:
        yield
        return
    libc.mallopt(MMAP_MAX, 0)  # of memory mapped for one tensor, nothing can be kept
    libc.mallopt(TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, USUAL_MMAP_MAX)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)
        give_back()


@contextmanager
def importing() -> Iterator[None]:
    """For large libraries. No garbage is collected meanwhile: a sixth of the time that they take to
    load would go into looking for it. A signal is heeded as in `leaving_at_once`.

    What they have made stays: neither a step nor the end of the program looks through it again,
    which takes a second there. The first time alone: later there may be a model, which goes.
    """
    was_enabled, is_first = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        with leaving_at_once():
            yield
    finally:
        if is_first:
            gc.freeze()
        if was_enabled:
            gc.enable()


def give_back() -> None:
    """Let the system have what is free now: after something large that does not come every step."""
    libc = glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
