"""python -m gpt2lab.insight: pictures of what happens inside a model."""

import json
import re
import time
import warnings
from pathlib import Path

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import InsightConfig, Precision
from gpt2lab.config.compose import settings_from
from gpt2lab.heap import importing
from gpt2lab.insight.captions import CAPTIONS, png_of
from gpt2lab.loading import check_checkpoint, load
from gpt2lab.terminal import take_any_text, write
from gpt2lab.weights.target import check_target

FILES = re.compile("|".join(map(re.escape, ["index.html", *map(png_of, CAPTIONS)])))
"""What an insight writes, and may overwrite."""
MARK = ("index.html", "<title>Inside ")

PURPOSE = """\
What happens inside a model when it reads a prompt: what each head looks at, what each layer would
say next, how sure it is, and what each head is worth; as pictures, with a page that shows them and
opens without a network. checkpoint=, prompt= and to= are taken as they are typed."""


def main() -> int:
    flags = arguments("insight", PURPOSE)
    composed = settings_from("insight", flags.overrides, flags.config_dir)
    settings: InsightConfig = composed.settings
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    assert settings.checkpoint is not None
    assert settings.to is not None
    take_any_text()
    checkpoint, to = (Path(p) for p in (settings.checkpoint, settings.to))
    check_checkpoint(checkpoint)  # before torch is loaded
    check_target(to, checkpoint, settings.overwrite, FILES, "insight", MARK)

    with importing():
        from gpt2lab.insight.folder import look_inside
        from gpt2lab.insight.page import has_plotly

    began = time.perf_counter()
    # fp32: what is shown is what the weights say, to the digits shown.
    model = load(
        checkpoint,
        precision=Precision.fp32,
        device=settings.device,
        allow_nonfinite=settings.allow_nonfinite,
    )
    if not has_plotly():
        warnings.warn(
            "plotly: is not installed, so that the page shows pictures which do not answer; "
            "pip install 'gpt2lab[insight]' adds it",
            stacklevel=2,
        )
    done = look_inside(model, to, settings)
    for name, size in done.files.items():
        print(f"{size:>15,} {name}")
    write(f"{done.summary}\n")
    print(to / "index.html")
    if settings.json:
        seconds = time.perf_counter() - began
        result = {"to": str(to), "files": done.files, **done.numbers, "seconds": seconds}
        print(json.dumps(result, allow_nan=False))
    return 0


if __name__ == "__main__":
    show_errors(main)
