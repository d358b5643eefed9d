"""Settings: types and ranges (`settings`), rules (`check`), reading (`parse`), Hydra (`compose`).

Loads without torch, so that help and mistakes are answered at once.
"""

from gpt2lab.config.check.metrics import HIGHER_IS_BETTER, parse_stop_at
from gpt2lab.config.parse import parse, plain
from gpt2lab.config.settings.data import (
    DataConfig,
    PairsConfig,
    PairsSource,
    SortConfig,
    TextConfig,
    TextErrors,
    TextSource,
    Vocabulary,
)
from gpt2lab.config.settings.evaluate import EvaluateConfig, Task
from gpt2lab.config.settings.explore import ExploreConfig
from gpt2lab.config.settings.export import ExportConfig, ExportFormat, StoredPrecision
from gpt2lab.config.settings.insight import Ablation, InsightConfig
from gpt2lab.config.settings.machine import Device, Precision, Quantize
from gpt2lab.config.settings.model import GPT2Config
from gpt2lab.config.settings.optim import (
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    MuonConfig,
    OptimConfig,
    ScheduleConfig,
    WSDConfig,
)
from gpt2lab.config.settings.plan import Hardware, PlanConfig
from gpt2lab.config.settings.runs import RunsConfig
from gpt2lab.config.settings.sample import BeyondContext, SampleConfig, SamplingConfig
from gpt2lab.config.settings.study import (
    Direction,
    OnFail,
    Pruner,
    Sampler,
    StudyConfig,
    SweepConfig,
)
from gpt2lab.config.settings.train import SHAPES, TrainConfig

__all__ = [
    "HIGHER_IS_BETTER",
    "SHAPES",
    "Ablation",
    "AdamWConfig",
    "BeyondContext",
    "ConstantConfig",
    "CosineConfig",
    "DataConfig",
    "Device",
    "Direction",
    "EvaluateConfig",
    "ExploreConfig",
    "ExportConfig",
    "ExportFormat",
    "GPT2Config",
    "Hardware",
    "InsightConfig",
    "MuonConfig",
    "OnFail",
    "OptimConfig",
    "PairsConfig",
    "PairsSource",
    "PlanConfig",
    "Precision",
    "Pruner",
    "Quantize",
    "RunsConfig",
    "SampleConfig",
    "Sampler",
    "SamplingConfig",
    "ScheduleConfig",
    "SortConfig",
    "StoredPrecision",
    "StudyConfig",
    "SweepConfig",
    "Task",
    "TextConfig",
    "TextErrors",
    "TextSource",
    "TrainConfig",
    "Vocabulary",
    "WSDConfig",
    "parse",
    "parse_stop_at",
    "plain",
]
