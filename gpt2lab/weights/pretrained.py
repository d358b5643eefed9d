"""A model from a local folder in the Hugging Face layout."""

import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from gpt2lab.config import GPT2Config
from gpt2lab.errors import CheckpointError
from gpt2lab.generation.speech import Speech
from gpt2lab.model import GPT2, stored_rows
from gpt2lab.tokenizer import gpt2_tokenizer
from gpt2lab.tokenizer.gpt2 import gpt2_vocabulary
from gpt2lab.weights.layout import ANOTHER, CONFIG, SPEECH, find_weights, read_config
from gpt2lab.weights.spoken import read_speech
from gpt2lab.weights.tensors import (
    FLOATS,
    check_finite,
    check_shapes,
    count_nonfinite,
    is_ordinary,
    shapes,
    without_weights,
)

GPT2_VOCABULARY = 50_257
PREFIX = "transformer."
"""Before every name but the head's, where the model was saved together with it."""
HEAD, EMBEDDING = "lm_head.weight", "wte.weight"
# Causal masks, which older versions of transformers kept among the weights.
MASKS = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
# Conv1D, as OpenAI's code calls its linear layer, holds the matrix the other way round.
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def read_pretrained(folder: str | Path, *, allow_nonfinite: str | None = None) -> GPT2:
    """The GPT-2 in a folder that has config.json and model.safetensors, or their older forms.

    Args:
        allow_nonfinite: the tensor that may hold NaN or infinity, as the refusal names it.
    Returns:
        An fp32 model on the CPU, whatever number format the files have. One of GPT-2's vocabulary
        is spoken to in text, another one in ids: nothing says what they stand for.
    Raises:
        CheckpointError: if files are missing or damaged, or hold another model than ours.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = without_weights(config, folder / CONFIG)
    found = read_tensors(find_weights(folder))
    check_head(found, folder)
    wanted = {
        name.removeprefix(PREFIX): theirs(name, tensor, model.vocab_size)
        for name, tensor in model.state_dict().items()
    }
    check_shapes(shapes(wanted), shapes(found), folder, ANOTHER)
    counts = {name: (count_nonfinite(tensor), tensor.numel()) for name, tensor in found.items()}
    check_finite({name: n for name, n in counts.items() if n[0]}, allow_nonfinite, folder)
    state = {PREFIX + name: ours(name, found.pop(name)) for name in wanted}
    model.load_state_dict(state, assign=True)
    model.speech = speech_of(folder, config)
    return model


def speech_of(folder: Path, model: GPT2Config) -> Speech | None:
    """How a folder's model is spoken to: as an export of ours says, else as GPT-2 is.

    Raises:
        CheckpointError: if what an export said is damaged, or of another model.
    """
    if (folder / SPEECH).exists():
        return read_speech(folder / SPEECH, model)
    assert model.vocab_size is not None
    is_gpt2 = has_gpt2_vocabulary(folder, model.vocab_size)
    return Speech.of_text(gpt2_tokenizer()) if is_gpt2 else None


def has_gpt2_vocabulary(folder: Path, vocab_size: int) -> bool:
    """Whether the first ids of a folder's model are GPT-2's.

    Its vocab.json says so, for models of other languages may have as many ids; without one, their
    number. There may be more ids, for padding or tokens of one's own.
    """
    path = folder / "vocab.json"
    if not path.exists():
        return vocab_size == GPT2_VOCABULARY
    if vocab_size < GPT2_VOCABULARY:
        return False
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return bool(found == gpt2_vocabulary())


def theirs(name: str, tensor: Tensor, vocab_size: int) -> Tensor:
    """A tensor of ours as it stands in a file: Conv1D transposed, no surplus rows."""
    if name.endswith(CONV1D):
        return tensor.T
    return tensor[:vocab_size] if name.endswith(EMBEDDING) else tensor


def ours(name: str, tensor: Tensor) -> Tensor:
    """The inverse, in fp32 and in memory of its own, whatever becomes of the file."""
    if name.endswith(CONV1D):
        tensor = tensor.T
    rows = stored_rows(len(tensor)) if name == EMBEDDING else len(tensor)
    result = torch.zeros(rows, *tensor.shape[1:])
    result[: len(tensor)] = tensor
    return result


def check_head(found: dict[str, Tensor], folder: Path) -> None:
    """Take the head out, which is the embedding in our model.

    Raises:
        CheckpointError: if it is another matrix.
    """
    head = found.pop(HEAD, None)
    if head is None:
        return
    embedding = found.get(EMBEDDING)
    if embedding is None or head.shape != embedding.shape or not is_same(head, embedding):
        raise CheckpointError(
            f"{folder}: {HEAD} is not {EMBEDDING}, our model has one matrix for both; {ANOTHER}"
        )


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape have the same numbers, and NaN in the same places."""
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def read_tensors(files: list[Path]) -> dict[str, Tensor]:
    """All tensors of some files, without the prefix and without masks.

    Raises:
        CheckpointError: if a file is damaged, or holds anything but weights.
    """
    found: dict[str, Tensor] = {}
    for path in files:
        read = read_safetensors if path.suffix == ".safetensors" else read_old
        for full_name, tensor in read(path):
            name = full_name.removeprefix(PREFIX)
            if MASKS.fullmatch(name):
                continue
            if name in found:
                raise CheckpointError(f"{path}: {name} is there a second time; {ANOTHER}")
            if not isinstance(tensor, Tensor) or not is_ordinary(tensor):
                raise CheckpointError(f"{path}: {name} is no plain tensor; {ANOTHER}")
            if tensor.dtype not in FLOATS:
                raise CheckpointError(
                    f"{path}: {name} holds {tensor.dtype}, weights are floating point; {ANOTHER}"
                )
            found[name] = tensor
    return found


def read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, which stay there until they are used.

    Raises:
        CheckpointError: if the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        # damage shows as its own type, an OSError, or as whatever torch says of an odd format
        raise damaged(path) from error
    yield from tensors.items()


def read_old(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The same for a pickle; code in it never runs."""
    try:
        # torch's format of before 2020 is no zip, and cannot be mapped
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():  # torch's, of a pickle that is not its own
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        tensors = {str(name): tensor for name, tensor in content.items()}
    except Exception as error:
        # torch raises half a dozen types for foreign files, and its advice is to load them anyway
        raise damaged(path) from error
    yield from tensors.items()


def damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: has {path.stat().st_size:,} bytes that are not whole weights; "
        "copy or download it again"
    )
