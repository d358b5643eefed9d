"""The errors of ours: three that a user can cause, and one that may meet a running training."""


class Gpt2labError(Exception):
    """A mistake in what was asked for; ends the program with code 2 and one line a problem.

    Each problem reads `<config key or file>: <what>; <what to do>`.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(map(one_line, problems))
        super().__init__("\n".join(self.problems))


def one_line(text: str) -> str:
    """A text with its line ends and other controls spelt out, as \\n: an override may hold any."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class ConfigError(Gpt2labError):
    """Settings that are misspelt, of the wrong type, out of range or at odds with each other."""


class DataError(Gpt2labError):
    """Data that is missing, damaged or does not fit the settings."""


class CheckpointError(Gpt2labError):
    """A checkpoint that is missing, damaged or of another model."""


class RunError(Exception):
    """A fault after the first step, such as a full disk: exit code 1, and one line without a type.

    The line reads `<key or file>: <what>; <what to do>`, as a user's own errors do.
    """


class LostRankError(RunError):
    """A rank that was ended by a signal, a crash or its device: it may be started again."""

    def __init__(self, rank: int | None, how: str) -> None:
        self.what = f"{'a rank' if rank is None else f'rank {rank}'}: ended by {how}"
        super().__init__(
            f"{self.what}; see the system's log for a lack of memory, and go on with resume=last"
        )
