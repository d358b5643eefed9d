"""Which of two checkpoints is better, if that can be told."""

import time
from pathlib import Path
from typing import Any

from gpt2lab import __version__
from gpt2lab.config import EvaluateConfig
from gpt2lab.durable import check_writable
from gpt2lab.errors import ConfigError
from gpt2lab.evaluation.compare.sides import Side, side_of
from gpt2lab.evaluation.compare.sort import compare_sort
from gpt2lab.evaluation.compare.text import compare_text, documents_of
from gpt2lab.evaluation.results import folder_of, make, named, write
from gpt2lab.loading import located


def compare(config: EvaluateConfig) -> dict[str, Any]:
    """Compare two checkpoints at a text, or at sorting if that is what both do.

    The results are <folder of a>/compare-<b>.json. Killed, and asked the same once more, it goes on
    behind what is in its journals.

    Returns:
        What was written.
    Raises:
        ConfigError, DataError, CheckpointError: for what cannot be, before torch is loaded where
            that can be known without.
    """
    began = time.perf_counter()
    checkpoints = [Path(given) for given in (config.a, config.b) if given is not None]
    paths = [located(checkpoint) for checkpoint in checkpoints]
    folder = folder_of(checkpoints[0], config.to)
    check_writable(folder, "to")
    documents = None if config.data is None else documents_of(config)
    a, b = (side_of(key, path, config) for key, path in zip("ab", paths, strict=True))
    is_sort = sorts(a, b)
    if is_sort and documents is not None:
        raise ConfigError(f"data: {config.data} is not needed to sort; leave it out")
    make(folder)
    if is_sort:
        found = compare_sort(config, (a, b), folder)
    elif documents is None:
        raise ConfigError(
            "data: is null, and both models are of text; give a text file, a folder or glob of "
            "them, or data=builtin"
        )
    else:
        found = compare_text(config, (a, b), documents, folder)
    results = {
        "task": "compare",
        **found,
        "a": str(a.path),
        "b": str(b.path),
        "data": config.data,
        "stride": config.stride,
        "limit": config.limit,
        "a_decides": a.deciding,
        "b_decides": b.deciding,
        "version": __version__,
        "seconds": round(time.perf_counter() - began, 3),
    }
    target = folder / f"compare-{named(checkpoints[1])}.json"
    write(target, results)
    for side in (a, b):
        side.forget()
    return results | {"file": str(target)}


def sorts(*sides: Side) -> bool:
    """Whether the models sort digits; else both read text.

    Raises:
        ConfigError: if nothing can be asked of both.
    """
    for side in sides:
        if side.model.speech is None:
            raise ConfigError(
                f"{side.key}: what its {side.model.vocab_size:,} ids stand for is not known; give "
                "a model with GPT-2's vocabulary, or a checkpoint of ours"
            )
    first, second = (side.model.speech.tokenizer.kind == "digits" for side in sides)  # type: ignore[union-attr]
    if first != second:
        raise ConfigError(
            f"{'a' if first else 'b'}: sorts digits, the other one reads text; give two of one kind"
        )
    return first
