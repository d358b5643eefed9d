"""An evaluation from its checkpoint and data to its metrics."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.config import EvaluateConfig
from gpt2lab.durable import check_writable
from gpt2lab.evaluation.checkpoint import decided_by, key_of, model_of
from gpt2lab.evaluation.items import Item, fingerprint
from gpt2lab.evaluation.journal import Journal
from gpt2lab.evaluation.results import as_results, folder_of, make, write
from gpt2lab.evaluation.task import BaseTask, Record
from gpt2lab.evaluation.tasks import task_of
from gpt2lab.loading import located

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a checkpoint at a task, and write what was found as <folder>/<task>.json.

    Killed, and asked the same once more, it goes on behind what is in its journal.

    Returns:
        What was written: metrics, and all that decided them.
    Raises:
        ConfigError, DataError, CheckpointError: for what cannot be, before torch is loaded where
            that can be known without.
    """
    assert config.checkpoint is not None
    assert config.task is not None
    began = time.perf_counter()
    checkpoint = Path(config.checkpoint)
    path = located(checkpoint)
    folder = folder_of(checkpoint, config.to)
    check_writable(folder, "to")
    task = task_of(config)
    task.read()
    model = model_of(path, config)
    items = task.items(model)[: config.limit]
    deciding = what_decides(config, task, path, model, items)
    make(folder)
    with Journal(folder / f".{config.task.name}-{key_of(deciding)}.journal") as journal:
        records = scored(model, task, items, journal, config.batch_tokens)
    results: dict[str, Any] = {
        "task": config.task.name,
        "metrics": as_results(
            config.task.name, task.metrics(records, model), deciding["parameters"]
        ),
        "items": len(items),
        "limit": config.limit,
        "checkpoint": str(path),
        "data": config.data,
        "stride": config.stride,
        "protocol": task.protocol,
        **deciding,
        "seconds": round(time.perf_counter() - began, 3),
    }
    target = folder / f"{config.task.name}.json"
    write(target, results)
    journal.remove()
    return results | {"file": str(target)}


def what_decides(
    config: EvaluateConfig, task: BaseTask, path: Path, model: "GPT2", items: list[Item]
) -> dict[str, Any]:
    """All that numbers depend on; how many are computed at once is none of it."""
    return {
        **decided_by(path, model),
        "items_sha256": fingerprint(items),
        "protocol_sha256": hashlib.sha256(task.protocol.encode()).hexdigest(),
    }


def scored(
    model: "GPT2", task: BaseTask, items: Sequence[Item], journal: Journal, batch_tokens: int
) -> list[Record]:
    """The record of each item, in order; what the journal has is not scored again.

    Raises:
        RunError: if the model's numbers are not finite.
    """
    from gpt2lab.evaluation.scoring import score_batches

    for batch in score_batches(model, items, batch_tokens, journal.has):
        journal.add({number: task.record(number, scores) for number, scores in batch})
    return [journal.records[i] for i in range(len(items))]
