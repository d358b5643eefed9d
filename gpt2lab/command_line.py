"""What every command line shares: `--help`, `--cfg job`, overrides, one error line a problem.

Nothing here imports torch, so that help and mistakes are answered at once.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from omegaconf import OmegaConf

from gpt2lab.errors import ConfigError, Gpt2labError, RunError

BAD_INPUT = 2
FAULT = 1
INTERRUPTED = 130


def show_errors(action: Callable[[], int]) -> NoReturn:
    """Run a command to its end and leave with its exit code."""
    code = exit_code(action)
    if sys.stdout is not None:  # it is None when the caller closed it
        sys.stdout.flush()
    sys.exit(code)


def exit_code(action: Callable[[], int]) -> int:
    """What an action returns; 2 for bad input and 1 for a fault, each told in one line.

    A traceback is shown for `debug=true` only.
    """
    debug = "debug=true" in [argument.lower() for argument in sys.argv[1:]]
    try:
        return action()
    except Gpt2labError as error:
        problems, code = list(error.problems), BAD_INPUT
    except KeyboardInterrupt:
        problems, code = ["Ctrl-C: stopped at once; what was saved before is whole"], INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left; Python would complain once more while closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except RunError as error:
        problems, code = [str(error)], FAULT
        if debug:
            traceback.print_exc()
    except Exception as error:
        what = " ".join(str(error).split()) or "stopped"
        problems = [f"{type(error).__name__}: {what}; add debug=true to see where"]
        code = FAULT
        if debug:
            traceback.print_exc()
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return code


def arguments(config_name: str, purpose: str) -> argparse.Namespace:
    """The flags and the overrides of one command line; answers `--help` by itself."""
    parser = argparse.ArgumentParser(
        prog=f"python -m gpt2lab.{config_name}", add_help=False, allow_abbrev=False
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

        print(help_text(config_name, purpose), end="")
        sys.exit(0)
    return parsed


def _usage_error(message: str) -> NoReturn:
    raise ConfigError(f"command line: {message}; see --help")


def print_settings(printable: dict[str, object]) -> None:
    """The composed settings as yaml, for `--cfg job`."""
    print(OmegaConf.to_yaml(printable), end="")
