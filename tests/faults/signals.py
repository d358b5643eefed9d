"""SIGTERM, SIGINT and SIGUSR1, at any moment: the step is finished and saved, the code right."""

import json
import os
import signal
import time
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1

from tests.faults.kills import resume_to_the_end
from tests.faults.lab import SORT, Lab, row
from tests.faults.places import ANSWERS, DATA, FOLDER, SAVE, STEP, SUMMARY, TRAINER, VALIDATION
from tests.faults.same import assert_whole, content, last_checkpoint
from tests.faults.server import Finished

LIMIT_S = 10
"""From a signal to the end of the process."""

PLACES = {STEP: 8, SAVE: 4, VALIDATION: 3}
"""Functions of a run by SORT, and a call of each: steps 8, 8 and 9."""


def step_of(run: Path) -> int:
    return content(last_checkpoint(run))["global_step"]


def assert_stopped(run: Path, done: Finished, number: int, *, has_lock: bool = False) -> None:
    """As a signal should end a training: said so, saved, nothing half done."""
    assert done.code == 128 + number, f"exit code {done.code}: {done.err}"
    assert done.seconds < LIMIT_S, f"took {done.seconds:.1f} s"
    assert "Traceback" not in done.err, done.err
    reason = json.loads((run / "summary.json").read_text())["stop_reason"]
    assert reason == signal.Signals(number).name, f"stop_reason is {reason}"
    assert_whole(run, has_lock=has_lock)


