"""Settings: types and ranges (`settings`), rules (`check`), reading (`parse`), Hydra (`compose`).

Loads without torch, so that help and mistakes are answered at once.
"""

from gpt2lab.config.check.metrics import HIGHER_IS_BETTER, parse_stop_at
from gpt2lab.config.parse import parse, plain
from gpt2lab.config.settings import (
    AdamWConfig,
    BeyondContext,
    ConstantConfig,
    CosineConfig,
    DataConfig,
    Device,
    GPT2Config,
    MuonConfig,
    OptimConfig,
    PairsConfig,
    PairsSource,
    Precision,
    Quantize,
    SampleConfig,
    SamplingConfig,
    ScheduleConfig,
    SortConfig,
    TextConfig,
    TextErrors,
    TextSource,
    TrainConfig,
    Vocabulary,
    WSDConfig,
)

__all__ = [
    "HIGHER_IS_BETTER",
    "AdamWConfig",
    "BeyondContext",
    "ConstantConfig",
    "CosineConfig",
    "DataConfig",
    "Device",
    "GPT2Config",
    "MuonConfig",
    "OptimConfig",
    "PairsConfig",
    "PairsSource",
    "Precision",
    "Quantize",
    "SampleConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "SortConfig",
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
