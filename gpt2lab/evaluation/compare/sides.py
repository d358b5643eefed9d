"""One of the two that are compared: its model, and what it makes of the items."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.config import EvaluateConfig
from gpt2lab.evaluation.items import Item
from gpt2lab.evaluation.journal import Journal
from gpt2lab.evaluation.run import scored, what_decides
from gpt2lab.evaluation.task import BaseTask, Record
from gpt2lab.loading import load

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
        name = hashlib.sha256(json.dumps(self.deciding, sort_keys=True).encode()).hexdigest()[:16]
        with Journal(folder / f".compare-{name}.journal") as journal:
            self.journals.append(journal)
            return scored(self.model, task, items, journal, config.batch_tokens)

    def forget(self) -> None:
        """Remove what was kept in case of a kill."""
        for journal in self.journals:
            journal.remove()


def side_of(key: str, path: Path, config: EvaluateConfig) -> Side:
    model = load(
        path,
        precision=config.precision,
        device=config.device,
        allow_nonfinite=config.allow_nonfinite,
    )
    return Side(key, path, model)
