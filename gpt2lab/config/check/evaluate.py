"""Rules of evaluation."""

from collections.abc import Iterator

from gpt2lab.config.changes import shown
from gpt2lab.config.check.sample import checkpoint_problems, read_precision_problems
from gpt2lab.config.settings.evaluate import EvaluateConfig, Task

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


OF_ONE_TASK = {
    "a": "compare",
    "b": "compare",
    "lm_eval_tasks": "lm_eval",
    "include_path": "lm_eval",
    "num_fewshot": "lm_eval",
}
"""Settings that one task has alone."""


def problems_of_one_task(config: EvaluateConfig) -> Iterator[str]:
    """Of settings that only one task has, and those that it has not."""
    name = config.task.name if config.task is not None else None
    for key, of_task in OF_ONE_TASK.items():
        value = getattr(config, key)
        if name != of_task and value is not None:
            yield f"{key}: {shown(value)} is for task={of_task}; leave it out"
        elif name == of_task and value == "":
            yield f"{key}: is empty; give a value, or leave {key}= out"
    if name == "compare":
        for key in ("a", "b"):
            if getattr(config, key) is None:
                yield from _called(key, checkpoint_problems(None))
        if config.checkpoint is not None:
            yield f"checkpoint: {config.checkpoint} is none of a and b; leave it out"
    if name == "lm_eval":
        if config.lm_eval_tasks is None:
            yield "lm_eval_tasks: is null; name one of lm-eval's tasks, or several with commas"
        for key in ("data", "stride", "add_start_token"):
            if (value := getattr(config, key)) is not None:
                yield f"{key}: {shown(value)} is up to each task of lm_eval; leave it out"


def _called(key: str, problems: Iterator[str]) -> Iterator[str]:
    return (f"{key}: {problem.partition(': ')[2]}" for problem in problems)


def evaluate_problems(config: EvaluateConfig) -> Iterator[str]:
    if config.task is None or config.task.name != "compare":
        yield from checkpoint_problems(config.checkpoint)
    yield from read_precision_problems(config.precision)
    yield from problems_of_one_task(config)
    if config.task is None:
        yield f"task: none is chosen; choose {', '.join(Task.__members__)}"
    yield from data_problems(config)
    if config.to == "":
        yield "to: is empty; name a folder, or leave to out"
    if config.stride is not None and config.task and config.task.name in WITHOUT_WINDOWS:
        yield f"stride: {config.stride} moves no window in task={config.task.name}; leave it out"
    if config.add_start_token is not None and config.task and config.task.name == "sort":
        yield "add_start_token: digits have no start token; leave it out"
