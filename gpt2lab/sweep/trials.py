"""What a study has found so far: its points, and the trials of each.

A point is one choice of all that is varied, and a trial of Optuna's; a trial is one training of it,
with one seed, in a run folder of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

SEED = "seed-"
"""Before the seed, the user attribute of an Optuna trial that holds what its training came to."""
PLACE = "runs_dir"
"""In that attribute, the folder that holds the run's folder, on the machine that ran it."""


class State(Enum):
    """How far a trial or a point is."""

    running = "running"
    """Begun, or waiting to be gone on with."""
    complete = "complete"
    pruned = "pruned"
    failed = "failed"


@dataclass(frozen=True)
class Trial:
    """One training.

    Args:
        number: of its point.
        values: what it reached of each goal, once complete; inf for a target never reached.
        reason: why it failed or was pruned, in a line.
        seconds: that its processes took, from when they were asked for to their end.
        steps: that it has made.
        folder: its run folder, where the ordinary command lines find it.
    """

    number: int
    seed: int
    params: Mapping[str, Any]
    state: State
    values: tuple[float, ...] = ()
    reason: str | None = None
    seconds: float = 0.0
    steps: int | None = None
    folder: Path = Path()

    @property
    def value(self) -> float | None:
        """Of the first goal."""
        return self.values[0] if self.values else None

    @property
    def metrics(self) -> Path:
        """The learning curve, for metrics.read_metrics, which gives no rows if there is none."""
        return self.folder / "metrics.csv"


@dataclass(frozen=True)
class Point:
    """One choice of all that is varied, by the names of the space.

    Args:
        values: the mean over its trials of each goal, once all are complete.
        trials: by seed, those that have begun.
    """

    number: int
    params: Mapping[str, Any]
    state: State
    values: tuple[float, ...]
    trials: tuple[Trial, ...]

    @property
    def value(self) -> float | None:
        """Of the first goal."""
        return self.values[0] if self.values else None


STATES = {
    TrialState.RUNNING: State.running,
    TrialState.COMPLETE: State.complete,
    TrialState.PRUNED: State.pruned,
    TrialState.FAIL: State.failed,
}


def points_of(study: Study, folder: Path) -> list[Point]:
    """Every point that has been begun, by number.

    Args:
        folder: where to look for a run that is not where it was made.
    """
    found = study.get_trials(deepcopy=False, states=tuple(STATES))
    return [point_of(trial, folder) for trial in found]


def point_of(trial: FrozenTrial, folder: Path) -> Point:
    state = STATES[trial.state]
    return Point(
        number=trial.number,
        params=dict(trial.params),
        state=state,
        # Of a pruned trial, Optuna takes the last report for its value.
        values=tuple(trial.values or ()) if state is State.complete else (),
        trials=trials_of(trial, folder),
    )


def trials_of(trial: FrozenTrial, folder: Path) -> tuple[Trial, ...]:
    found = []
    for key, told in trial.user_attrs.items():
        if not key.startswith(SEED):
            continue
        seed = int(key.removeprefix(SEED))
        name = name_of(trial.number, seed)
        made_at, here = Path(told.get(PLACE, folder)) / name, folder / name
        found.append(
            Trial(
                number=trial.number,
                seed=seed,
                params=dict(trial.params),
                state=State(told["state"]),
                values=tuple(told.get("values", ())),
                reason=told.get("reason"),
                seconds=told.get("seconds", 0.0),
                steps=told.get("steps"),
                folder=here if here.is_dir() and not made_at.is_dir() else made_at,
            )
        )
    return tuple(sorted(found, key=lambda one: one.seed))


def name_of(number: int, seed: int) -> str:
    """The name of a trial's run."""
    return f"{stem_of(number)}-seed-{seed}"


def stem_of(number: int) -> str:
    """What the names of all runs of a point begin with."""
    return f"trial-{number:04d}"
