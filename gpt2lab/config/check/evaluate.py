"""Rules of evaluation."""

from collections.abc import Iterator

from gpt2lab.config.check.sample import checkpoint_problems
from gpt2lab.config.settings import EvaluateConfig, Task

WITHOUT_WINDOWS = ("lambada", "hellaswag", "cbt", "sort")
"""Tasks that ask about single places, not about a whole text."""


def data_problems(config: EvaluateConfig) -> Iterator[str]:
    name = config.task.name if config.task is not None else None
    if config.data == "":
        yield "data: is empty; name a file, or leave data out"
    if name == "perplexity" and config.data is None:
        yield "data: is null; give a text file, a folder or glob of them, or data=builtin"
    if name == "sort" and config.data is not None:
        yield f"data: {config.data} is not needed to sort; leave it out"


def evaluate_problems(config: EvaluateConfig) -> Iterator[str]:
    yield from checkpoint_problems(config.checkpoint)
    if config.task is None:
        yield f"task: none is chosen; choose {', '.join(Task.__members__)}"
    yield from data_problems(config)
    if config.to == "":
        yield "to: is empty; name a folder, or leave to out"
    if config.stride is not None and config.task and config.task.name in WITHOUT_WINDOWS:
        yield f"stride: {config.stride} moves no window in task={config.task.name}; leave it out"
    if config.add_start_token is not None and config.task and config.task.name == "sort":
        yield "add_start_token: digits have no start token; leave it out"
