"""A job of a multirun in a process of its own, because it starts ranks.

Those are started by a process that has nothing else to do, in whatever a launcher of Hydra's runs
its jobs: the command itself, a worker of joblib's, a task of SLURM's. What it needs comes through a
pipe, so that no secret stands in a command line; and when the pipe closes, nobody waits for it.
"""

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen
from types import FrameType

from gpt2lab.config import parse, plain
from gpt2lab.config.compose import Composed
from gpt2lab.config.redact import learn, seen
from gpt2lab.errors import RunError
from gpt2lab.exit import FAULT, exit_code
from gpt2lab.heap import importing
from gpt2lab.signals import ASKED, default_signals, raise_signals
from gpt2lab.terminal import tell


def fit_in_process(composed: Composed) -> int:
    """The exit code of a training, which has said what it had to.

    Raises:
        RunError: if its process was killed.
    """
    with _forwarding() as forward:
        # Its own group: what is sent to all of a terminal's processes comes from here.
        process = Popen([sys.executable, "-m", __name__], stdin=PIPE, process_group=0)
        assert process.stdin is not None
        forward.to(process)
        with suppress(BrokenPipeError):
            facts = {
                "settings": plain(composed.settings),
                "printable": composed.printable,
                "argv": sys.argv,
                "command": sys.orig_argv,
                "secrets": list(seen()),
            }
            process.stdin.write(json.dumps(facts).encode() + b"\n")
            process.stdin.flush()
        code = process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()
    if code < 0:
        raise RunError(
            f"its process was ended by {signal.Signals(-code).name}; "
            "see the system's log for a lack of memory"
        )
    return code


class Forward:
    """Signals for another process: those that come before it is there, too."""

    def __init__(self) -> None:
        self._process: Popen[bytes] | None = None
        self._came: SimpleQueue[int] = SimpleQueue()

    def note(self, number: int, frame: FrameType | None) -> None:
        self._came.put(number)
        self._send()

    def to(self, process: Popen[bytes]) -> None:
        self._process = process
        self._send()

    def _send(self) -> None:
        with suppress(Empty):
            while self._process is not None:
                self._process.send_signal(self._came.get_nowait())


@contextmanager
def _forwarding() -> Iterator[Forward]:
    """While open, signals are the other process's; but for a thread, which gets none."""
    forward = Forward()
    if threading.current_thread() is not threading.main_thread():
        yield forward
        return
    handlers = {number: signal.signal(number, forward.note) for number in ASKED}
    try:
        yield forward
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def main() -> int:
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return FAULT  # whoever has started this was killed before it had said what is to be done
    facts = json.loads(line)
    sys.argv, sys.orig_argv = facts["argv"], facts["command"]
    learn(set(facts["secrets"]))
    threading.Thread(target=_stop_without_parent, daemon=True).start()

    def train() -> int:
        with importing():
            from gpt2lab.experiment import fit_and_show

        return fit_and_show(parse(facts["settings"]), facts["printable"])

    return exit_code(train)


def _stop_without_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not by sys.stdin, which waits for its reader when all ends
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise_signals()
    warnings.showwarning = tell  # type: ignore[assignment]
    code = main()
    default_signals()
    sys.stdout.flush()
    sys.exit(code)
