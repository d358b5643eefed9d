"""Data of a task out of the Hugging Face hub, where it is not given as a file."""

import os
import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass

from gpt2lab.data.jsonl import Row
from gpt2lab.errors import DataError
from gpt2lab.evaluation.files import one_file, rows_of


@dataclass(frozen=True)
class HubDataset:
    """A split of a dataset, by the name that is pinned here."""

    name: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None

    def __str__(self) -> str:
        config = f", config {self.config}" if self.config else ""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.name}{at}{config}, split {self.split}"


PARQUET = "refs/convert/parquet"
"""The hub's own copy in plain files of a dataset that is a program, which `datasets` no longer
runs."""


def rows_of_hub(dataset: HubDataset, instead: str) -> list[Row]:
    """All rows of it, out of the hub or its local cache.

    Args:
        instead: what a local file of the same data is called, for the message.
    Raises:
        DataError: in one line, if it cannot be had.
    """
    stay_offline_if_alone()
    import datasets  # a second to load, and only this needs it

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(
            dataset.name, dataset.config, split=dataset.split, revision=dataset.revision
        )
        return [Row(f"{dataset.name} row {i}", dict(row)) for i, row in enumerate(loaded, 1)]
    # `datasets` raises errors of many libraries: files, http, parsers, its own.
    except Exception as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"data: {dataset} was looked for on the Hugging Face hub and in its cache "
            f"({datasets.config.HF_DATASETS_CACHE}), and cannot be had: {what}; "
            f"give a local file instead: data={instead}"
        ) from error


def rows_given(data: str | None, dataset: HubDataset, local: str) -> list[Row]:
    """Rows of the .jsonl file that is given, else of the hub.

    Raises:
        DataError: naming the file and line, or what cannot be had.
    """
    return rows_of_hub(dataset, local) if data is None else list(rows_of(one_file(data, local)))


def stay_offline_if_alone() -> None:
    """Where the hub cannot be reached, its libraries take what their caches have, at once, not
    after half a minute; they read this when they are imported."""
    if not is_reachable():
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def is_reachable() -> bool:
    """Whether the hub's name is known here; through a proxy only the proxy can say."""
    if urllib.request.getproxies():
        return True
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True
