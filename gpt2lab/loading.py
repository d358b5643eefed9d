"""From a path to a model that is ready to speak.

Importing this loads no torch: a mistake in a path is answered at once.
"""

from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpt2lab.checkpoint import check_whole, find_checkpoint, is_checkpoint
from gpt2lab.config import Device, Precision, Quantize
from gpt2lab.config.check.sample import read_precision_problems
from gpt2lab.config.parse import convert
from gpt2lab.errors import CheckpointError, ConfigError
from gpt2lab.weights import fetch, find_weights, hub_name, read_config
from gpt2lab.weights.hub import KNOWN
from gpt2lab.weights.layout import CONFIG

if TYPE_CHECKING:
    import torch

    from gpt2lab.model import GPT2

Choice = TypeVar("Choice", bound=Enum)

GIVE = "give a run folder, a checkpoint file, a folder in the Hugging Face layout, or a hub name"


def load(
    checkpoint: str | Path,
    *,
    precision: Precision | str = Precision.auto,
    quantize: Quantize | str | None = None,
    device: Device | str = Device.auto,
    allow_nonfinite: str | None = None,
    rows: int = 1,
) -> "GPT2":
    """A trained model, ready to generate.

    Args:
        checkpoint: a run folder (its best checkpoint, else its last), a checkpoint file, a folder
            in the Hugging Face layout, or a name on its hub, such as gpt2 or owner/name@revision.
        precision: of the weights; auto takes bf16 where the processor or GPU has it, else fp32.
        quantize: int8 for the linear layers.
        device: auto takes a GPU where there is one.
        allow_nonfinite: the tensor that may hold NaN or infinity, as the refusal names it.
        rows: how many are to be decoded at once, for the fastest way to do so.
    Raises:
        CheckpointError: if there is no such checkpoint, or it is damaged.
        ConfigError: if there is no such device or number format.
    """
    precision = option("precision", precision, Precision)
    if found := list(read_precision_problems(precision)):
        raise ConfigError(*found)
    quantize = None if quantize is None else option("quantize", quantize, Quantize)
    device = option("device", device, Device)
    path = located(checkpoint)

    from gpt2lab.generation.packed import packed
    from gpt2lab.weights.tensors import in_memory

    place = chosen_device(device)
    model = read(path, allow_nonfinite)
    return in_memory(packed(model.to(place), precision, quantize, rows))


def read(path: Path, allow_nonfinite: str | None = None) -> "GPT2":
    """The model in what `located` has found, in fp32 on the CPU.

    Raises:
        CheckpointError: if the files are damaged, or hold another model than they say.
    """
    from gpt2lab.checkpoint import read_model
    from gpt2lab.weights import read_pretrained

    if is_checkpoint(path):
        return read_model(path, allow_nonfinite=allow_nonfinite)
    return read_pretrained(path, allow_nonfinite=allow_nonfinite)


def option(key: str, value: Choice | str, choices: type[Choice]) -> Choice:
    try:
        return convert(value, choices)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def chosen_device(device: Device) -> "torch.device":
    """
    Raises:
        ConfigError: if a GPU is asked for where there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if device is Device.cuda and not has_gpu:
        raise ConfigError(
            "device: cuda is asked for, this machine has none; choose device=cpu, or leave it out"
        )
    return torch.device("cuda" if has_gpu and device is not Device.cpu else "cpu")


def check_checkpoint(checkpoint: str | Path) -> None:
    """Find out without torch whether there is something to load, and its files are whole.

    Raises:
        CheckpointError: saying what to do.
    """
    located(checkpoint)


def located(checkpoint: str | Path) -> Path:
    """The checkpoint file, or the folder in the Hugging Face layout, that this stands for.

    A path that is there comes before a name on the hub, whose files are fetched if need be.

    Raises:
        CheckpointError: if there is none, or it is damaged as far as checksums know.
    """
    if not str(checkpoint):
        raise CheckpointError(f"checkpoint: is empty; {GIVE}")
    path = Path(checkpoint)
    try:
        if path.is_dir() and not is_checkpoint(path):
            return in_folder(path)
        if is_checkpoint(path):
            if path.suffix in (".safetensors", ".bin", ".json"):
                raise CheckpointError(f"{path}: is no checkpoint by itself; give its folder")
            check_whole(path)
            return path
        if path.exists():
            raise CheckpointError(f"{path}: is neither a file nor a folder; {GIVE}")
        if (name := hub_name(str(checkpoint))) is not None:
            return in_folder(fetch(name))
        raise CheckpointError(f"{path}: there is no such file or folder; {near_path(path)}")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {GIVE}") from error


def in_folder(folder: Path) -> Path:
    """What a folder holds: a run's best checkpoint, else its last; or published weights."""
    if (folder / "checkpoints").is_dir() or (folder / "receipt.json").is_file():
        for which in ("best", "last"):
            found = find_checkpoint(folder, which, instead="name another file of the folder")
            if found is not None:
                return found
        raise CheckpointError(f"{folder}: this run has no checkpoint yet; {GIVE}")
    if (folder / CONFIG).is_file():
        read_config(folder)
        find_weights(folder)
        return folder
    is_inside = folder.name == "checkpoints"
    mend = f"did you mean {folder.parent}, or one of its files?" if is_inside else GIVE
    raise CheckpointError(f"{folder}: holds neither a run nor published weights; {mend}")


def near_path(path: Path) -> str:
    """A hint at what a path that is not there was meant to be."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    candidates = list(missing.parent.iterdir()) if missing.parent.is_dir() else []
    if len(path.parts) == 1 and Path("runs").is_dir():  # a run's name alone
        candidates += Path("runs").iterdir()
    if len(path.parts) == 1:
        candidates += map(Path, KNOWN)
    # Itself may be among them: a link that leads nowhere.
    by_name = {path.name: path for path in reversed(candidates) if path != missing}
    matches = get_close_matches(missing.name, by_name, n=1)
    return f"did you mean {by_name[matches[0]]}?" if matches else GIVE
