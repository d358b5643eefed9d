"""What can be said of where a checkpoint came from: no secrets, and no paths of this machine."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2lab import __version__
from gpt2lab.checkpoint import is_checkpoint
from gpt2lab.config.redact import REDACTED
from gpt2lab.init_from import on_the_hub
from gpt2lab.run_folder import RECEIPT, read_json

TOLD = {
    "model": ("dropout", "bias"),
    "data": (
        *("kind", "source", "dataset", "dataset_config", "dataset_split", "tokenizer", "val_share"),
        *("length", "num_digits", "separator", "packed", "document_mask"),
    ),
    "optim": ("kind", "lr", "beta1", "beta2", "momentum", "weight_decay", "grad_clip"),
    "schedule": ("kind", "warmup_steps", "decay_steps", "final_lr_ratio"),
}
"""Settings that matter to others; paths, addresses and names of runs stay here."""
TOLD_ALONE = ("max_steps", "batch_size", "seed")
METRICS = (
    *("train/loss", "val/loss", "val/perplexity", "val/bits_per_byte"),
    *("val/exact_match", "val/token_accuracy"),
)

Facts = dict[str, dict[str, Any]]


def origin(path: Path, given: str, allow_nonfinite: str | None = None) -> Facts:
    """Tables by their titles: what a checkpoint and its run's receipt say of it.

    Args:
        path: a checkpoint file, or a folder in the Hugging Face layout, of which little is known.
        given: what it was asked for by, which may be a name on the hub.
        allow_nonfinite: the tensor that may hold NaN or infinity.
    """
    export = {"gpt2lab": __version__}
    if not is_checkpoint(path):
        name = on_the_hub(given)
        known = commit_of(name.repository, path.name) if name else path.resolve().name
        return {"Export": {"weights from": known, **export}}
    from gpt2lab.checkpoint import load_weights

    content = load_weights(path, allow_nonfinite)
    return {
        "Training": {"data": content.get("data"), **dict(told(content["settings"]))},
        "Result": result(content),
        "Made with": receipt_facts(path, content.get("run")),
        "Export": export,
    }


def commit_of(repository: object, commit: object) -> str:
    return f"{repository}, commit {commit}"


def told(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that are shown, by their full names."""
    for group, names in TOLD.items():
        values = settings.get(group)
        if isinstance(values, Mapping):
            yield from shown(values, names, f"{group}.")
    yield from shown(settings, TOLD_ALONE)


def shown(
    values: Mapping[str, Any], names: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for name in names:
        value = values.get(name)
        if isinstance(value, str | int | float) and not is_private(value):
            yield prefix + name, value


def is_private(value: Any) -> bool:
    """Whether it is a secret, or a path: a data set may be a folder of this machine."""
    return isinstance(value, str) and (REDACTED in value or value.startswith(("/", "~", ".")))


def result(content: Mapping[str, Any]) -> dict[str, Any]:
    """How far the training was, and its metrics there, if they are of that step."""
    step = content["global_step"]
    found = {"steps": step}
    latest = content.get("latest")
    if content.get("evaluated_step") == step and isinstance(latest, Mapping):
        found |= {n: latest[n] for n in METRICS if isinstance(latest.get(n), int | float)}
    return found


def receipt_facts(path: Path, run: Any) -> dict[str, Any]:
    """What receipt.json says, if the checkpoint still lies in the folder of its run."""
    receipt = read_json(path.resolve().parent.parent / RECEIPT)
    if run is None or receipt.get("id") != run:
        return {}
    facts = dict(shown(receipt, ("parameters", "precision", "world_size", "started")))
    if isinstance(begun := receipt.get("init_from"), Mapping):
        is_published = "repository" in begun and "commit" in begun
        known = commit_of(begun["repository"], begun["commit"]) if is_published else None
        facts["begun with"] = known or "a local checkpoint"
    revision, versions = receipt.get("git_revision"), receipt.get("versions")
    if isinstance(revision, str):
        facts["revision of the code"] = revision
    if isinstance(versions, Mapping):
        facts |= dict(shown(versions, tuple(map(str, versions))))
    return facts
