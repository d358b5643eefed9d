"""What every row of the table stands on: processes, folders, runs to compare with, a count."""

import os
import random
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tests.faults.server import Finished, Process, Server

FAST = [
    "model=nano",
    "stop_at=null",
    "eval_every=3",
    "checkpoint_every=2",
    "max_steps=24",
    "precision=fp32",
    "model.dropout=0.1",
    "callbacks.curves=null",
    "callbacks.progress=null",
]
"""A run of a fraction of a second with dropout, evaluations, samples and many saves."""

SORT = [*FAST, "data=sort", "batch_size=8", "data.eval_examples=64", "trainer.log_every_n_steps=1"]

# The last record covers steps before and after a save, so that sums in the making count too.
TEXT = [*FAST, "data=text", "data.tokenizer=char", "batch_size=4", "model.block_size=16"]
TEXT += ["trainer.log_every_n_steps=5", "+callbacks.samples.new_tokens=4"]

VERSES = "".join(
    f"{n} bottles hang on the wall, and if one of them should fall: {n - 1}.\n"
    for n in range(12, 0, -1)
)
"""A corpus of some 50 windows of 16 characters: 24 steps of 4 go over two epochs' ends."""


@dataclass
class Row:
    """One fault of the table, and the function that injects it in many cases."""

    title: str
    function: Callable[["Lab"], None]
    needs: tuple[str, ...]


ROWS: list[Row] = []


def row(title: str, *needs: str) -> Callable[[Callable[["Lab"], None]], Callable[["Lab"], None]]:
    """Put a function into the table.

    Args:
        needs: what the machine must have, by the names of `missing`.
    """

    def add(function: Callable[["Lab"], None]) -> Callable[["Lab"], None]:
        ROWS.append(Row(title, function, needs))
        return function

    return add


@cache
def missing(need: str) -> str | None:
    """Why this machine lacks a means; None where it has it."""
    if need == "two cores":
        found = len(os.sched_getaffinity(0))
        return None if found > 1 else f"{need}: {found} found"
    trials = {
        # -p, for whoever may start a tracee need not be allowed to attach to one
        "strace": ["sh", "-c", "sleep 0.2 & exec strace -o /dev/null -p $!"],
        "mounts": ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
        "network namespaces": ["unshare", "-n", "true"],
    }
    try:
        done = subprocess.run(trials[need], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{need}: {error}"
    if done.returncode:
        return f"{need}: {(done.stderr.strip().splitlines() or ['not permitted'])[-1]}"
    return None


def shortened(text: str) -> str:
    """The begin and the end, where a failure says what it is."""
    return text if len(text) < 900 else f"{text[:300]} ... {text[-600:]}"


@dataclass
class Outcome:
    """What a row came to."""

    row: Row
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        return self.tried - len(self.failures)


class Lab:
    """One row's view of the machine.

    Args:
        is_share: fewer of the cases that are many, for continuous integration.
    """

    def __init__(self, *, is_share: bool = False) -> None:
        self.is_share = is_share
        self.folder = Path(tempfile.mkdtemp(prefix="gpt2lab-faults-"))
        self.outcome: Outcome
        self.number = 0
        self.straight_runs: dict[tuple[str, ...], Path] = {}

    @cached_property
    def server(self) -> Server:
        return Server(["unshare", "-m"] if missing("mounts") is None else [])

    def close(self) -> None:
        if "server" in vars(self):
            self.server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def try_out(self, row: Row) -> Outcome:
        """Inject a row's fault in all its cases."""
        self.outcome = Outcome(row)
        self.random = random.Random(row.title)
        began = time.monotonic()
        reasons = [reason for need in row.needs if (reason := missing(need))]
        if reasons:
            self.outcome.skipped = reasons[0]
        else:
            with self.case("the row itself", counts=False):
                row.function(self)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    @contextmanager
    def case(self, what: str, *, counts: bool = True) -> Iterator[None]:
        """One injection; what fails within is told, and the next one goes on."""
        self.outcome.tried += counts
        try:
            yield
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[1:] or [None]
            place = " <- ".join(
                f"{Path(f.filename).name}:{f.lineno} {f.line}" for f in reversed(where) if f
            )
            self.outcome.tried += not counts
            told = shortened(" ".join(str(error).split()))
            self.outcome.failures.append(f"{what}: {type(error).__name__} {told} at {place}")

    def part(self, cases: Sequence[Any], every: int) -> Sequence[Any]:
        """All cases; of a share, one in so many."""
        return cases[::every] if self.is_share else cases

    def note(self, text: str) -> None:
        """A line beneath the table."""
        self.outcome.notes.append(text)

    def fresh(self) -> Path:
        """A new empty folder to work in."""
        self.number += 1
        folder = self.folder / f"{self.number:05d}"
        folder.mkdir()
        return folder

    def begin(self, cwd: Path, *overrides: str, **how: Any) -> Process:
        """A training that runs while the case goes on."""
        return self.server.fork(cwd, overrides, **how)

    def train(self, cwd: Path, *overrides: str, timeout_s: float = 60, **how: Any) -> Finished:
        return self.begin(cwd, *overrides, **how).wait(timeout_s)

    def straight(self, settings: Sequence[str]) -> Path:
        """The folder of a run `a` by these settings that nothing disturbed; made once."""
        key = tuple(settings)
        if key not in self.straight_runs:
            cwd = self.fresh()
            done = self.train(cwd, *settings, "name=a")
            assert done.code == 0, done.err
            self.straight_runs[key] = cwd / "runs" / "a"
        return self.straight_runs[key]

    def copy_of(self, run: Path) -> Path:
        """A new folder to work in that holds a copy of a run under `runs/`."""
        cwd = self.fresh()
        shutil.copytree(run, cwd / "runs" / run.name)
        return cwd

    @cached_property
    def text(self) -> list[str]:
        """Settings of a run on a small corpus, which is prepared once."""
        folder = self.folder / "verses"
        folder.mkdir()
        (folder / "verses.txt").write_text(VERSES)
        return [*TEXT, f"data.path={folder / 'verses.txt'}", f"data_dir={folder / 'prepared'}"]

    @property
    def tokens(self) -> Path:
        """The prepared corpus of `text`."""
        self.straight(self.text)
        (folder,) = (self.folder / "verses" / "prepared").glob("verses-*")
        return folder


def refused(done: Finished, *words: str) -> None:
    """Bad input as it must be met: exit code 2, `error:` lines that hold the words, no more."""
    assert done.code == 2, f"exit code {done.code}: {done.err[-1000:]}"
    assert done.last_line.startswith("error: "), f"last line {done.last_line!r}"
    assert "Traceback" not in done.err, done.err
    for word in words:
        assert word in done.err, f"{word!r} is not in {done.err!r}"


def nothing_written(cwd: Path) -> None:
    """Only what the server itself keeps: the two files of each process's output."""
    found = [p.name for p in cwd.iterdir() if p.suffix not in (".out", ".err")]
    assert not found, f"written: {found}"
