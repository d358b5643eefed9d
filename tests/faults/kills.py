"""SIGKILL: at every system call of a save, at random, while a run folder is made."""

import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.lab import SORT, Lab, row
from tests.faults.places import FOLDER, SAVE, STEP, SUMMARY, VALIDATION, WRITE
from tests.faults.same import assert_same_end, assert_same_words, assert_whole
from tests.faults.server import Process
from tests.faults.tracer import BEGINS, Tracer, changes_disk, held, name_of, release, within

PLAIN = [*SORT, "callbacks.samples=null", "model.n_layer=1", "max_steps=12"]

CHAINS = 50
RESUMES = 3


@dataclass(frozen=True)
class Stretch:
    """A piece of a training: the number-th call of a function, or from there to another call."""

    path: str
    number: int = 1
    until: str | None = None


SAVES = {
    "the first, in the training's thread": Stretch(SAVE, 1),
    "the first, in the writing thread": Stretch(WRITE, 1),
    "one that is the best and deletes another, in the training's thread": Stretch(SAVE, 3),
    "one that is the best and deletes another, in the writing thread": Stretch(WRITE, 3),
    "the last, in the foreground": Stretch(SAVE, 6),
}


@dataclass(frozen=True)
class Point:
    """A system call to be killed at."""

    call: str
    when: int
    """How often the thread has made this call since the stretch began."""
    number: int
    """The how-manieth call of the stretch it is."""
    changes_disk: bool
    """Else what it leaves is what the call before it left."""


def held_run(lab: Lab, stretch: Stretch) -> tuple[Process, int]:
    """A training that holds still as a stretch begins; the id of the thread in it."""
    cwd = lab.fresh()
    hook = ("hold_in", {**asdict(stretch), "folder": str(cwd)})
    process = lab.begin(cwd, *PLAIN, "name=a", hooks=[hook])
    return process, held(process)


def points_of(lab: Lab, stretch: Stretch) -> list[Point]:
    """Every system call of a stretch, from a run that is only watched."""
    process, thread = held_run(lab, stretch)
    tracer = Tracer(thread, process.cwd / "trace")
    release(process)
    done = process.wait()
    assert done.code == 0, done.err
    lines = tracer.lines()
    names = [name_of(line) for line in lines]
    inside = within(lines)
    return [
        Point(
            names[i],
            names[: i + 1].count(names[i]),
            i - inside.start + 1,
            changes_disk(lines[i]),
        )
        for i in inside
    ]


def kill_at(lab: Lab, stretch: Stretch, point: Point) -> Path:
    """What a training killed at this call leaves."""
    process, thread = held_run(lab, stretch)
    inject = f"inject={point.call}:signal=KILL:when={point.when}"
    tracer = Tracer(thread, process.cwd / "trace", "-e", inject)
    release(process)
    done = process.wait()
    assert done.code == -signal.SIGKILL, f"not killed: {done.code} {done.err}"
    lines = tracer.lines()
    names = [name_of(line) for line in lines]
    assert any(BEGINS in line for line in lines), f"killed before {stretch} began"
    found = names[-1], names.count(point.call)
    assert found == (point.call, point.when), f"killed at {found} in place of {point}"
    return process.cwd


def resume_to_the_end(lab: Lab, cwd: Path, settings: list[str]) -> None:
    """Go on, and compare with the run that nothing disturbed."""
    done = lab.train(cwd, *settings, "name=a", "resume=auto")
    assert done.code == 0, done.err
    assert_same_end(cwd / "runs" / "a", lab.straight(settings))
    assert_same_words(cwd / "runs" / "a", lab.straight(settings))
    assert_whole(cwd / "runs" / "a")


@row("SIGKILL at every system call of a save", "strace")
def every_system_call_of_a_save(lab: Lab) -> None:
    """No call of several saves leaves anything that a resume does not bring to the same bits."""
    for what, stretch in SAVES.items():
        points = points_of(lab, stretch)
        lab.note(f"{what}: {len(points)} system calls")
        if lab.is_share:
            points = [point for point in points if point.changes_disk]
        for point in points:
            with lab.case(f"{what}, killed at call {point.number}, {point.call}"):
                resume_to_the_end(lab, kill_at(lab, stretch, point), PLAIN)
    outcome = lab.outcome
    lab.note(f"kill points of a save: {outcome.survived} of {outcome.tried} resumed bit for bit")
    assert outcome.tried >= 100, f"{outcome.tried} kill points are too few"


@row("SIGKILL at random, three resumes deep")
def random_kills(lab: Lab) -> None:
    """A run killed, resumed, killed, resumed, killed and resumed ends as one that was not."""
    kills = 0
    for chain in lab.part(range(CHAINS), 5):
        settings = (SORT, lab.text)[chain % 2]
        with lab.case(f"chain {chain}"):
            cwd = lab.fresh()
            for _ in range(RESUMES):
                process = killed_somewhere(lab, cwd, settings)
                code = process.wait().code
                assert code in (0, -signal.SIGKILL), f"ended with {code}"
                kills += code != 0
                if code == 0:
                    break
            else:
                resume_to_the_end(lab, cwd, settings)
            assert_same_end(cwd / "runs" / "a", lab.straight(settings))
    lab.note(f"{kills} random kills, each resumed, up to {RESUMES} resumes deep")


def killed_somewhere(lab: Lab, cwd: Path, settings: list[str]) -> Process:
    """A leg that is killed at a random moment, or as a random call of the training begins."""
    path = lab.random.choice([None, STEP, STEP, VALIDATION, SAVE])
    if path is None:
        process = lab.begin(cwd, *settings, "name=a", "resume=auto")
        time.sleep(lab.random.uniform(0.1, 0.8))
        process.signal_all(signal.SIGKILL)
        return process
    latest = {STEP: 7, VALIDATION: 2, SAVE: 3}[path]  # so that three legs are not the whole run
    where = {"path": path, "number": lab.random.randint(1, latest)}
    kill = ("signal_in", {**where, "signals": [signal.SIGKILL]})
    return lab.begin(cwd, *settings, "name=a", "resume=auto", hooks=[kill])


@row("SIGKILL between the last save and the summary")
def before_the_summary(lab: Lab) -> None:
    """What is left is the summary: no step is added behind the run's end."""
    for end in ("max_steps=24", "stop_at=val/loss:100"):
        for number in (1, 2):
            with lab.case(f"{end}, killed {number} times"):
                cwd, settings = lab.fresh(), [*SORT, end]
                hook = ("signal_in", {"path": SUMMARY, "number": 1, "signals": [signal.SIGKILL]})
                for _ in range(number):
                    done = lab.train(cwd, *settings, "name=a", "resume=auto", hooks=[hook])
                    assert done.code == -signal.SIGKILL, f"not killed: {done.code} {done.err}"
                resume_to_the_end(lab, cwd, settings)


@row("SIGKILL while the run folder is made", "strace")
def while_the_folder_is_made(lab: Lab) -> None:
    """`resume=auto` makes a run of whatever a kill before the first step has left."""
    stretch = Stretch(FOLDER, until=STEP)
    points = [point for point in points_of(lab, stretch) if point.changes_disk]
    lab.note(f"from the folder to the first step: {len(points)} system calls that change the disk")
    for point in points:
        with lab.case(f"killed at call {point.number}, {point.call}"):
            resume_to_the_end(lab, kill_at(lab, stretch, point), PLAIN)
