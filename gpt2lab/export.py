"""python -m gpt2lab.export: a trained model in files that others read."""

import json
import time
from importlib.util import find_spec
from pathlib import Path

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import ExportConfig, ExportFormat
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.loading import check_checkpoint
from gpt2lab.weights.target import check_target, check_target_file

PURPOSE = """\
A trained model in files that others read: transformers, vLLM, llama.cpp's converter and KerasHub,
or onnxruntime; or a checkpoint of several ranks in one file. What was written is read again and
compared before it says done. checkpoint= and to= are taken as they are typed."""

PACKAGES = {
    ExportFormat.hf: ("hf", ("safetensors",)),
    ExportFormat.onnx: ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    ExportFormat.checkpoint: ("", ()),
}
"""The extra of each format, and what of it must be there."""


def main() -> int:
    flags = arguments("export", PURPOSE)
    composed = settings_from("export", flags.overrides, flags.config_dir)
    settings: ExportConfig = composed.settings
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    assert settings.checkpoint is not None
    assert settings.to is not None
    checkpoint, to = (Path(p) for p in (settings.checkpoint, settings.to))
    check_packages(settings.format)
    check_checkpoint(checkpoint)  # before torch is loaded
    is_file = settings.format is ExportFormat.checkpoint
    (check_target_file if is_file else check_target)(to, checkpoint, settings.overwrite)

    from gpt2lab.exporting import export, export_checkpoint

    began = time.perf_counter()
    if is_file:
        done = export_checkpoint(checkpoint, to, settings.overwrite, settings.allow_nonfinite)
    else:
        done = export(
            checkpoint,
            to,
            form=settings.format,
            precision=settings.precision,
            overwrite=settings.overwrite,
            allow_nonfinite=settings.allow_nonfinite,
        )
    for name, size in done.files.items():
        print(f"{size:>15,} {name}")
    for reader, equal in done.compared.items():
        print(f"read again by {reader}, equal: {', '.join(equal)}")
    print(to)
    if settings.json:
        seconds = time.perf_counter() - began
        print(json.dumps({"to": str(to), **vars(done), "seconds": seconds}))
    return 0


def check_packages(form: ExportFormat) -> None:
    """
    Raises:
        ConfigError: if a package that this format needs is not installed.
    """
    extra, packages = PACKAGES[form]
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(
                f"format: {form.name} needs the package {package}; "
                f"run pip install 'gpt2lab[{extra}]'"
            )


if __name__ == "__main__":
    show_errors(main)
