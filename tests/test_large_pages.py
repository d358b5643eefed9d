"""Large tensors lie in large pages once they are asked for, where Linux has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import sys
from pathlib import Path

import torch

from gpt2lab.large_pages import use_large_pages

if sys.argv[1] == "large":
    use_large_pages()
numbers = torch.ones(2**24)
rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(*(row.split()[1] for row in rows if row.startswith("AnonHugePages")))
"""


def kilobytes_in_large_pages(pages: str) -> int:
    command = [sys.executable, "-c", PROGRAM, pages]
    # without what a test that samples in this process has set
    environment = {key: text for key, text in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.skipif(
    not ENABLED.exists() or "[madvise]" not in ENABLED.read_text(),
    reason="this system gives all large pages, or none",
)
def test_tensors_lie_in_large_pages_once_they_are_asked_for():
    size = 2**24 * 4 // 1024
    assert kilobytes_in_large_pages("small") < size / 8
    assert kilobytes_in_large_pages("large") > size / 2
