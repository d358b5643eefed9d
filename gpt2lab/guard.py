"""What a run can do without: its failure is one warning, and changes no weight."""

import warnings
from collections.abc import Callable
from typing import Any

from gpt2lab.config.redact import masked


class Guard:
    """Runs the actions that write a file, say, until the first fails; none after that.

    Args:
        key: the file or setting that the warning names.
        errors: what counts as a failure; anything else is a mistake of ours and goes up.
    """

    def __init__(self, key: str, *errors: type[BaseException]) -> None:
        self.key = key
        self.errors = errors or (OSError,)
        self.failed = False

    def __call__(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the action returns; None if it or an earlier one has failed."""
        if self.failed:
            return None
        try:
            return action(*args, **kwargs)
        except self.errors as error:
            self.fail(error)
            return None

    def fail(self, error: BaseException) -> None:
        self.failed = True
        error = _of_the_system(error) or error
        what = getattr(error, "strerror", None) or " ".join(str(error).split()).rstrip(".")
        reason = masked(what) or type(error).__name__
        warnings.warn(f"{self.key}: {reason}; training goes on without it", stacklevel=3)


def _of_the_system(error: BaseException | None) -> OSError | None:
    """The full disk, say, that a library's own words were made of."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
