"""Explore: a web page on which one looks into a model."""

from dataclasses import dataclass

from gpt2lab.config.settings.fields import ranged, verbatim
from gpt2lab.config.settings.machine import Device


@dataclass
class ExploreConfig:
    """All settings of `python -m gpt2lab.explore`."""

    checkpoint: str | None = verbatim(path=True)
    """A run folder (its best checkpoint, else its last), a checkpoint file, a folder in the Hugging
    Face layout, or a name on its hub: gpt2, owner/name, owner/name@revision."""
    checkpoint2: str | None = verbatim(path=True)
    """Another one, which is shown beside it and reads the same text; null for none."""
    prompt: str | None = verbatim()
    """The text that the page begins with; null is nothing, "null" is the word."""
    host: str = "127.0.0.1"
    """The address to listen at. Any but this machine's own needs token=."""
    port: int = ranged(0, ge=0, le=65535)
    """The port to listen at; 0 takes a free one."""
    token: str | None = None
    """A secret that the page's address must hold; null for none, at this machine's own address."""
    open_browser: bool = False
    """Show the page in the browser of this machine."""
    device: Device = Device.auto
    """auto takes a GPU where there is one."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
