"""One of the two that are compared: its model, and what it makes of the items."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.config import EvaluateConfig
from gpt2lab.evaluation.checkpoint import key_of, model_of
from gpt2lab.evaluation.items import Item
from gpt2lab.evaluation.journal import Journal
from gpt2lab.evaluation.run import scored, what_decides
from gpt2lab.evaluation.task import BaseTask, Record

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


@dataclass
class Side:
    """A checkpoint, as the setting `key`."""

    key: str
    path: Path
    model: "GPT2"
    deciding: dict[str, Any] = field(default_factory=dict)
    """All that its numbers depend on."""
    journals: list[Journal] = field(default_factory=list)

    def records(
        self, config: EvaluateConfig, task: BaseTask, items: Sequence[Item], folder: Path
    ) -> list[Record]:
        """Of each item; what a killed comparison had scored is not scored again."""
        items = list(items[: config.limit])
        self.deciding = what_decides(config, task, self.path, self.model, items)
        with Journal(folder / f".compare-{key_of(self.deciding)}.journal") as journal:
            self.journals.append(journal)
            return scored(self.model, task, items, journal, config.batch_tokens)

    def forget(self) -> None:
        """Remove what was kept in case of a kill."""
        for journal in self.journals:
            journal.remove()


def side_of(key: str, path: Path, config: EvaluateConfig) -> Side:
    return Side(key, path, model_of(path, config))
