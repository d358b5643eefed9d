"""gpt2lab.json of an export: how its model is spoken to, for which its layout has no words."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from gpt2lab.config import GPT2Config
from gpt2lab.errors import CheckpointError, DataError
from gpt2lab.generation.speech import Speech
from gpt2lab.tokenizer import from_plain
from gpt2lab.weights.layout import read_json

OTHERS = [field.name for field in fields(Speech) if field.name != "tokenizer"]
IDS = ("start", "empty")
LENGTHS = ("question_tokens", "answer_tokens")


def plain_speech(speech: Speech) -> dict[str, Any]:
    """In JSON's types, for `read_speech`."""
    others = {name: getattr(speech, name) for name in OTHERS}
    return {"tokenizer": speech.tokenizer.plain(), **others}


def read_speech(path: Path, model: GPT2Config) -> Speech:
    """
    Args:
        model: the one beside it.
    Raises:
        CheckpointError: if the file is damaged, or says what the model cannot mean.
    """
    found = read_json(path)
    mend = "export again, or take the file away"
    damaged = f"is not what an export wrote; {mend}"
    if set(found) != {"tokenizer", *OTHERS} or not all(map(fits, found, found.values())):
        raise CheckpointError(f"{path}: {damaged}")
    try:
        tokenizer = from_plain(found.pop("tokenizer"))
        tokenizer.encode(found["separator"])
    except DataError as error:
        raise CheckpointError(f"{path}: {damaged} ({error.problems[0]})") from error
    if found["start"] not in (None, tokenizer.end_of_text):
        raise CheckpointError(f"{path}: start is not the end of text; {mend}")
    assert model.vocab_size is not None
    if max(tokenizer.vocab_size - 1, found["empty"] or 0) >= model.vocab_size:
        raise CheckpointError(f"{path}: has ids beyond the {model.vocab_size} of the model; {mend}")
    if max(found[name] or 0 for name in LENGTHS) > model.block_size:
        raise CheckpointError(
            f"{path}: has questions or answers beyond the model's context of "
            f"{model.block_size}; {mend}"
        )
    return Speech(tokenizer, **found)


def fits(name: str, value: Any) -> bool:
    """Whether a value is one of those that its field may have."""
    if name in IDS:
        return value is None or (type(value) is int and value >= 0)
    if name in LENGTHS:
        return value is None or (type(value) is int and value >= 1)
    return isinstance(value, {"separator": str, "has_answers": bool}.get(name, dict))
