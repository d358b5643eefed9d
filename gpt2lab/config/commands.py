"""Which settings each command line has, and which folders of conf/ it chooses from.

A new one is a file in `settings` and one in `check`, conf/<name>.yaml, which begins with
`defaults: [schema_<name>, _self_, ...]`, and a line here.
"""

from dataclasses import dataclass, replace

from gpt2lab.config.settings.evaluate import EvaluateConfig
from gpt2lab.config.settings.explore import ExploreConfig
from gpt2lab.config.settings.export import ExportConfig
from gpt2lab.config.settings.insight import InsightConfig
from gpt2lab.config.settings.plan import PlanConfig
from gpt2lab.config.settings.runs import RunsConfig
from gpt2lab.config.settings.sample import SampleConfig
from gpt2lab.config.settings.study import SweepConfig
from gpt2lab.config.settings.train import TrainConfig


@dataclass(frozen=True)
class CommandLine:
    """What one command line can be told.

    Args:
        root: the dataclass of its settings.
        groups: folders of conf/ of which it takes an option each.
        extends: the command line whose settings are among these, and stand in that one's yaml file.
        is_grid: whether --multirun runs every combination of comma-separated values.
        quoted: how a value with blanks is given, in an example.
        word: what is named first, without a key.
    """

    root: type
    groups: tuple[str, ...]
    extends: str | None = None
    is_grid: bool = False
    quoted: str = "'name=\"a b\"'"
    word: str = ""


LIGHTNING_GROUPS = ("trainer", "strategy", "logger", "callbacks")
"""Groups of train whose values are Lightning's own arguments."""

COMMAND_LINES = {
    "train": CommandLine(
        TrainConfig,
        ("model", "data", "optim", "schedule", *LIGHTNING_GROUPS, "experiment"),
        is_grid=True,
    ),
    "sample": CommandLine(SampleConfig, ("sampling",), quoted='prompt="a b"'),
    "export": CommandLine(ExportConfig, ()),
    "insight": CommandLine(InsightConfig, (), quoted='prompt="a b"'),
    "explore": CommandLine(ExploreConfig, (), quoted='prompt="a b"'),
    "evaluate": CommandLine(EvaluateConfig, (), quoted='data="a b"'),
    "runs": CommandLine(RunsConfig, (), quoted='a="a b"'),
    "sweep": CommandLine(SweepConfig, (), word="STUDY"),
}
# They are told what train would be told, plan some more.
COMMAND_LINES["prepare"] = replace(COMMAND_LINES["train"], is_grid=False)
COMMAND_LINES["plan"] = replace(COMMAND_LINES["prepare"], root=PlanConfig, extends="train")
