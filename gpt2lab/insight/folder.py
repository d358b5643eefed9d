"""An insight's folder: the page and its pictures, there as a whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.config import InsightConfig
from gpt2lab.durable import is_full, whole_folder, write_whole
from gpt2lab.errors import RunError
from gpt2lab.insight.findings import findings
from gpt2lab.insight.page import page
from gpt2lab.insight.pictures import pictures
from gpt2lab.model import GPT2


@dataclass
class Insight:
    """What was written, and what it shows."""

    files: dict[str, int]
    """Bytes of each file."""
    numbers: dict[str, Any]
    summary: str


def look_inside(model: GPT2, to: Path, settings: InsightConfig) -> Insight:
    """Write a folder that takes the place of `to` when it is whole.

    Args:
        to: checked before: what is there is an earlier insight, or nothing.
    Raises:
        ConfigError, DataError: if the model has no such head, or cannot read the prompt.
        RunError: if the folder cannot be written.
    """
    found = findings(model, settings)
    content = pictures(found)
    name = Path(settings.checkpoint or "").name or "GPT-2"
    html = page(found, name, facts(model), settings.ablation.name)
    content["index.html"] = html.encode("utf-8", errors="replace")
    try:
        with whole_folder(to.resolve()) as folder:
            for file, written in content.items():
                write_whole(folder / file, written)
    except BlockingIOError as error:
        raise RunError(f"{to}: another insight writes it now; wait for it") from error
    except OSError as error:
        needed = sum(map(len, content.values()))
        mend = "make room" if is_full(error) else "make it writable"
        raise RunError(
            f"{to}: cannot be written ({error.strerror or error}): {needed:,} bytes are needed; "
            f"{mend}, or choose another folder"
        ) from error
    likeliest = ", ".join(
        f"{found.show(i)} {p:.3f}"
        for i, p in zip(
            found.said.token_ids[-1, found.token, :3].tolist(),
            found.said.probabilities[-1, found.token, :3].tolist(),
            strict=True,
        )
    )
    summary = (
        f"{len(found.labels)} tokens; after {found.labels[found.token]}: {likeliest}; "
        f"shown large: layer {found.layer}, head {found.head}"
    )
    files = {name: len(written) for name, written in sorted(content.items())}
    return Insight(files, found.numbers() if settings.json else {}, summary)


def facts(model: GPT2) -> str:
    config = model.config
    return (
        f"{config.n_layer} layers of {config.n_head} heads, width {config.n_embd}, "
        f"{model.num_parameters():,} parameters, {model.vocab_size:,} tokens known, context "
        f"{config.block_size:,}"
    )
