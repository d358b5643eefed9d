"""The process of a trial: train's own command line, and an end when the study's process is gone.

Started as `python -m gpt2lab.sweep.trial <descriptor> <module>`. By the descriptor, a pipe, come
the overrides, which may hold secrets that no list of processes should show; it closes when whoever
holds its other end is dead, however it died.
"""

import fcntl
import json
import os
import runpy
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

SAVING_S = 10.0
"""How long a training may take to save and leave."""


def become(module: str, descriptor: int) -> None:
    """Run the command line of a module, and leave with it."""
    # An earlier process of this trial, whose parent was killed, writes there until it has ended.
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(sys.stdout.fileno(), fcntl.LOCK_EX)
    with os.fdopen(descriptor, closefd=False) as pipe:
        overrides = json.loads(pipe.readline())
    threading.Thread(target=_leave_with_parent, args=(descriptor,), daemon=True).start()
    sys.argv = [module, *overrides]
    sys.orig_argv = [sys.executable, "-m", module, *overrides]  # for the receipt
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _leave_with_parent(descriptor: int) -> NoReturn:
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVING_S)
    os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    become(sys.argv[2], int(sys.argv[1]))
