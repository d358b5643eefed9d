"""Evaluation."""

from dataclasses import dataclass
from enum import Enum

from gpt2lab.config.settings.fields import ranged, verbatim
from gpt2lab.config.settings.machine import Device, Precision

Task = Enum(
    "Task",
    [
        "perplexity",
        "lambada",
        "hellaswag",
        "wikitext2",
        "wikitext103",
        "ptb",
        "enwik8",
        "text8",
        "cbt",
        "1bw",  # no name that a class body could have
        "sort",
        "compare",
        "lm_eval",
    ],
)
"""What a model is evaluated at."""


@dataclass
class EvaluateConfig:
    """All settings of `python -m gpt2lab.evaluate`."""

    checkpoint: str | None = verbatim(path=True)
    """A run folder (its best checkpoint, else its last), a checkpoint file, a folder in the Hugging
    Face layout, or a name on its hub: gpt2, owner/name, owner/name@revision."""
    task: Task | None = None
    """perplexity of any text, lambada, hellaswag, wikitext2, wikitext103, ptb, enwik8, text8, cbt,
    1bw, or sort; compare, which is better of two; lm_eval, any task of lm-eval."""
    data: str | None = verbatim(path=True)
    """A local file, folder or glob, or builtin for perplexity and compare; null: the task's data of
    the hub, or sorting for compare."""
    a: str | None = verbatim(path=True)
    """Of compare: one checkpoint, given as checkpoint= is for the other tasks."""
    b: str | None = verbatim(path=True)
    """Of compare: the other one."""
    lm_eval_tasks: str | None = verbatim()
    """Of lm_eval: names of tasks or groups, with commas between."""
    include_path: str | None = verbatim(path=True)
    """Of lm_eval: a folder of tasks besides its own, in yaml; null for none."""
    num_fewshot: int | None = ranged(None, ge=0)
    """Of lm_eval: worked examples before each question; null: as the task has it."""
    to: str | None = verbatim(path=True)
    """Folder of the results; null: evaluations/ in the run's folder, or evaluations/<checkpoint>/
    here where there is no run."""
    stride: int | None = ranged(None, ge=1)
    """Tokens by which the window moves on over a text; null: the model's context, the cheapest."""
    add_start_token: bool | None = None
    """The end of text stands before each text; null: as the task's protocol has it."""
    limit: int | None = ranged(None, ge=1)
    """Only the first so many items: windows of a text, or questions; null for all."""
    batch_tokens: int = ranged(8192, ge=1, le=2**24)
    """Tokens that are computed at once, padding counted. It changes no result but for rounding."""
    precision: Precision = Precision.fp32
    """Of the weights; fp32 gives numbers that anyone can compare, bf16 and auto are faster."""
    device: Device = Device.auto
    """auto takes a GPU where there is one."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    json: bool = False
    """The last line is one JSON object with the results."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
