"""A process that imports torch and lightning once, and forks a training for every case.

Importing takes four seconds, a fork a hundredth of one. The process computes nothing itself, for
a fork of one that has run parallel regions can hang. It lives in a mount namespace of its own
where the machine allows that, so that what a case mounts is gone with it.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = ("gpt2lab.experiment", "gpt2lab.train", "gpt2lab.sample", "matplotlib.pyplot")
TRAIN = "gpt2lab.train:main"


@dataclass
class Finished:
    """How a process ended: its exit code, or minus the signal that killed it."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def last_line(self) -> str:
        return (self.err.strip().splitlines() or [""])[-1]


@dataclass
class Process:
    """A forked command, in a session of its own, its output in files."""

    server: "Server"
    pid: int
    cwd: Path
    began: float = field(default_factory=time.monotonic)

    def wait(self, timeout_s: float = 60) -> Finished:
        """How it ended; whoever does not end in time is killed, and that is an error."""
        descriptor = os.pidfd_open(self.pid)
        try:
            in_time = select.select([descriptor], [], [], timeout_s)[0]
            if not in_time:
                self.signal_all(signal.SIGKILL)
                select.select([descriptor], [], [])
        finally:
            os.close(descriptor)
        seconds = time.monotonic() - self.began
        status = self.server.request(wait=self.pid)["status"]
        out, err = (
            (self.cwd / f"{self.pid}.{name}").read_text("utf-8", "replace")
            for name in ("out", "err")
        )
        if not in_time:
            raise AssertionError(f"still running after {timeout_s:g} s; stderr: {err[-2000:]}")
        return Finished(os.waitstatus_to_exitcode(status), out, err, seconds)

    def until(self, path: Path, timeout_s: float = 30) -> None:
        """Wait for a file by which a hook says how far the process is."""
        end = time.monotonic() + timeout_s
        while not path.exists():
            if time.monotonic() > end or self.state() == "Z":
                raise AssertionError(f"{path.name} never came; stderr: {self.wait(0.1).err}")
            time.sleep(0.002)

    def state(self) -> str:
        """R or S while it is at work, T when stopped, Z when it has ended (man proc)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        """To every process of its session that has not moved to another group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Server:
    """The near end: asks the far end to fork.

    Args:
        prefix: a command that the far end is started by, such as unshare.
    """

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        ours, theirs = socket.socketpair()
        self.stream = ours.makefile("rw")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.faults.server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        ours.close()

    def request(self, **content: Any) -> dict[str, Any]:
        self.stream.write(json.dumps(content) + "\n")
        self.stream.flush()
        answer = self.stream.readline()
        if not answer:
            raise RuntimeError("the fork server has ended")
        return json.loads(answer)

    def fork(
        self,
        cwd: Path,
        arguments: Sequence[str] = (),
        *,
        call: str = TRAIN,
        hooks: Sequence[tuple[str, dict[str, Any]]] = (),
        environment: dict[str, str | None] | None = None,
        out: str | None = None,
    ) -> Process:
        """Begin a command in a child.

        Args:
            call: `module:function`, called as a command line's main with `arguments`.
            hooks: functions of tests.faults.hooks with their arguments, called before it.
            environment: variables that are set, or taken away where None.
            out: a file for stdout and stderr in place of those that `Process.wait` reads.
        """
        answer = self.request(
            cwd=str(cwd),
            arguments=list(arguments),
            call=call,
            hooks=list(hooks),
            environment=environment or {},
            out=out,
        )
        return Process(self, answer["pid"], cwd)

    def seen_from_outside(self, path: Path) -> Path:
        """A path as the children see it, who may have mounted something there."""
        return Path(f"/proc/{self.process.pid}/root{path}")

    def close(self) -> None:
        self.stream.close()
        self.process.wait(10)


def listen(stream: Any) -> dict[str, Any] | None:
    """The far end: answers until it is the child of a fork, or the near end has gone."""
    children = set()
    for line in stream:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            children.discard(request["wait"])
            answer = {"status": status}
        else:
            pid = os.fork()
            if pid == 0:
                return request
            children.add(pid)
            answer = {"pid": pid}
        stream.write(json.dumps(answer) + "\n")
        stream.flush()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return None


def become(request: dict[str, Any]) -> None:
    """Make this child look like a command that a shell has just started."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    for name, value in request["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for descriptor, name in ((1, "out"), (2, "err")):
        # the files of `wait` are there in any case
        file = os.open(f"{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if request["out"]:
            file = os.open(request["out"], os.O_WRONLY)
        os.dup2(file, descriptor)
    sys.argv = ["gpt2lab", *request["arguments"]]
    sys.orig_argv = [sys.executable, *sys.argv]


def install(hooks: Sequence[tuple[str, dict[str, Any]]]) -> None:
    for name, arguments in hooks:
        resolve(f"tests.faults.hooks:{name}")(**arguments)


def resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
    gc.freeze()
    stream = socket.socket(fileno=int(sys.argv[1])).makefile("rw")
    request = listen(stream)
    if request is None:
        return
    stream.close()
    become(request)
    install(request["hooks"])
    from gpt2lab.command_line import show_errors

    show_errors(resolve(request["call"]))


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a rank, into which multiprocessing imports its parent's program
    install(json.loads(os.environ.get("GPT2LAB_FAULT_HOOKS", "[]")))
