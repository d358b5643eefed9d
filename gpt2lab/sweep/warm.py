"""A process that has imported what trials import, and forks one off for each of them.

Importing torch and Lightning takes longer than many a small training. Nothing but imports happens
here, so that a trial finds what a process of its own would find, without the seconds. On Linux and
on CPUs alone: elsewhere libraries do not survive a fork.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

from gpt2lab.heap import importing
from gpt2lab.signals import ASKED
from gpt2lab.sweep import trial
from gpt2lab.sweep.process import UNKNOWN, Process, Start, spawn

if TYPE_CHECKING:
    from gpt2lab.sweep.study import Study

LONGEST = 2**16
"""Bytes of a message."""
ANSWER_S = 120.0
"""How long a trial may take to begin, the imports before the first included."""
LOOK_S = 0.02
"""How often it is seen whether a trial has ended."""


@contextmanager
def starting(study: "Study") -> Iterator[Callable[[Start], Process]]:
    """What begins a study's trials: by forks, where those can be, of a process that imports from
    now on."""
    environment = study.slots[0].environment
    on_cpu = "CUDA_VISIBLE_DEVICES" not in environment
    if sys.platform == "linux" and on_cpu and study.settings.devices == 1:
        with closing(Warm(environment)) as warm:
            yield warm.start
    else:
        yield spawn


class Warm:
    """The other end of that process, which is started at once, to import meanwhile.

    Args:
        environment: variables besides ours that are read while importing, such as OMP_NUM_THREADS.
        imports: the module whose import takes long.
    """

    def __init__(self, environment: Mapping[str, str], imports: str = "gpt2lab.experiment") -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._codes: dict[int, int] = {}
        self._at_work: dict[int, int] = {}
        """Of each trial, a descriptor that can be read once it has ended."""
        self._is_gone = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gpt2lab.sweep.warm", str(theirs.fileno()), imports],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            process_group=0,
            env={**os.environ, **environment},
        )
        theirs.close()

    def start(self, start: Start) -> Process:
        """A trial's process; one from its first import on, if the warm one is gone."""

        def begin(reading: int, file: BinaryIO) -> tuple[int, Callable[[], int | None]]:
            told = json.dumps({"module": start.module, "environment": dict(start.environment)})
            socket.send_fds(self._ours, [told.encode()], [reading, file.fileno()])
            pid = self._begun()
            self._at_work[pid] = os.pidfd_open(pid)
            return pid, lambda: self._code(pid)

        if not self._is_gone:
            try:
                return Process(start, begin)
            except OSError:
                self._is_gone = True
                self._process.kill()
        return spawn(start)

    def close(self) -> None:
        self._ours.close()
        self._process.kill()  # it may be importing still
        self._process.wait()

    def _begun(self) -> int:
        """The id of the trial that was asked for.

        Raises:
            OSError: if there is no answer.
        """
        deadline = time.monotonic() + ANSWER_S
        while select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if (pid := self._hear()) is not None:
                return pid
            if self._is_gone:
                raise BrokenPipeError
        raise TimeoutError

    def _hear(self) -> int | None:
        """The id of a trial that has begun; of those that have ended, the code is kept."""
        told = self._ours.recv(LONGEST)
        if not told:
            self._is_gone = True
            return None
        message = json.loads(told)
        if "code" in message:
            self._note_end(message["pid"], message["code"])
            return None
        pid: int = message["pid"]
        return pid

    def _code(self, pid: int) -> int | None:
        """Its trials go on without the warm process, but nobody is told how they end."""
        while pid in self._at_work:
            telling = self._at_work[pid] if self._is_gone else self._ours
            if not select.select([telling], [], [], 0)[0]:
                return None
            if self._is_gone:
                self._note_end(pid, UNKNOWN)
            else:
                self._hear()
        return self._codes[pid]

    def _note_end(self, pid: int, code: int) -> None:
        self._codes[pid] = code
        os.close(self._at_work.pop(pid))


def main() -> None:
    """Fork until the study's process is gone."""
    # SLURM and systemd signal every process; the study passes on what is meant for its trials.
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    link = socket.socket(fileno=int(sys.argv[1]))
    with importing():
        import_module(sys.argv[2])
    gc.collect()
    gc.freeze()  # else the first collection of each trial would copy all of it
    children: set[int] = set()
    while True:
        _tell_ends(link, children)
        if not select.select([link], [], [], LOOK_S)[0]:
            continue
        told, descriptors, _, _ = socket.recv_fds(link, LONGEST, 2)
        if not told:
            return
        if (pid := os.fork()) == 0:
            link.close()
            _become_trial(json.loads(told), *descriptors)
            return
        with suppress(PermissionError, ProcessLookupError):  # it has done so itself
            os.setpgid(pid, pid)
        children.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        link.send(json.dumps({"pid": pid}).encode())


def _tell_ends(link: socket.socket, children: set[int]) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(child)
            told = {"pid": child, "code": os.waitstatus_to_exitcode(status)}
            with suppress(BrokenPipeError):
                link.send(json.dumps(told).encode())


def _become_trial(told: dict[str, Any], reading: int, output: int) -> None:
    """What `spawn` gives a process: a group, an output and an environment of its own."""
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.update(told["environment"])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    trial.become(told["module"], reading)


if __name__ == "__main__":
    main()
