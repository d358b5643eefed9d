"""Published weights by their name on the Hugging Face hub: fetched once, then in its cache."""

import errno
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gpt2lab.durable import at_home
from gpt2lab.errors import CheckpointError
from gpt2lab.weights.layout import CONFIG, INDEX, OLD_WEIGHTS, SPEECH, WEIGHTS, read_config

KNOWN = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
"""Short names, as the hub itself knew them before its models had owners."""

TOKENIZER = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")
DESCRIBING = (CONFIG, SPEECH, *TOKENIZER)
SAFETENSORS = (WEIGHTS, "model-*.safetensors", INDEX)

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
OURS = "runs"
"""What stands before the name of a run, and is nobody's on the hub."""
LONGEST = 200
"""Characters of a name; what is longer is a path gone wrong."""
FILES = (".ckpt", ".safetensors", ".bin", ".json")
"""What files of weights end with, and no name does."""

INSTEAD = f"a local folder with {CONFIG} and {WEIGHTS}"


class HubName(NamedTuple):
    """A model on the hub."""

    given: str
    """As it was asked for."""
    repository: str
    revision: str | None
    """A branch, tag or commit; None for its newest."""


def hub_name(given: str, revision: str | None = None) -> HubName | None:
    """What `gpt2`, `owner/name` or `owner/name@revision` stands for; None for a path.

    A path that is not there is none of these: neither `runs/typo`, nor what begins with a folder
    that is there, nor what is called like a file of weights.
    """
    name, _, at_its_end = given.partition("@")
    repository = KNOWN.get(name, name)
    if not NAME.fullmatch(repository) or name.endswith(FILES) or len(given) > LONGEST:
        return None
    owner = Path(repository).parent
    if name not in KNOWN and (str(owner) == OURS or owner.exists()):
        return None
    return HubName(given, repository, revision or at_its_end or None)


def pretrained_folder(name_or_folder: str | Path, revision: str | None = None) -> Path:
    """The local folder that this is, or that the model of this name is fetched into.

    Args:
        revision: a branch, tag or commit of the hub.
    Raises:
        CheckpointError: if there is none, or it cannot be fetched.
    """
    folder = Path(at_home(str(name_or_folder)))
    if os.path.isdir(folder):  # noqa: PTH112  # False too for what no path can be
        if revision is not None:
            raise CheckpointError(
                f"{folder}: is a local folder, which has no revision {revision!r}; leave it out"
            )
        return folder
    name = hub_name(str(name_or_folder), revision)
    if name is None:
        raise CheckpointError(
            f"{folder}: is neither a folder nor a name on the hub; "
            f"give gpt2, owner/name, or {INSTEAD}"
        )
    return fetch(name)


def fetch(name: HubName) -> Path:
    """The folder of a model's files in the hub's cache, named for the commit; fetched if need be.

    The hub is asked once a process. What the cache has needs no network. Weights are fetched only
    of what is a GPT-2, and the old ones only where there are no others.

    Raises:
        CheckpointError: if it cannot be fetched: what was wanted, and where it was looked for.
    """
    folder = fetch_config(name)
    read_config(folder)
    same = name._replace(revision=folder.name)  # whatever commit has come meanwhile
    for wanted in (SAFETENSORS, (OLD_WEIGHTS,)):
        _fetched(same, *places(), wanted)
        if any(folder.glob("*.safetensors")) or (folder / OLD_WEIGHTS).is_file():
            return folder
    raise CheckpointError(
        f"{name.given}: {name.repository} has neither {WEIGHTS} nor {OLD_WEIGHTS}, or {folder} "
        f"does not; check the network, or give {INSTEAD}"
    )


def fetch_config(name: HubName) -> Path:
    """The same folder with all but the weights, by which can be judged whether they are wanted."""
    return _fetched(name, *places(), DESCRIBING)


def places() -> tuple[str, str]:
    """The hub's address, and its cache; HF_ENDPOINT and HF_HUB_CACHE set others."""
    from huggingface_hub import constants

    return constants.ENDPOINT, str(constants.HF_HUB_CACHE)


@cache
def _fetched(name: HubName, endpoint: str, cache_dir: str, wanted: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    def snapshot(*, local_files_only: bool = False) -> Path:
        return Path(
            snapshot_download(
                name.repository,
                revision=name.revision,
                allow_patterns=list(wanted),
                endpoint=endpoint,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )

    with quiet():
        try:
            return snapshot()
        # Errors of many libraries: http, files, the hub's own.
        except Exception as error:
            if is_final(error):
                raise CheckpointError(problem(name, error, endpoint, cache_dir)) from error
            try:  # which the hub's own code does for some failures, but not for a broken proxy
                return snapshot(local_files_only=True)
            except Exception:
                raise CheckpointError(problem(name, error, endpoint, cache_dir)) from error


def is_final(error: Exception) -> bool:
    """Whether the hub has given its answer, or this machine cannot take it."""
    from huggingface_hub import errors

    answers = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    )
    return isinstance(error, answers) or lacks_room(error)


def lacks_room(error: Exception) -> bool:
    lacking = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
    return isinstance(error, OSError) and error.errno in lacking


def problem(name: HubName, error: Exception, endpoint: str, cache_dir: str) -> str:
    """What went wrong, where, and what to do."""
    from huggingface_hub import errors

    repository = name.repository
    or_instead = f"or give {INSTEAD}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name.given}: {repository} is given only to those who have accepted its terms; "
            f"see {endpoint}/{repository} and run hf auth login, {or_instead}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name.given}: {endpoint} shows no model {repository}; check the name, run "
            f"hf auth login for one that is private, {or_instead}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{name.given}: {repository} has no revision {name.revision!r}; "
            f"see {endpoint}/{repository}, {or_instead}"
        )
    if isinstance(error, errors.HFValidationError):
        return f"{name.given}: is no name of a model ({said(error)}); check it, {or_instead}"
    if lacks_room(error):
        assert isinstance(error, OSError)
        return (
            f"{cache_dir}: {repository} cannot be kept there ({error.strerror}); "
            f"make room, choose another folder by HF_HUB_CACHE, {or_instead}"
        )
    at = f"{repository}@{name.revision}" if name.revision else repository
    return (
        f"{name.given}: {at} is not in the cache {cache_dir}, and cannot be had from "
        f"{endpoint} ({said(error)}); check the network, {or_instead}"
    )


def said(error: BaseException) -> str:
    """The first line of what lies behind an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".;")


@contextmanager
def quiet() -> Iterator[None]:
    """The hub's code without its warnings, and with bars of progress on a terminal alone."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    is_shown = sys.stderr is not None and sys.stderr.isatty()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hides = not is_shown and not are_progress_bars_disabled()
        if hides:
            disable_progress_bars()
        try:
            yield
        finally:
            log.setLevel(level)
            if hides:
                enable_progress_bars()
