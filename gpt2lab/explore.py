"""python -m gpt2lab.explore: a web page on which one looks into a model."""

import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import ExploreConfig, Precision
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.heap import importing
from gpt2lab.loading import check_checkpoint, load
from gpt2lab.signals import Signalled
from gpt2lab.terminal import take_any_text

PURPOSE = """\
A web page on which one looks into a model: what it would say next, to be gone on with by a click,
what its heads look at, what each layer would say, and how the text becomes tokens. The page's
address is the last line of stdout; it is for this machine alone, and asks nothing of any other.
Ctrl-C ends it. checkpoint=, checkpoint2= and prompt= are taken as they are typed."""


def main() -> int:
    flags = arguments("explore", PURPOSE)
    composed = settings_from("explore", flags.overrides, flags.config_dir)
    settings: ExploreConfig = composed.settings
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    take_any_text()
    if find_spec("gradio") is None:
        raise ConfigError("gradio: is not installed; pip install 'gpt2lab[ui]' adds it")
    given = (settings.checkpoint, settings.checkpoint2)
    checkpoints = [Path(path) for path in given if path is not None]
    for path in checkpoints:
        check_checkpoint(path)  # before torch is loaded

    from gpt2lab.explorer.gradio_import import import_gradio
    from gpt2lab.explorer.server import bound, serve, show_browser, tell_faults_in_one_line

    listening = bound(settings.host, settings.port)
    with importing():
        gradio = import_gradio()
        from gpt2lab.explorer.session import Explorer, Side
    sides = [
        Side(
            name,
            # fp32: what is shown is what the weights say, to the digits shown.
            load(
                path,
                precision=Precision.fp32,
                device=settings.device,
                allow_nonfinite=settings.allow_nonfinite,
            ),
        )
        for name, path in zip(names_of(checkpoints), checkpoints, strict=True)
    ]
    gradio.join()
    if not settings.debug:
        tell_faults_in_one_line()

    def ready(url: str) -> None:
        print(url, flush=True)
        if settings.open_browser:
            show_browser(url)

    title = f"Inside {' and '.join(side.name for side in sides)}"
    explorer = Explorer(sides, settings.prompt or "")
    try:
        serve(explorer, title, listening, settings.host, settings.token, ready)
    except Signalled as asked:
        if asked.number != signal.SIGINT:
            raise
        return asked.code  # it is the way to end it: there is nothing to say
    return 0


def names_of(paths: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells them apart: a/last.ckpt and b/last.ckpt."""
    whole = [path.absolute().parts for path in paths]
    for count in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-count:]) for parts in whole]
        if len(set(names)) == len(set(whole)):
            break
    return names


if __name__ == "__main__":
    show_errors(main)
