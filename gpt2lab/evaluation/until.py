"""Text that goes on until one of several strings is in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2lab.config import SampleConfig
from gpt2lab.generation.rows import steps_of, stops_of, suited
from gpt2lab.generation.speech import Pieces

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


def continued_until(
    model: "GPT2",
    rows: Sequence[list[int]],
    numbers: Sequence[int],
    settings: SampleConfig,
    until: Sequence[str],
) -> list[str]:
    """What follows each row of ids, as one batch, without the string that ended it.

    Args:
        rows: at least one id each, with room for max_new_tokens behind it.
        numbers: of the rows among all; they and the seed decide the draws.
    """
    settings, speech = suited(model, settings), model.speech
    assert speech is not None
    stops = stops_of(model, settings)
    new: list[list[int]] = [[] for _ in rows]
    pieces = [Pieces(speech, ()) for _ in rows]
    texts, goes_on = [""] * len(rows), [True] * len(rows)
    longest = max(map(len, until), default=0)
    with_room = [(row, settings.max_new_tokens) for row in rows]
    for step in steps_of(model, with_room, numbers, settings, stops):
        made = zip(step.token_ids.tolist(), step.is_new.tolist(), strict=True)
        for b, (token, is_new) in enumerate(made):
            if not (is_new and goes_on[b]):
                continue
            if token in stops:
                goes_on[b] = False
                continue
            new[b].append(token)
            piece = pieces[b].add(token)
            texts[b] = (texts[b] + piece)[-(longest + len(piece)) :]
            goes_on[b] = not any(stop in texts[b] for stop in until)
        if not any(goes_on):
            break
    return [before_any(speech.decode(ids), until) for ids in new]


def before_any(text: str, until: Sequence[str]) -> str:
    for stop in until:
        text = text.partition(stop)[0]
    return text
