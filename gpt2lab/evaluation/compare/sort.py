"""Two models that sort: which has more held-out inputs right."""

from pathlib import Path
from typing import Any

import numpy as np

from gpt2lab.config import EvaluateConfig
from gpt2lab.errors import ConfigError
from gpt2lab.evaluation.compare.sides import Side
from gpt2lab.evaluation.compare.verdict import as_metric, span, verdict
from gpt2lab.evaluation.tasks.sort import Sort
from gpt2lab.statistics import paired_shares

PROTOCOL = (
    "the same held-out inputs, each right to its last digit or not, greedy; exact sign test over "
    "inputs that one of the two alone has right; difference: b less a"
)


def compare_sort(config: EvaluateConfig, sides: tuple[Side, Side], folder: Path) -> dict[str, Any]:
    """
    Raises:
        ConfigError: if one model knows other inputs than the other.
    """
    tasks = [Sort(config) for _ in sides]
    items = [task.items(side.model) for task, side in zip(tasks, sides, strict=True)]
    a, b = (side.model.speech for side in sides)
    assert a is not None
    assert b is not None
    knows = [(s.question_tokens, s.tokenizer.vocab_size) for s in (a, b)]
    if knows[0] != knows[1]:
        told = ["{} digits of {}".format(*each) for each in knows]
        raise ConfigError(
            f"b: sorts {told[1]}, a sorts {told[0]}, so that they have no inputs in common; give "
            "two of one task"
        )
    right = [
        [bool(record["right"]) for record in side.records(config, task, own, folder)]
        for side, task, own in zip(sides, tasks, items, strict=True)
    ]
    found = paired_shares(*right)
    effect = f"{span(found)} more of its answers right"
    count = len(right[0])
    return {
        **verdict(found, effect, count, "held-out inputs", lower_wins=False),
        "metrics": {"exact_match": as_metric([float(np.mean(each)) for each in right], found)},
        "units": {"kind": "held-out inputs", "count": count, "before_joining": count},
        "protocol": PROTOCOL,
    }
