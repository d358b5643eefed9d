"""Runs: what there is, and how two of them differ."""

from dataclasses import dataclass, field

from gpt2lab.config.settings.fields import verbatim


@dataclass
class RunsConfig:
    """All settings of `python -m gpt2lab.runs`."""

    runs_dir: str = "runs"
    """The folder whose runs are listed: that of the trainings, or a study's own."""
    a: str | None = verbatim()
    """A run to compare with b=: its name in runs_dir, or its folder."""
    b: str | None = verbatim()
    """The other one."""
    sort: str | None = None
    """A metric, such as val/loss, by whose best value runs are listed; null: by their beginning."""
    show: list[str] = field(default_factory=list)
    """Settings that have a column each, such as '[optim.lr,seed]'."""
    json: bool = False
    """The last line is one JSON object: every run, or every difference."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
