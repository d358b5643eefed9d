"""This process as one rank of several that torchrun or SLURM has started.

Before there is a process group, the ranks speak through a store: torchrun's own, or one that the
first rank holds. By it they agree on their settings and hear where the run is; and whichever rank
fails first says so there, so that it alone speaks, and the others leave.
"""

import atexit
import hashlib
import json
import logging
import multiprocessing
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from gpt2lab.config.changes import leaves
from gpt2lab.errors import ConfigError, RunError
from gpt2lab.exit import FAULT, code_of, exit_code
from gpt2lab.launch import rank
from gpt2lab.launch.devices import divide_threads
from gpt2lab.launch.family import SURVIVAL_S
from gpt2lab.launch.rank import part_from_others
from gpt2lab.launch.started import Started, started
from gpt2lab.signals import raised

MEETING_S = 300.0
"""How long a rank may take to come: to be started on its node, and to load torch."""
PARTING_S = 5.0
"""How long the rank that holds the store waits for the others to have read it."""
ALONE_S = 8.0
"""How long a rank goes on without the store, which may only have closed before it."""


def one_of_several(place: Started, action: Callable[[], int]) -> int:
    """The exit code of this rank; one line for all of them if they fail.

    Raises:
        SystemExit: silent, where another rank has failed first.
    """
    if place.rank > 0:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (until the process ends)
        warnings.simplefilter("ignore")
        logging.disable()

    def speaks(code: int) -> bool:
        try:
            this = _connected(place)
        except (OSError, RunError):  # nobody can know: the first rank, which holds the store, fell
            return place.rank < 2
        if not this.fails(code):
            this.part()
            sys.exit(this.heard_end())
        atexit.register(this.part)
        return True

    return exit_code(action, where=f"rank {place.rank}: ", speaks=speaks)


def member() -> "Member | None":
    """This rank, in touch with the others; None for a process that was started alone."""
    place = started()
    return None if place is None else _connected(place)


_member: "Member | RunError | None" = None


def _connected(place: Started) -> "Member":
    global _member
    if _member is None:
        try:
            _member = Member(place)
        except RunError as error:
            _member = error
    if isinstance(_member, RunError):
        raise _member
    return _member


def announce(code: int) -> None:
    """Tell other ranks, if others have started them, that this one leaves now and for all."""
    if isinstance(_member, Member) and _member.fails(code):
        _member.part()


def pass_on(number: int) -> None:
    """Tell the first rank of a signal that has come to this one, whoever has started them."""
    if isinstance(_member, Member):
        _member.pass_on(number)
    else:
        rank.pass_on(number)


def hear_by(hear: Callable[[int], None]) -> None:
    """What the first rank does about a signal that another one has got."""
    if isinstance(_member, Member):
        _member.hear_signal = hear


