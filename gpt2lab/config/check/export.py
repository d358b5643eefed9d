"""Rules of export."""

from collections.abc import Iterator

from gpt2lab.config.check.sample import checkpoint_problems
from gpt2lab.config.settings.export import ExportConfig, ExportFormat, StoredPrecision


def export_problems(config: ExportConfig) -> Iterator[str]:
    yield from checkpoint_problems(config.checkpoint)
    if not config.to:
        yield f"to: is {'null' if config.to is None else 'empty'}; name a folder to write"
    if config.format is not ExportFormat.hf and config.precision is not StoredPrecision.fp32:
        form = config.format.name
        yield f"precision: {config.precision.name} is for format=hf, {form} has fp32; leave it out"
