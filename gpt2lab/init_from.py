"""What a run begins from: weights of another one, or published ones, and whether they fit.

Importing this loads no torch: a mistake in a name or a size is answered at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from gpt2lab.checkpoint.folder import file_of, is_checkpoint
from gpt2lab.checkpoint.verify import sha256
from gpt2lab.config import GPT2Config, TrainConfig, Vocabulary
from gpt2lab.config.changes import shown
from gpt2lab.config.conf_dir import conf_dir
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.loading import located, read
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights import fetch_config, find_weights, hub_name, read_config
from gpt2lab.weights.hub import HubName

if TYPE_CHECKING:
    from gpt2lab.model import GPT2

SHAPE = ("n_layer", "n_head", "n_embd", "bias")
"""The settings of a model that its weights decide."""


@dataclass(frozen=True)
class Source:
    """Weights that are there."""

    name: str
    """As init_from gives it."""
    path: Path
    """A checkpoint file, or a folder in the Hugging Face layout."""

    def facts(self) -> dict[str, Any]:
        """What tells these weights from any others, for the receipt."""
        where = str(self.path.absolute())
        if is_checkpoint(self.path):
            return {"name": self.name, "file": where, "sha256": sha256(file_of(self.path))}
        if (name := on_the_hub(self.name)) is not None:
            return {"name": self.name, "repository": name.repository, "commit": self.path.name}
        sums = {file.name: sha256(file) for file in find_weights(self.path)}
        return {"name": self.name, "folder": where, "sha256": sums}

    def read(self, allow_nonfinite: str | None) -> "GPT2":
        return read(self.path, allow_nonfinite)


def source_of(settings: TrainConfig) -> Source | None:
    """The weights that a fresh start begins from, fetched if need be; None for random ones.

    Raises:
        CheckpointError: if there are none, or they are damaged as far as checksums know.
        ConfigError: if they are published ones of another size than the settings'.
    """
    if settings.init_from is None:
        return None
    if (name := on_the_hub(settings.init_from)) is not None:
        check_shape(settings, read_config(fetch_config(name)))  # before gigabytes are fetched
    source = Source(settings.init_from, located(Path(settings.init_from)))
    if not is_checkpoint(source.path):
        check_shape(settings, read_config(source.path))
    return source


def on_the_hub(init_from: str) -> HubName | None:
    """The name that this is, unless it is a path that is there."""
    name = hub_name(init_from)
    return None if name is None or Path(init_from).exists() else name


def check_shape(settings: TrainConfig, theirs: GPT2Config) -> None:
    """
    Raises:
        ConfigError: if a model of these settings has no use for weights of theirs.
    """
    if found := list(shape_problems(settings, theirs)):
        raise ConfigError(*found)


def shape_problems(settings: TrainConfig, theirs: GPT2Config) -> Iterator[str]:
    ours, name = settings.model, settings.init_from
    differing = [key for key in SHAPE if getattr(ours, key) != getattr(theirs, key)]
    for key in differing:
        here, there = shown(getattr(ours, key)), shown(getattr(theirs, key))
        yield f"model.{key}: is {here}, {name} has {there}; {choice(theirs, differing)}"
    if ours.block_size > theirs.block_size and not settings.init_extend:
        yield (
            f"model.block_size: is {ours.block_size}, {name} has {theirs.block_size} positions; "
            f"choose at most {theirs.block_size}, or add positions by init_extend=true"
        )


def choice(theirs: GPT2Config, differing: list[str]) -> str:
    """How a model of their shape is chosen: by an option of conf/model, else key by key."""
    wanted = {key: getattr(theirs, key) for key in SHAPE}
    for file in sorted((conf_dir() / "model").glob("*.yaml")):
        option = {"bias": GPT2Config.bias, **OmegaConf.load(file)}
        if all(option.get(key) == value for key, value in wanted.items()):
            return f"choose model={file.stem}"
    return "give " + " ".join(f"model.{key}={shown(wanted[key])}" for key in differing)


def vocabulary_of(settings: TrainConfig, tokenizer: Tokenizer, weights: "GPT2") -> int:
    """How many token ids a model has that begins from these weights.

    As many as the settings say; null for what the data's tokenizer has, with the room for more
    that the weights have, where they are of the same tokenizer.

    Args:
        tokenizer: the data's.
    Raises:
        ConfigError: if ids have no weights and are not to get any, or weights would be lost.
        DataError: if the ids of the weights stand for something else.
    """
    from gpt2lab.weights.initial import same_rows

    name = settings.init_from
    theirs = None if weights.speech is None else weights.speech.tokenizer
    if theirs is None or theirs.kind != tokenizer.kind:
        known, mend = "not known", "begin with other weights"
        if theirs is not None:
            known = theirs.fingerprint
            mend = "give the data that it knows"
            if theirs.kind in Vocabulary.__members__:
                mend = f"choose text or pairs with data.tokenizer={theirs.kind}"
        raise DataError(
            f"init_from: the tokenizer of {name} is {known}, the data's is "
            f"{tokenizer.fingerprint}; {mend}, or leave init_from out"
        )
    is_same = theirs.fingerprint == tokenizer.fingerprint
    size = settings.model.vocab_size
    if size is None:
        size = max(tokenizer.vocab_size, weights.vocab_size) if is_same else tokenizer.vocab_size
    if is_same and size < weights.vocab_size:
        raise ConfigError(
            f"model.vocab_size: is {size}, {name} has {weights.vocab_size} ids; "
            f"give model.vocab_size={weights.vocab_size}"
        )
    new = (same_rows(weights, tokenizer, size) < 0).nonzero().flatten().tolist()
    if new and not settings.init_extend:
        first = "room" if new[0] >= tokenizer.vocab_size else repr(tokenizer.decode(new[:1]))
        raise ConfigError(
            f"model.vocab_size: {len(new)} of {size} ids are not in {name}, which has "
            f"{weights.vocab_size}; the first is {new[0]} ({first}); "
            "add them by init_extend=true, or leave them out"
        )
    return size
