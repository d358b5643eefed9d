"""How a program ends: its exit code, and its last lines on stderr."""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable

from gpt2lab.config.redact import masked, redacted_arguments
from gpt2lab.durable import is_full
from gpt2lab.errors import Gpt2labError, RunError
from gpt2lab.signals import CTRL_C, Signalled, raised

BAD_INPUT = 2
FAULT = 1
INTERRUPTED = 130


def exit_code(
    action: Callable[[], int], where: str = "", speaks: Callable[[int], bool] = lambda code: True
) -> int:
    """What an action returns; 2 for bad input and 1 for a fault, each told in one line.

    A traceback is shown for `debug=true` only.

    Args:
        where: as in last_lines.
        speaks: whether it is told here, given the exit code.
    """
    debug = "debug=true" in [argument.lower() for argument in sys.argv[1:]]
    try:
        redacted_arguments(sys.argv)  # so that their secrets are known, whatever is refused
        return action()
    except BrokenPipeError:
        # The reader of our output has left; Python would complain once more while closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except (Exception, KeyboardInterrupt) as error:
        problems, code = last_lines(raised() or error, where)
        if not speaks(code):
            return code
        if debug and code == FAULT:
            print(masked(traceback.format_exc()), end="", file=sys.stderr)
    for problem in problems:
        print(f"error: {shortened(masked(problem))}", file=sys.stderr)
    return code


def shortened(line: str) -> str:
    """The line with the middle of each very long word left out: some quote what was typed."""
    return re.sub(r"\S{400,}", lambda found: f"{found[0][:100]}...{found[0][-100:]}", line)


def in_a_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  Path.cwd() is the same
    except FileNotFoundError:
        return False
    return True


def code_of(error: BaseException) -> int:
    """The exit code of a program that an error ends."""
    if isinstance(error, Gpt2labError):
        return BAD_INPUT
    if isinstance(error, Signalled):
        return error.code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAULT


def last_lines(error: BaseException, where: str = "") -> tuple[list[str], int]:
    """What is said of an error, each line a problem, and the exit code.

    Args:
        where: stands before the name of an error that is a mistake of ours.
    """
    code = code_of(error)
    if isinstance(error, Gpt2labError):
        return list(error.problems), code
    if isinstance(error, Signalled):
        if error.number == signal.SIGUSR1:
            from gpt2lab.slurm import requeue

            requeue()
        return [str(error)], code
    if isinstance(error, KeyboardInterrupt):
        return [CTRL_C], code
    if isinstance(error, RunError):
        return [str(error)], code
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return [f"{error.filename}: is too long for a file's name; choose a shorter one"], BAD_INPUT
    if isinstance(error, FileNotFoundError) and error.filename is None and not in_a_folder():
        return ["the folder that you are in is gone; go to one that is there"], BAD_INPUT
    if isinstance(error, OSError) and error.filename is None and is_full(error):
        what = f"output, or a temporary file, cannot be written ({error.strerror}); make room"
        return [f"{where}{what}, or add debug=true to see where"], code
    what = " ".join(str(error).split()) or "stopped"
    return [f"{where}{type(error).__name__}: {what}; add debug=true to see where"], code
