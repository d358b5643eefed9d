"""Insight: pictures of what happens inside a model."""

from dataclasses import dataclass
from enum import Enum

from gpt2lab.config.settings.fields import ranged, verbatim
from gpt2lab.config.settings.machine import Device


class Ablation(Enum):
    """What stands in the place of a head's output when the head is taken away."""

    mean = "mean"
    zero = "zero"


@dataclass
class InsightConfig:
    """All settings of `python -m gpt2lab.insight`."""

    checkpoint: str | None = verbatim(path=True)
    """A run folder (its best checkpoint, else its last), a checkpoint file, a folder in the Hugging
    Face layout, or a name on its hub: gpt2, owner/name, owner/name@revision."""
    prompt: str | None = verbatim()
    """What is read, as it is typed; null is nothing, "null" is the word."""
    to: str | None = verbatim(path=True)
    """The folder to write: a new one, or one that is empty."""
    layer: int | None = ranged(None, ge=0)
    """Layer of the head that is shown large, from 0; null: of the head whose removal costs most."""
    head: int | None = ranged(None, ge=0)
    """The head that is shown large, from 0; null: the one whose removal costs most."""
    token: int | None = ranged(None, ge=0)
    """The token, from 0, whose attention is drawn as arcs, and whose next token is shown; null:
    the last, or the one before an answer."""
    max_tokens: int = ranged(64, ge=2, le=256)
    """Of a longer prompt so many tokens are read, the last ones; more are not readable. The start
    token is not counted."""
    ablation: Ablation = Ablation.mean
    """What stands for the output of a head that is taken away: its mean over the text, or zero."""
    add_start_token: bool = True
    """Begin the prompt with the end of text, after which documents begin; where there is one."""
    allow_special: bool = False
    """The text <|endoftext|> in a prompt stands for the token; else it is plain text."""
    device: Device = Device.auto
    """auto takes a GPU where there is one."""
    overwrite: bool = False
    """Replace what an earlier insight wrote there; a folder that holds anything else is left."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    json: bool = False
    """The last line is one JSON object: every number of the page."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
