"""What every command line shares: `--help`, `--cfg job`, overrides, one error line a problem.

Nothing here imports torch, so that help and mistakes are answered at once.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from omegaconf import OmegaConf

from gpt2lab.config.commands import COMMAND_LINES
from gpt2lab.errors import ConfigError
from gpt2lab.exit import exit_code
from gpt2lab.signals import default_signals, raise_signals
from gpt2lab.terminal import tell


def show_errors(action: Callable[[], int]) -> NoReturn:
    """Run a command to its end and leave with its exit code."""
    raise_signals()
    code = exit_code(action)
    default_signals()
    if sys.stdout is not None:  # it is None when the caller closed it
        sys.stdout.flush()
    sys.exit(code)


def arguments(command: str, purpose: str) -> argparse.Namespace:
    """The flags and the overrides of one command line; answers `--help` by itself.

    From here on a warning is a line, as an error is.
    """
    warnings.showwarning = tell  # type: ignore[assignment]
    parser = argparse.ArgumentParser(
        prog=f"python -m gpt2lab.{command}", add_help=False, allow_abbrev=False
    )
    parser.error = _usage_error  # type: ignore[method-assign]
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parsed = parser.parse_intermixed_args()
    if parsed.help:
        from gpt2lab.config.help import help_text

        print(help_text(command, purpose), end="")
        sys.exit(0)
    if parsed.multirun and not COMMAND_LINES[command].is_grid:
        raise ConfigError(
            f"--multirun: {command} takes one set of settings at a time; leave it out"
        )
    return parsed


def _usage_error(message: str) -> NoReturn:
    raise ConfigError(f"command line: {message}; see --help")


def print_settings(printable: dict[str, object]) -> None:
    """The composed settings as yaml, for `--cfg job`."""
    print(OmegaConf.to_yaml(printable), end="")
