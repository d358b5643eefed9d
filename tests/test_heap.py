"""What is freed within `freed_memory_is_kept` is used again, not asked of the system anew."""

import gc
import os
import resource
import subprocess
import sys
import weakref

import pytest

from gpt2lab.heap import glibc, importing

PROGRAM = """
import resource, sys
from contextlib import nullcontext

import torch

from gpt2lab.heap import freed_memory_is_kept


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()


before = resident()
with freed_memory_is_kept() if sys.argv[1] == "kept" else nullcontext():
    torch.ones(2**25)
    mark = faults()
    torch.ones(2**24)
    print(faults() - mark)
print((resident() - before) // 2**20)
"""


def faults_and_mebibytes_left(way: str) -> tuple[int, int]:
    """Pages asked for by a tensor of 64 MiB after one of 128; what stays when both are gone."""
    command = [sys.executable, "-c", PROGRAM, way]
    # without what a test that samples in this process has set
    environment = {key: text for key, text in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    faults, left = map(int, done.stdout.split())
    return faults, left


@pytest.mark.skipif(glibc() is None, reason="another C library than glibc")
def test_freed_memory_is_used_again_and_goes_back_in_the_end():
    pages = 2**26 // resource.getpagesize()
    faults, left = faults_and_mebibytes_left("kept")
    assert faults < pages / 100
    assert left < 32
    assert faults_and_mebibytes_left("usual")[0] >= pages


def test_while_libraries_load_nothing_is_collected_and_afterwards_as_before():
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


AT_THE_END = """
import gc, os, sys
from gpt2lab.heap import importing

class Connection:
    def __init__(self):
        self.itself = self

    def __del__(self, say=os.write):
        say(1, b" closed")

with importing():
    import torch
frozen = gc.get_freeze_count()
with importing():
    import torch.utils
print(frozen > 10**5, gc.get_freeze_count() == frozen, end="", flush=True)
connection = Connection()
"""


def test_what_libraries_made_is_looked_through_no_more_and_what_a_program_makes_is():
    """At its end too: a database that nobody has closed is closed then."""
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True closed", "")


def test_what_was_there_while_libraries_were_loaded_is_collected_all_the_same():
    class Cycle:
        def __init__(self):
            self.itself = self

    cycle = Cycle()
    gone = weakref.ref(cycle)
    with importing():
        del cycle
    gc.collect()
    assert gone() is None
