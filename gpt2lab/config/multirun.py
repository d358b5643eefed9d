"""Hydra's multirun: checked before the first job begins, and without secrets in its file."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, flag_override

from gpt2lab.config.compose import compose, from_config, register_schemas
from gpt2lab.config.conf_dir import conf_dir
from gpt2lab.config.overrides import parse_overrides
from gpt2lab.config.redact import is_secret, mask, redacted, redacted_arguments
from gpt2lab.config.settings.train import TrainConfig
from gpt2lab.errors import ConfigError, Gpt2labError

# Composing takes a twentieth of a second; larger grids are checked as each job begins.
CHECKED_JOBS = 200


def launch(
    config_name: str,
    overrides: Sequence[str],
    config_dirs: Sequence[str],
    job: Callable[[DictConfig], int],
    before: Callable[[TrainConfig], None] = lambda settings: None,
    share: Callable[[int], None] = lambda jobs: None,
) -> list[int]:
    """Run a job for each combination through Hydra's sweeper and launcher; their exit codes.

    Args:
        before: looks at, or prepares, what a job needs; called with the settings of each.
        share: divides this machine among so many jobs at once; called where there are several.
    Raises:
        ConfigError: one line for each combination that cannot be, before any has begun.
    """
    from gpt2lab.run_folder import new_name

    overrides = list(overrides)
    keys = {o.key_or_group for o in parse_overrides(overrides)}
    if "resume" in keys:
        raise ConfigError(
            "resume: the jobs of a multirun start afresh; go on with one of them by name=, alone"
        )
    if "name" not in keys:
        overrides.append(f"name={new_name()}")
    check(config_name, overrides, config_dirs, before)
    overrides = [hidden(override, i) for i, override in enumerate(overrides)]
    search_path = [f"hydra.searchpath=[{','.join(config_dirs)}]"] if config_dirs else []
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        chosen = [*overrides, *search_path]
        launcher = hydra.compose_config(config_name, chosen, RunMode.MULTIRUN).hydra.launcher
        if (together := jobs_at_once(launcher, len(list(islice(combinations(overrides), 99))))) > 1:
            share(together)
        batches = hydra.multirun(config_name, guarded(job), chosen, False)
    return [result.return_value for batch in batches or [] for result in batch]


def hidden(override: str, number: int) -> str:
    """A secret given on the command line, handed to the jobs through the environment.

    Hydra writes overrides into multirun.yaml and hands the very same to the jobs, so that masking
    them would hide the secret from the jobs too.
    """
    key, _, value = override.partition("=")
    if redacted(override) == override or "${" in value:
        return override
    variable = f"GPT2LAB_SECRET_{number}"
    os.environ[variable] = value
    if is_secret(key):
        return f"{key}=${{oc.env:{variable}}}"
    # A mapping with a secret somewhere within; in quotes, for Hydra reads no nested braces.
    return f"{key}='${{oc.decode:${{oc.env:{variable}}}}}'"


def jobs_at_once(launcher: DictConfig, jobs: int) -> int:
    """How many of a multirun's jobs a launcher of Hydra's runs on this machine at a time."""
    kind = launcher._target_.rpartition(".")[2]
    if kind == "JoblibLauncher":
        workers = launcher.n_jobs or 1
        return min(jobs, workers if workers > 0 else os.cpu_count() or 1)
    return jobs if kind == "LocalLauncher" else 1


def guarded(job: Callable[[DictConfig], int]) -> Callable[[DictConfig], int]:
    """A job whose failure is its error line and exit code, so that the next one still runs.

    A signal is no failure of the job's: it ends the multirun, where the job is run by it.
    """
    parent, argv, command = os.getpid(), *map(redacted_arguments, (sys.argv, sys.orig_argv))

    def run(cfg: DictConfig) -> int:
        from gpt2lab.exit import exit_code
        from gpt2lab.terminal import tell

        is_elsewhere = os.getpid() != parent
        if is_elsewhere:  # a worker of joblib's, a task of SLURM's: as if it were the command
            sys.argv, sys.orig_argv = argv, command
            warnings.showwarning = tell  # type: ignore[assignment]
            register_schemas()
        code = exit_code(lambda: job(cfg))
        if code > 128 and not is_elsewhere:
            raise SystemExit(code)
        return code

    return run


def check(
    config_name: str,
    overrides: Sequence[str],
    config_dirs: Sequence[str],
    before: Callable[[TrainConfig], None],
) -> None:
    """Compose every combination of a grid, and see to what each needs.

    Raises:
        ConfigError: with each problem once.
    """
    found: dict[str, None] = {}
    for combination in islice(combinations(overrides), CHECKED_JOBS):
        try:
            # as Hydra reads it: commas part the values of a grid, in verbatim settings too
            cfg = compose(config_name, combination, config_dirs)
            before(from_config(cfg, config_name).settings)
        except Gpt2labError as error:
            found |= dict.fromkeys(error.problems)
    if found:
        raise ConfigError(*found)


def combinations(overrides: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The overrides of each job of a grid."""
    choices = []
    for override in parse_overrides(overrides):
        key = (override.input_line or "").partition("=")[0]
        if override.is_sweep_override() and not override.is_discrete_sweep():
            continue  # an interval, which only a searching sweeper understands
        values = (
            [f"{key}={value}" for value in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else [override.input_line or ""]
        )
        choices.append(values)
    return product(*choices)


class RedactMultirun(Callback):
    """Masks secrets in the settings that the sweeper is about to write to multirun.yaml.

    The jobs are composed anew from their overrides, so they still see the real values.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with flag_override(config, ["struct", "readonly"], [False, False]):
            mask(config)
