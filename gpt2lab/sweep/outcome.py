"""What has become of a trial whose process has ended."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab import run_folder
from gpt2lab.errors import one_line
from gpt2lab.sweep import goals
from gpt2lab.sweep.trials import State

KILLED = -signal.SIGKILL
LONGEST_REASON = 500
_KILLED = "; the system's log tells of a lack of memory, if that was it"


@dataclass(frozen=True)
class Outcome:
    """
    Args:
        values: of each goal, if it is complete.
        reason: why it failed.
    """

    state: State
    values: tuple[float, ...] = ()
    reason: str | None = None
    steps: int | None = None


def finished(folder: Path, wanted: Sequence[str], stop_at: str | None) -> Outcome | None:
    """Of a run that came to its own end, whoever has started it; None if it has not.

    Args:
        wanted: the goals.
        stop_at: the target of the run.
    """
    if not run_folder.is_finished(folder):
        return None
    summary: dict[str, Any] = run_folder.read_json(folder / run_folder.SUMMARY)
    steps = summary.get("steps")
    try:
        values = goals.values(wanted, summary, stop_at)
    except ValueError as error:
        return Outcome(State.failed, reason=str(error), steps=steps)
    return Outcome(State.complete, values, steps=steps)


def failed(code: int, output: str, folder: Path) -> Outcome:
    """Of a process that has ended before its run has.

    Args:
        output: what it wrote; its last error line is the reason.
    """
    return Outcome(State.failed, reason=_reason(code, output), steps=steps_of(folder))


def steps_of(folder: Path) -> int | None:
    """The steps that a run had made when it last said so."""
    return run_folder.read_json(folder / run_folder.SUMMARY).get("steps")


def _reason(code: int, output: str) -> str:
    number = -code if code < 0 else code - 128
    if number in set(signal.Signals):
        return f"ended by {signal.Signals(number).name}" + (_KILLED if code == KILLED else "")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    said = errors[-1].removeprefix("error: ") if errors else (lines or ["it said nothing"])[-1]
    if code == 0:
        return "ended without a summary.json"
    return one_line(said)[:LONGEST_REASON]
