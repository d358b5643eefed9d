"""Which point comes next, and which trial is worth no more steps.

Sampler and seed are made anew for each point, from the study's seed and the point's number: what a
point is depends on these and on what is known by then, not on how often the study was killed.
"""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import optuna
from optuna import pruners, samplers

from gpt2lab.config import Pruner, Sampler, StudyConfig
from gpt2lab.config.check.study import Parameter
from gpt2lab.errors import ConfigError
from gpt2lab.sweep import space


def check_installed(config: StudyConfig) -> None:
    """
    Raises:
        ConfigError: if the sampler needs a package that is not there.
    """
    if config.sampler is Sampler.cmaes and find_spec("cmaes") is None:
        raise ConfigError(
            "study.sampler: cmaes needs a package; pip install cmaes, or choose another sampler"
        )


def next_point(
    study: optuna.Study, config: StudyConfig, parameters: Sequence[Parameter]
) -> optuna.Trial | None:
    """A new point, or one that somebody has put into the queue; None where a grid has no more."""
    known = study.get_trials(deepcopy=False)
    waiting = any(trial.state is optuna.trial.TrialState.WAITING for trial in known)
    if config.sampler is Sampler.grid and not waiting:
        taken = [trial.system_attrs.get("fixed_params", trial.params) for trial in known]
        left = (point for point in space.grid(parameters) if point not in taken)
        if (point := next(left, None)) is None:
            return None
        study.enqueue_trial(point)
    study.sampler = sampler(config, len(known))
    trial = study.ask()
    space.draw(trial, parameters)
    return trial


def sampler(config: StudyConfig, number: int) -> samplers.BaseSampler:
    """
    Args:
        number: of the point that is chosen by it.
    """
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.sampler:
            case Sampler.tpe:
                return samplers.TPESampler(seed=seed)
            case Sampler.nsga2:
                # An eighth of the points a generation, so that few of them suffice for several.
                size = max(4, (config.trials or 32) // 8)
                return samplers.NSGAIISampler(seed=seed, population_size=size)
            case Sampler.cmaes:
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case _:
                return samplers.RandomSampler(seed=seed)


def pruner(config: StudyConfig, eval_every: int) -> pruners.BasePruner:
    """
    Args:
        eval_every: steps between two evaluations of a trial.
    """
    match config.pruner:
        case Pruner.median:
            return pruners.MedianPruner(
                n_startup_trials=config.prune_after_trials, n_warmup_steps=config.prune_after_steps
            )
        case Pruner.successive_halving:
            return pruners.SuccessiveHalvingPruner(
                min_resource=max(config.prune_after_steps, eval_every)
            )
        case _:
            return pruners.NopPruner()
