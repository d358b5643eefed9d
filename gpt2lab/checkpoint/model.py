"""The model in a checkpoint, without the rest: no settings but its own are believed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2lab.checkpoint.reading import Content, load_weights
from gpt2lab.config import GPT2Config, PairsConfig, SortConfig
from gpt2lab.config.parse import parse_group
from gpt2lab.errors import CheckpointError, ConfigError, DataError
from gpt2lab.generation.speech import Speech
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import DigitTokenizer, check_vocabulary, from_plain
from gpt2lab.weights.tensors import check_shapes, shapes, without_weights

PREFIX = "model."
"""Before the names of the model's tensors, the module that trains it having it as `model`."""


def read_model(path: Path, allow_nonfinite: str | None = None) -> GPT2:
    """The model of a checkpoint as it was trained, and how it is spoken to.

    Its weights stay in the file until they are used: see `load_checkpoint` of what that asks.

    Raises:
        CheckpointError: if the file is missing or damaged, or its settings, tokenizer and weights
            do not make one model.
    """
    content = load_weights(path, allow_nonfinite)
    try:
        config = model_config(content)
        speech = speech_of(content, config)
    except (ConfigError, DataError) as error:
        raise CheckpointError(
            f"{path}: its settings make no model ({error.problems[0]}); take another one"
        ) from error
    model = without_weights(config, path)
    assign(model, content["state_dict"], path)
    model.speech = speech
    return model


def assign(model: GPT2, state: Mapping[str, Tensor], path: Path) -> None:
    """Give a model the weights that a training saved, as they lie there.

    Raises:
        CheckpointError: naming the first that does not fit.
    """
    wanted = {PREFIX + name: tensor for name, tensor in model.state_dict().items()}
    check_shapes(shapes(wanted), shapes(state), path, "take another one")
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} holds {tensor.dtype}; take another one")
    weights = {name.removeprefix(PREFIX): tensor.float() for name, tensor in state.items()}
    model.load_state_dict(weights, assign=True)


def model_config(content: Content) -> GPT2Config:
    """
    Raises:
        ConfigError: if the settings are of no model.
    """
    config = parse_group(GPT2Config, stored_group(content, "model"), "model.")
    if config.vocab_size is None:
        raise ConfigError("model.vocab_size: is null")
    return config


def stored_group(content: Content, name: str) -> Mapping[str, Any]:
    """A group of a checkpoint's settings.

    Raises:
        ConfigError: if it has none.
    """
    group = content["settings"].get(name)
    if not isinstance(group, Mapping):
        raise ConfigError(f"{name}: is missing")
    return group


def speech_of(content: Content, config: GPT2Config) -> Speech:
    """How a checkpoint's model is spoken to, by the data that it was trained on.

    Raises:
        ConfigError, DataError: if that is unknown data, or another model's tokenizer.
    """
    data = stored_group(content, "data")
    kind = data.get("kind")
    if kind == "sort":
        sort = parse_group(SortConfig, chosen(data, "length", "num_digits"), "data.")
        return Speech.of_sort(DigitTokenizer(sort.num_digits), sort.length)
    if kind not in ("pairs", "text"):
        raise ConfigError(f"data.kind: {kind!r} is unknown")
    tokenizer = from_plain(content.get("tokenizer") or {})
    check_vocabulary(tokenizer, config.vocab_size)
    if kind == "text":
        return Speech.of_text(tokenizer)
    pairs = parse_group(PairsConfig, chosen(data, "separator"), "data.")
    return Speech.of_pairs(tokenizer, pairs.separator)


def chosen(group: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The settings that matter; others may be masked, having come from the environment."""
    return {name: group[name] for name in names if name in group}
