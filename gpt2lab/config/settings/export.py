"""Export: a trained model in files that others read."""

from dataclasses import dataclass
from enum import Enum

from gpt2lab.config.settings.fields import verbatim


class ExportFormat(Enum):
    """Which files hold the model."""

    hf = "hf"
    onnx = "onnx"
    checkpoint = "checkpoint"


class StoredPrecision(Enum):
    """The number format of the weights in a file."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass
class ExportConfig:
    """All settings of `python -m gpt2lab.export`."""

    checkpoint: str | None = verbatim(path=True)
    """A run folder (its best checkpoint, else its last), a checkpoint file, a folder in the Hugging
    Face layout, or a name on its hub: gpt2, owner/name, owner/name@revision."""
    to: str | None = verbatim(path=True)
    """The folder to write: a new one, or one that is empty; with format=checkpoint, a file."""
    format: ExportFormat = ExportFormat.hf
    """hf: config.json and model.safetensors, as transformers has them; onnx: model.onnx;
    checkpoint: one file of ours, from which a training goes on."""
    precision: StoredPrecision = StoredPrecision.fp32
    """Of the weights in the file; fp32 is what was trained, bit for bit."""
    overwrite: bool = False
    """Replace what an earlier export wrote there; a folder that holds anything else is left."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    json: bool = False
    """The last line is one JSON object: what was written, and what was compared."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
