"""Runs: what there is, and how two of them differ."""

from dataclasses import dataclass

from gpt2lab.config.settings.fields import path_or_name, verbatim


@dataclass
class RunsConfig:
    """All settings of `python -m gpt2lab.runs`."""

    runs_dir: str = path_or_name("runs")
    """The folder whose runs are listed: that of the trainings, or a study's own."""
    a: str | None = verbatim(path=True)
    """A run to compare with b=: its name in runs_dir, or its folder."""
    b: str | None = verbatim(path=True)
    """The other one."""
    sort: str | None = None
    """A metric, such as val/loss, by whose best value runs are listed; null: by their beginning."""
    show: str | None = verbatim()
    """Settings that have a column each, with commas between, such as optim.lr,seed."""
    json: bool = False
    """The last line is one JSON object: every run, or every difference."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
