"""Studies: what one file of sweeps/ says."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gpt2lab.config.settings.fields import path_or_name, ranged


class Direction(Enum):
    """Which way a goal is better."""

    minimize = "minimize"
    maximize = "maximize"


class Sampler(Enum):
    """How the next point is chosen."""

    tpe = "tpe"
    random = "random"
    grid = "grid"
    nsga2 = "nsga2"
    cmaes = "cmaes"


class Pruner(Enum):
    """How a trial is judged while it runs."""

    none = "none"
    median = "median"
    successive_halving = "successive_halving"


# Not a class: `continue` cannot stand as a name in one.
OnFail = Enum("OnFail", ["stop", "continue", "retry"])


@dataclass
class StudyConfig:
    """A question, the trainings that may answer it, and how they are judged."""

    question: str = ""
    """What the study asks, in a sentence."""
    base: list[str] = field(default_factory=list)
    """Overrides of train that every trial begins with, such as model=nano."""
    space: dict[str, Any] = field(default_factory=dict)
    """What is varied: a setting of train, and its choice, range or log_range."""
    goal: list[str] = field(default_factory=list)
    """What is judged: a metric at the end, best.<metric>, steps, seconds; several at once."""
    direction: list[Direction] = field(default_factory=list)
    """minimize or maximize, one a goal; left empty, it follows from the goal."""
    trials: int | None = ranged(None, ge=1)
    """Points of the space that are tried; null for the whole grid."""
    seeds: int = ranged(1, ge=1, le=1000)
    """Trainings of each point: the same settings with seed, seed + 1, ...; judged by their mean."""
    sampler: Sampler = Sampler.tpe
    """tpe, random, grid, nsga2 (several goals), cmaes (numbers only; needs the package cmaes)."""
    seed: int = ranged(0, ge=0, lt=2**31)
    """Decides, with the results so far, which points are tried."""
    pruner: Pruner = Pruner.none
    """none, median or successive_halving: end trials early that do worse than others did."""
    prune_after_steps: int = ranged(0, ge=0)
    """Steps that every trial may make before it is pruned."""
    prune_after_trials: int = ranged(5, ge=1)
    """Finished points that the median is taken of, at least."""
    jobs: int | None = ranged(None, ge=1, le=1024)
    """Trials at a time on this machine; null for as many as its GPUs serve, 1 on a CPU."""
    on_fail: OnFail = OnFail["continue"]
    """stop ends the study at a trial that fails, continue counts it, retry runs it again."""
    retries: int = ranged(1, ge=1)
    """How often a trial that fails is run again, with on_fail=retry."""
    storage: str | None = None
    """Database that machines share, such as postgresql://host/db; null for one in the folder."""


@dataclass
class SweepConfig:
    """All settings of `python -m gpt2lab.sweep` but those of train, which reach every trial."""

    study: StudyConfig = field(default_factory=StudyConfig)

    name: str | None = None
    """Name of the study and its folder; null for the file's. The same name goes on."""
    runs_dir: str = path_or_name("runs")
    """Folder that holds the study's folder."""
    json: bool = False
    """End stdout with one JSON object of the results, instead of the folder's path."""
