"""The tasks of one checkpoint, by name."""

from gpt2lab.config import EvaluateConfig, Task
from gpt2lab.evaluation.task import BaseTask
from gpt2lab.evaluation.tasks.benchmarks import (
    PTB,
    Enwik8,
    OneBillionWords,
    Text8,
    WikiText2,
    WikiText103,
)
from gpt2lab.evaluation.tasks.cbt import ChildrensBooks
from gpt2lab.evaluation.tasks.hellaswag import HellaSwag
from gpt2lab.evaluation.tasks.lambada import Lambada
from gpt2lab.evaluation.tasks.sort import Sort
from gpt2lab.evaluation.tasks.text import Perplexity

TASKS: dict[str, type[BaseTask]] = {
    "perplexity": Perplexity,
    "lambada": Lambada,
    "hellaswag": HellaSwag,
    "wikitext2": WikiText2,
    "wikitext103": WikiText103,
    "ptb": PTB,
    "enwik8": Enwik8,
    "text8": Text8,
    "cbt": ChildrensBooks,
    "1bw": OneBillionWords,
    "sort": Sort,
}


def task_of(config: EvaluateConfig) -> BaseTask:
    """The task that the settings name."""
    assert config.task is not None
    assert TASKS.keys() | {"compare", "lm_eval"} == Task.__members__.keys()
    return TASKS[config.task.name](config)
