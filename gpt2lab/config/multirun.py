"""Hydra's multirun: checked before the first job begins, and without secrets in its file."""

import os
from collections.abc import Callable, Sequence
from itertools import islice, product
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from gpt2lab.config.compose import compose, from_config, parse_overrides, register_schemas
from gpt2lab.config.conf_dir import conf_dir
from gpt2lab.config.redact import is_secret, mask, redacted
from gpt2lab.config.settings import TrainConfig
from gpt2lab.errors import ConfigError, Gpt2labError

# Composing takes a twentieth of a second; larger grids are checked as each job begins.
CHECKED_JOBS = 200


def launch(
    config_name: str,
    overrides: Sequence[str],
    config_dirs: Sequence[str],
    job: Callable[[DictConfig], int],
    before: Callable[[TrainConfig], None] = lambda settings: None,
) -> list[int]:
    """Run a job for each combination through Hydra's sweeper and launcher; their exit codes.

    Args:
        before: looks at, or prepares, what a job needs; called with the settings of each.
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
        batches = hydra.multirun(config_name, guarded(job), [*overrides, *search_path], False)
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


def guarded(job: Callable[[DictConfig], int]) -> Callable[[DictConfig], int]:
    """A job whose failure is its error line and exit code, so that the next one still runs.

    A signal is no failure of the job's: it ends the multirun.
    """

    def run(cfg: DictConfig) -> int:
        from gpt2lab.exit import exit_code

        code = exit_code(lambda: job(cfg))
        if code > 128:
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
    found: dict[str, None] = {}
    for combination in islice(product(*choices), CHECKED_JOBS):
        try:
            # as Hydra reads it: commas part the values of a grid, in verbatim settings too
            cfg = compose(config_name, combination, config_dirs)
            before(from_config(cfg, config_name).settings)
        except Gpt2labError as error:
            found |= dict.fromkeys(error.problems)
    if found:
        raise ConfigError(*found)


class RedactMultirun(Callback):
    """Masks secrets in the settings that the sweeper is about to write to multirun.yaml.

    The jobs are composed anew from their overrides, so they still see the real values.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with flag_override(config, ["struct", "readonly"], [False, False]):
            mask(config)
