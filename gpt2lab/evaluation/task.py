"""What every task has: how its data becomes items, and how their scores become metrics."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2lab.config import EvaluateConfig
from gpt2lab.evaluation.items import Item, Scores
from gpt2lab.statistics import Interval

if TYPE_CHECKING:
    from gpt2lab.model import GPT2

Record = dict[str, Any]
"""What is kept of an item's scores, in JSON's types."""


@dataclass(frozen=True)
class Metric:
    """A number to be compared."""

    name: str
    interval: Interval
    over: str
    """What the interval is taken over, such as windows."""


class BaseTask(ABC):
    """One task, first with its data and then with its items.

    The order of calls: `read`, `items`, `record` for each item, `metrics`.
    """

    protocol: str
    """How it is done, in words, with its source: stored with the results. What changes numbers
    changes it."""

    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config

    @abstractmethod
    def read(self) -> None:
        """Take in the data; without torch, so that mistakes are answered at once.

        Raises:
            DataError: naming the file, and the line or byte.
        """

    @abstractmethod
    def items(self, model: "GPT2") -> list[Item]:
        """What the model is asked, in the data's order; all, whatever the limit.

        Raises:
            ConfigError, DataError: if the model cannot be asked this.
        """

    @abstractmethod
    def record(self, number: int, scores: Sequence[Scores]) -> Record:
        """What is kept of an item's scores."""

    @abstractmethod
    def metrics(self, records: Sequence[Record], model: "GPT2") -> list[Metric]:
        """Of the first items, as many as there are records."""