class Member:
    """A rank among others; as a context, while it trains.

    Raises:
        RunError: if the first rank cannot be reached.
    """

    def __init__(self, place: Started) -> None:
        self.place = place
        self.is_first = place.rank == 0
        self._holds_store = False
        self._store = self._connect()
        self._trainings = 0
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
            self._leave_torchruns_store()
        self._is_over = threading.Event()
        self._has_failed: bool | None = None
        self._has_parted = False
        self.hear_signal: Callable[[int], None] | None = None

    def _connect(self) -> Any:
        from torch.distributed import DistNetworkError, PrefixStore, TCPStore

        if self.place.by == "srun":
            _speak_as_torchrun(self.place)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        is_torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._holds_store = self.is_first and not is_torchruns
        if not self._holds_store:
            _reach(address, port)
        try:
            store = TCPStore(
                address,
                port,
                is_master=self._holds_store,
                timeout=timedelta(seconds=MEETING_S),
                wait_for_workers=False,
                multi_tenant=True,  # the process group's store comes to the same port
            )
        except DistNetworkError as error:
            if not self._holds_store:
                raise
            raise RunError(
                f"MASTER_PORT: {port} cannot be listened at ({str(error).partition('. ')[0]}); "
                "another program has it, set another port for all ranks"
            ) from error
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return PrefixStore(f"gpt2lab/{attempt}", store)

    def _leave_torchruns_store(self) -> None:
        """The process group's addresses of before a restart still stand in torchrun's store, where
        gloo would wait for them for ever (torch 2.13): a new store, which the first rank holds."""
        from torch.distributed import TCPStore

        if self.is_first:
            self._server = TCPStore(
                os.environ["MASTER_ADDR"],
                0,  # a free port
                is_master=True,
                wait_for_workers=False,
                multi_tenant=True,
            )
            self._tell("port", self._server.port)
        os.environ["MASTER_PORT"] = str(self._hear("port"))
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"

    def __enter__(self) -> "Member":
        self._trainings += 1
        self._is_over.clear()
        self._has_parted = False
        _share_cores(self.place)
        threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, (Exception, KeyboardInterrupt)):
            with suppress(RuntimeError):
                self.fails(code_of(raised() or error))
        if error is None:
            part_from_others()
            with suppress(RuntimeError):
                # Whoever started them may end all when one has left by a signal's exit code: not
                # before the first one's checkpoint is whole.
                self._tell("over", None) if self.is_first else self._hear("over")
        self._is_over.set()
        self.part()

    def agree(self, settings: dict[str, Any]) -> None:
        """Returns when all ranks have come, with the settings of the first.

        Raises:
            ConfigError: on a rank whose settings differ, naming them.
            RunError: on the first, if some do not come.
        """
        ours = dict(_digests(settings))
        if self.is_first:
            self._tell("settings", ours)
            deadline = time.monotonic() + MEETING_S
            self._until(lambda: self._have_come(deadline))
            return
        theirs = self._hear("settings")
        different = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
        if different:
            raise ConfigError(
                *(
                    f"{key}: is not what it is on rank 0; give every rank the same settings"
                    for key in different
                )
            )
        self._store.add(self._key("agreed"), 1)

    def _have_come(self, deadline: float) -> bool:
        """Whether all ranks have agreed."""
        count = 1 + self._store.add(self._key("agreed"), 0)
        if count < self.place.world_size and time.monotonic() > deadline:
            raise RunError(
                f"ranks: {count} of {self.place.world_size} came in {MEETING_S:g} s; see whether "
                "the others were started"
            )
        return count == self.place.world_size

    def tell(self, what: Any) -> None:
        """From the first rank to all others, once a training; plain values."""
        self._tell("place", what)

    def hear(self) -> Any:
        return self._hear("place")

    def pass_on(self, number: int) -> None:
        with suppress(RuntimeError):  # the store may have gone with the first rank
            self._tell("signal", number)

    def fails(self, code: int) -> bool:
        """Whether this rank is the first to leave before the end, by this exit code."""
        if self._has_failed is None:
            mine = json.dumps({"rank": self.place.rank, "code": code})
            self._has_failed = self._store.compare_set("end", "", mine).decode() == mine
        return self._has_failed

    def heard_end(self) -> int:
        """The exit code by which another rank has left first."""
        return json.loads(self._store.get("end"))["code"]

    def part(self) -> None:
        """For the last time before this rank leaves; who holds the store waits for the others."""
        if self._has_parted:
            return
        self._has_parted = True
        with suppress(RuntimeError):  # the store may have gone with the first rank
            key = "gone" if self._store.check(["end"]) else self._key("left")
            if not self.is_first:
                self._store.add(key, 1)
            deadline = time.monotonic() + PARTING_S
            while self._holds_store and self._store.add(key, 0) < self.place.world_size - 1:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)

    def _key(self, name: str) -> str:
        return f"{self._trainings}/{name}"

    def _tell(self, name: str, what: Any) -> None:
        self._store.set(self._key(name), json.dumps(what))

    def _hear(self, name: str) -> Any:
        self._until(lambda: self._store.check([self._key(name)]))
        return json.loads(self._store.get(self._key(name)))

    def _until(self, condition: Callable[[], bool]) -> None:
        """Wait, in steps that let a signal through."""
        while not condition():
            if self._store.check(["end"]):
                sys.exit(self.heard_end())
            time.sleep(0.05)

    def _watch(self, parent: int) -> None:
        """Leave when another rank has failed, or whoever has started this one is gone."""
        lost_at: float | None = None
        while not self._is_over.wait(0.5):
            if os.getppid() != parent:
                os._exit(FAULT)
            try:
                has_ended = self._has_failed is None and self._store.check(["end"])
                if self.hear_signal and self._store.check([self._key("signal")]):
                    self.hear_signal(self._hear("signal"))
                    self.hear_signal = None
            except RuntimeError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > ALONE_S:
                    self._leave(FAULT)
                continue
            if has_ended:
                code = self.heard_end()
                # A rank may have something to close; after a signal the first has saved for all.
                if code <= 128 and self._is_over.wait(SURVIVAL_S):
                    return
                self.part()
                self._leave(code)

    def _leave(self, code: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()  # loader workers leave signals to their parent
        os._exit(code)


def _digests(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each setting, without its value, which may be a secret."""
    for key, value in leaves(settings):
        yield key, hashlib.sha256(repr(value).encode()).hexdigest()


def _share_cores(place: Started) -> None:
    """A task of srun's may be bound to its own cores, which are not to be divided once more."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "") if place.by == "srun" else ""
    if given.isdigit():
        os.environ.setdefault("OMP_NUM_THREADS", given)
    divide_threads(place.devices)


def _reach(address: str, port: int) -> None:
    """Wait until somebody listens there: torch itself would let no signal through meanwhile."""
    deadline = time.monotonic() + MEETING_S
    while True:
        try:
            socket.create_connection((address, port), timeout=1.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(
                    f"rank 0: cannot be reached at {address}:{port} ({error}); see whether it was "
                    "started, and whether MASTER_ADDR and MASTER_PORT lead to it"
                ) from error
            time.sleep(0.1)


def _speak_as_torchrun(place: Started) -> None:
    """SLURM's words in those of torchrun, which torch and Lightning read."""
    from lightning.fabric.plugins.environments import SLURMEnvironment

    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
    os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    # As Lightning chooses it: the same on all nodes, another one for each job.
    os.environ.setdefault("MASTER_PORT", str(15000 + int(os.environ["SLURM_JOB_ID"][-4:])))
    os.environ |= {
        "RANK": str(place.rank),
        "LOCAL_RANK": str(place.local_rank),
        "GROUP_RANK": str(place.node),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_WORLD_SIZE": str(place.devices),
    }
