"""Every setting of ours: its type, default, range and reason. No values of experiments live here.

Lightning's own arguments (`trainer`, `strategy`, `logger`, `callbacks`) are plain mappings with a
`_target_`.
A dataclass whose group has several shapes (`data`, `optim`, `schedule`) names its shape in `kind`.
"""

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
from gpt2lab.config.settings.evaluate import (
    EvaluateConfig,
    Task,
)
from gpt2lab.config.settings.explore import (
    ExploreConfig,
)
from gpt2lab.config.settings.export import (
    ExportConfig,
    ExportFormat,
    StoredPrecision,
)
from gpt2lab.config.settings.fields import (
    Range,
    ranged,
    verbatim,
)
from gpt2lab.config.settings.insight import (
    Ablation,
    InsightConfig,
)
from gpt2lab.config.settings.machine import (
    Device,
    Precision,
    Quantize,
)
from gpt2lab.config.settings.model import (
    GPT2Config,
)
from gpt2lab.config.settings.optim import (
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    MuonConfig,
    OptimConfig,
    ScheduleConfig,
    WSDConfig,
)
from gpt2lab.config.settings.plan import (
    Hardware,
    PlanConfig,
)
from gpt2lab.config.settings.runs import (
    RunsConfig,
)
from gpt2lab.config.settings.sample import (
    BeyondContext,
    SampleConfig,
    SamplingConfig,
)
from gpt2lab.config.settings.study import (
    Direction,
    OnFail,
    Pruner,
    Sampler,
    StudyConfig,
    SweepConfig,
)
from gpt2lab.config.settings.train import (
    SHAPES,
    TrainConfig,
)

__all__ = [
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
    "Range",
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
    "ranged",
    "verbatim",
]
