"""Memory in pages of 2 MB: a cache of keys and values is read whole for every token."""

import os


def use_large_pages() -> None:
    """Have torch ask Linux for them, from its first large tensor in this process on.

    With pages of 4 KB, looking them up takes 8 % of a decoding step at batch 8, and providing them
    a tenth of the time in which the prompts are read. Training gains nothing: what takes
    its time is that pages are cleared, large or small (heap.py).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
