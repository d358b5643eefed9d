"""A model's tokenizer as a task needs it: text to ids, or a refusal that names both."""

from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation.items import Ids

if TYPE_CHECKING:
    from gpt2lab.generation.speech import Speech
    from gpt2lab.model import GPT2


def speech_of_text(model: "GPT2", task: str) -> "Speech":
    """
    Raises:
        ConfigError: if the model reads no text.
    """
    if model.speech is None:
        raise ConfigError(
            f"checkpoint: what its {model.vocab_size:,} ids stand for is not known, which "
            f"task={task} needs; give a model with GPT-2's vocabulary, or a checkpoint of ours"
        )
    if model.speech.tokenizer.kind == "digits":
        raise ConfigError(
            f"task: {task} needs a model of text, this one sorts digits; choose task=sort, or "
            "another checkpoint"
        )
    return model.speech


def encoded(speech: "Speech", text: str, place: str) -> Ids:
    """
    Raises:
        DataError: for a character that the model does not know, naming the place.
    """
    try:
        return speech.tokenizer.encode_array(text)
    except DataError as error:
        problem = error.problems[0].removeprefix("text: ")
        what = problem.rpartition("; ")[0] or problem
        raise DataError(f"{place}: {what}; give a text that the model's tokenizer knows") from error


def pair(speech: "Speech", context: str, continuation: str, place: str) -> tuple[Ids, Ids]:
    """A text's ids, cut where the context's own end.

    As in lm-eval the two are encoded as one text, and blanks at the context's end go with what
    follows, to which GPT-2's tokens join them.
    """
    kept = context.rstrip()
    whole = encoded(speech, context + continuation, place)
    count = len(encoded(speech, kept, place)) if kept else 0
    return whole[:count], whole[count:]


def begun(ids: Ids, speech: "Speech", adds_start: bool) -> Ids:
    """A context behind the start token if it is wanted, or if there would be nothing else."""
    if speech.start is not None and (adds_start or not len(ids)):
        return np.concatenate([np.array([speech.start], ids.dtype), ids])
    return ids
