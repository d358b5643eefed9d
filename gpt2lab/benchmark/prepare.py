"""Text into token files beside tiktoken alone over the same documents: CPU time of one process."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from gpt2lab.config import TextConfig
from gpt2lab.data.prepare import builtin, prepare
from gpt2lab.errors import ConfigError
from gpt2lab.tokenizer import gpt2_tokenizer

DOCUMENT_CHARS, COPIES, ROUNDS = 3000, 12, 9


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """CPU seconds of both over Python's own docs, cut into documents and repeated as .jsonl."""
    if overrides:
        raise ConfigError(f"benchmark prepare: {overrides[0]} is a setting; leave it out")
    text = "\n\n".join(builtin.documents())
    cuts = range(0, len(text), DOCUMENT_CHARS)
    documents = [f"{copy} {text[i : i + DOCUMENT_CHARS]}" for copy in range(COPIES) for i in cuts]
    with tempfile.TemporaryDirectory() as name, redirect_stderr(StringIO()):  # it says what it does
        folder = Path(name)
        path = folder / "documents.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        config = TextConfig(path=str(path), num_processes=1)
        ours, theirs = [], []
        for number in range(ROUNDS + 1):
            theirs.append(cpu_seconds(partial(encode_alone, documents)))
            ours.append(cpu_seconds(partial(prepare, config, folder / str(number))))
    # The first of each warms up.
    ratios = sorted(b / a for a, b in zip(ours[1:], theirs[1:], strict=True))
    return {
        "documents": len(documents),
        "megabytes": sum(map(len, documents)) / 1e6,
        "prepare_seconds": statistics.median(ours[1:]),
        "tiktoken_seconds": statistics.median(theirs[1:]),
        "share_of_tiktokens_speed": statistics.median(ratios),
        "share_lowest": ratios[0],
        "share_highest": ratios[-1],
    }


def encode_alone(documents: Sequence[str]) -> None:
    encode = gpt2_tokenizer()._encoding.encode_to_numpy  # tiktoken's own
    for text in documents:
        encode(text, disallowed_special=())


def cpu_seconds(action: Callable[[], Any]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start