def alive(session: int) -> list[int]:
    """Every process of a session that has not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, its = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):
                continue
            if int(its) == session and state not in "ZX":
                found.append(int(entry.name))
    return found


def assert_no_orphans(session: int, within_s: float = 5) -> None:
    end = time.monotonic() + within_s
    while left := alive(session):
        assert time.monotonic() < end, f"left running: {left}"
        time.sleep(0.05)


@row("SIGTERM, SIGINT, SIGUSR1 at a step, in a save, in validation")
def once(lab: Lab) -> None:
    """The step under way is finished, one checkpoint follows, and the resume is exact."""
    for number in (SIGTERM, SIGINT, SIGUSR1):
        for path, call in PLACES.items():
            with lab.case(f"{number.name} in {path}"):
                cwd = lab.fresh()
                hook = ("signal_in", {"path": path, "number": call, "signals": [number]})
                done = lab.train(cwd, *SORT, "name=a", hooks=[hook])
                assert_stopped(cwd / "runs" / "a", done, number)
                reached = step_of(cwd / "runs" / "a")
                assert reached in (8, 9), f"the last checkpoint is of step {reached}"
                resume_to_the_end(lab, cwd, SORT)


@row("SIGTERM at every step, over two epochs' ends")
def at_every_step(lab: Lab) -> None:
    """k steps, a stop and N - k steps are N steps, bit for bit, for every k."""
    for step in lab.part(range(1, 24), 3):
        with lab.case(f"step {step}"):
            cwd = lab.fresh()
            hook = ("signal_in", {"path": STEP, "number": step, "signals": [SIGTERM]})
            done = lab.train(cwd, *lab.text, "name=a", hooks=[hook])
            assert_stopped(cwd / "runs" / "a", done, SIGTERM)
            assert step_of(cwd / "runs" / "a") == step
            resume_to_the_end(lab, cwd, lab.text)


@row("SIGTERM, SIGINT to all processes of a run with loader workers")
def to_all(lab: Lab) -> None:
    for number in (SIGTERM, SIGINT):
        with lab.case(f"{number.name} to the group"):
            cwd = lab.fresh()
            where = {"path": STEP, "number": 8, "signals": [number], "everywhere": True}
            process = lab.begin(
                cwd, *SORT, "name=a", "data.num_workers=2", hooks=[("signal_in", where)]
            )
            assert_stopped(cwd / "runs" / "a", process.wait(), number)
            assert_no_orphans(process.pid)
            resume_to_the_end(lab, cwd, SORT)


@row("a loader worker or its run is killed")
def workers(lab: Lab) -> None:
    """Nothing hangs, and nothing goes on without its parent."""
    with lab.case("the run is killed: its workers leave"):
        cwd = lab.fresh()
        hook = ("signal_in", {"path": STEP, "number": 8, "signals": [signal.SIGKILL]})
        process = lab.begin(cwd, *SORT, "name=a", "data.num_workers=2", hooks=[hook])
        process.wait()
        assert_no_orphans(process.pid, within_s=15)
        resume_to_the_end(lab, cwd, SORT)
    with lab.case("a worker is killed: one line, exit code 1"):
        cwd = lab.fresh()
        hook = ("wait_in", {"path": STEP, "number": 8, "folder": str(cwd)})
        process = lab.begin(cwd, *SORT, "name=a", "data.num_workers=2", hooks=[hook])
        process.until(cwd / "waits")
        worker = next(pid for pid in alive(process.pid) if pid != process.pid)
        os.kill(worker, signal.SIGKILL)
        (cwd / "go").touch()
        done = process.wait()
        assert done.code == 1, f"exit code {done.code}"
        assert done.last_line.startswith("error: "), done.err
        assert "Traceback" not in done.err, done.err
        assert_no_orphans(process.pid)
        resume_to_the_end(lab, cwd, SORT)


@row("a second SIGINT leaves at once")
def twice(lab: Lab) -> None:
    for path, call in PLACES.items():
        with lab.case(f"twice in {path}"):
            cwd = lab.fresh()
            hook = ("wait_in", {"path": path, "number": call, "folder": str(cwd)})
            process = lab.begin(cwd, *SORT, "name=a", hooks=[hook])
            process.until(cwd / "waits")
            process.signal(SIGINT)
            time.sleep(0.2)
            began = time.monotonic()
            process.signal(SIGINT)
            done = process.wait()
            assert time.monotonic() - began < 2, "did not leave at once"
            assert done.code == 130, f"exit code {done.code}"
            assert done.last_line.startswith("error: "), done.err
            assert "Traceback" not in done.err, done.err
            resume_to_the_end(lab, cwd, SORT)


@row("SIGTERM, SIGINT in a step or an evaluation without an end")
def never_ending(lab: Lab) -> None:
    """What would take longer than ten seconds is dropped; the step before it is saved."""
    for number in (SIGTERM, SIGINT):
        for path, call, step in ((STEP, 8, 7), (VALIDATION, 3, 9)):
            with lab.case(f"{number.name} in {path}"):
                cwd = lab.fresh()
                hook = ("stop_still_in", {"path": path, "number": call, "folder": str(cwd)})
                process = lab.begin(cwd, *SORT, "name=a", hooks=[hook])
                process.until(cwd / "still")
                began = time.monotonic()
                process.signal(number)
                done = process.wait(LIMIT_S + 5)
                done.seconds = time.monotonic() - began
                assert_stopped(cwd / "runs" / "a", done, number, has_lock=True)
                assert step_of(cwd / "runs" / "a") == step
                resume_to_the_end(lab, cwd, SORT)


@row("SIGTERM in an evaluation, the last one or at the target")
def never_ending_evaluation(lab: Lab) -> None:
    """What the signal has cut off is made up for before the run goes on, or says that it is over.

    The number of an evaluation, the settings, and what comes between the signal and the resume.
    """
    again = ("stop_still_in", {"path": VALIDATION, "number": 1})
    dies = ("signal_in", {"path": VALIDATION, "number": 1, "signals": [signal.SIGKILL]})
    saved = ("signal_in", {"path": SUMMARY, "number": 1, "signals": [signal.SIGKILL]})
    target = [*SORT, "stop_at=val/loss:100"]
    cases = {
        "step 12": (4, SORT, None),
        "the last step": (8, SORT, None),
        "the target is reached": (1, target, None),
        "step 12, and a signal again": (4, SORT, again),
        "the last step, and a signal again": (8, SORT, again),
        "step 12, and a kill": (4, SORT, dies),
        "the last step, and a kill before the summary": (8, SORT, saved),
        "the target is reached, and a kill before the summary": (1, target, saved),
    }
    for what in lab.part(list(cases), 2):
        number, settings, then = cases[what]
        with lab.case(what):
            cwd = lab.fresh()
            cut = ("stop_still_in", {"path": VALIDATION, "number": number})
            step = left_in_an_evaluation(lab, cwd, settings, cut)
            assert step == 3 * number, f"the last checkpoint is of step {step}"
            if then == again:
                assert left_in_an_evaluation(lab, cwd, settings, again) == step
            elif then is not None:
                done = lab.train(cwd, *settings, "name=a", "resume=auto", hooks=[then])
                assert done.code == -signal.SIGKILL, f"not killed: {done.code} {done.err}"
            resume_to_the_end(lab, cwd, settings)
            found, wanted = best_of(cwd / "runs" / "a"), best_of(lab.straight(settings))
            assert found == wanted, f"best is {found} in place of {wanted}"


def best_of(run: Path) -> str:
    return json.loads((run / "checkpoints" / "manifest.json").read_text())["best"]


def left_in_an_evaluation(lab: Lab, cwd: Path, settings: list[str], still: tuple) -> int:
    """The step that is saved when SIGTERM comes to a function that never returns."""
    (cwd / "still").unlink(missing_ok=True)
    name, where = still
    hook = (name, {**where, "folder": str(cwd)})
    process = lab.begin(cwd, *settings, "name=a", "resume=auto", hooks=[hook])
    process.until(cwd / "still")
    began = time.monotonic()
    process.signal(SIGTERM)
    done = process.wait(LIMIT_S + 5)
    done.seconds = time.monotonic() - began
    assert_stopped(cwd / "runs" / "a", done, SIGTERM, has_lock=True)
    return step_of(cwd / "runs" / "a")


@row("SIGTERM, SIGINT before and after the training")
def around_the_training(lab: Lab) -> None:
    """The right exit code and last words; what is there afterwards can be gone on with."""
    places = {
        "composing": "gpt2lab.config.compose:from_config",
        "making the data": DATA,
        "building the trainer": TRAINER,
        "making the folder": FOLDER,
        "writing the summary": SUMMARY,
        "showing answers": ANSWERS,
    }
    for number in (SIGTERM, SIGINT):
        for what, path in places.items():
            with lab.case(f"{number.name} while {what}"):
                cwd = lab.fresh()
                hook = ("signal_in", {"path": path, "number": 1, "signals": [number]})
                done = lab.train(cwd, *SORT, "name=a", hooks=[hook])
                assert done.code == 128 + number, f"exit code {done.code}: {done.err}"
                assert "Traceback" not in done.err, done.err
                has_ended_well = done.out.rstrip().endswith("runs/a")
                assert has_ended_well or done.last_line.startswith("error: "), done.err
                resume_to_the_end(lab, cwd, SORT)
