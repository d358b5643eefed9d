"""What must hold between and within settings beyond their types; every problem found at once."""

from collections.abc import Callable, Iterator
from typing import Any

from gpt2lab.config.check.evaluate import evaluate_problems
from gpt2lab.config.check.explore import explore_problems
from gpt2lab.config.check.export import export_problems
from gpt2lab.config.check.insight import insight_problems
from gpt2lab.config.check.ranges import range_problems
from gpt2lab.config.check.runs import runs_problems
from gpt2lab.config.check.sample import sample_problems
from gpt2lab.config.check.study import sweep_problems
from gpt2lab.config.check.train import train_problems
from gpt2lab.config.settings.evaluate import EvaluateConfig
from gpt2lab.config.settings.explore import ExploreConfig
from gpt2lab.config.settings.export import ExportConfig
from gpt2lab.config.settings.insight import InsightConfig
from gpt2lab.config.settings.plan import PlanConfig
from gpt2lab.config.settings.runs import RunsConfig
from gpt2lab.config.settings.sample import SampleConfig
from gpt2lab.config.settings.study import SweepConfig
from gpt2lab.config.settings.train import TrainConfig

RULES: dict[type, Callable[[Any], Iterator[str]]] = {
    TrainConfig: train_problems,
    SampleConfig: sample_problems,
    ExploreConfig: explore_problems,
    ExportConfig: export_problems,
    InsightConfig: insight_problems,
    EvaluateConfig: evaluate_problems,
    PlanConfig: train_problems,
    RunsConfig: runs_problems,
    SweepConfig: sweep_problems,
}
"""What must hold between the settings of each command line."""


def problems(config: Any) -> list[str]:
    """Everything wrong with settings whose types are right; empty when all is well."""
    return [*range_problems(config), *RULES[type(config)](config)]
