"""A text and how it came about: typed, gone on with token by token, undone, shared.

A session holds no model and never changes; what a user does makes another one of it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from urllib.parse import parse_qs, urlencode

import torch

from gpt2lab.config import SamplingConfig
from gpt2lab.errors import DataError
from gpt2lab.explorer.reading import Reader
from gpt2lab.generation import Speech, generate
from gpt2lab.generation.decoding import dropped_at_once
from gpt2lab.generation.samplers import next_token, uniforms
from gpt2lab.generation.text import spoken
from gpt2lab.model import GPT2

MOST_CHARACTERS = 100_000
"""Of a text; GPT-2's context holds about 4,000."""
MOST_IN_ADDRESS = 8000
"""Characters of an address; browsers and servers take no longer one everywhere."""
MOST_UNDONE = 100
"""Texts that are remembered."""
MOST_TOKENS_UNDONE = 500_000
"""Of all these texts together; the oldest are forgotten before."""
MOST_NEW_TOKENS = 1000
"""Of a sample."""


@dataclass(frozen=True)
class Reading:
    """A text as one model reads it."""

    token_ids: tuple[int, ...] = ()
    """All of them, also those beyond the context; none where it cannot be read."""
    problem: str | None = None
    """Why it cannot be read."""


@dataclass(frozen=True)
class Text:
    """What stands in the box, and what each model reads."""

    text: str
    """Of a model that answers, the question."""
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Session:
    """
    Args:
        past: texts that came before, the latest last.
        is_typing: whether the text was typed: what is typed next replaces it.
        num_typed: texts that the box had sent when this one was made.
        drawn: samples that were made; the n-th one of the same text takes other draws.
        note: what the last act has to say.
    """

    now: Text
    past: tuple[Text, ...] = ()
    is_typing: bool = False
    num_typed: int = 0
    drawn: int = 0
    note: str | None = None


class Side:
    """A model of the page: how a text becomes ids, and what follows them."""

    def __init__(self, name: str, model: GPT2) -> None:
        self.name = name
        self.model = model
        self.reader = Reader(model)
        self.speech: Speech = spoken(model)
        self._answered: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        """The last question, and the answer."""

    def read(self, text: str) -> Reading:
        if len(text) > MOST_CHARACTERS:
            problem = f"text: is longer than {MOST_CHARACTERS:,} characters; give a shorter one"
            return Reading(problem=problem)
        try:
            ids = tuple(self.speech.encode(text))
        except DataError as error:
            return Reading(problem="; ".join(error.problems))
        context = self.model.config.block_size
        if self.speech.has_answers and len(ids) > context:
            return Reading(
                problem=f"text: has {len(ids):,} tokens, and the model reads {context:,}; "
                "give a shorter one"
            )
        return Reading(ids)

    def question_length(self, text: str) -> int:
        """Tokens of the text itself, where the model answers."""
        return len(self.read(text).token_ids)

    def shown(self, token_ids: Sequence[int]) -> str:
        """The text of ids, where the model goes on with it."""
        return self.speech.decode(token_ids)

    def is_over(self, now: Text, token_ids: Sequence[int]) -> bool:
        """Whether the model has answered, so that nothing follows."""
        if not self.speech.has_answers:
            return False
        said = token_ids[self.question_length(now.text) :]
        is_full = self.speech.answer_tokens is not None and len(said) >= self.speech.answer_tokens
        has_ended = bool(said) and said[-1] == self.speech.tokenizer.end_of_text
        return is_full or has_ended or len(token_ids) > self.model.config.block_size

    def window(self, token_ids: Sequence[int], most: int | None = None) -> tuple[int, ...]:
        """What of a text is before the model: its last tokens; of an answer's, the first.

        Beyond the context the oldest go together, as in `generate`: where each new token moved all
        others by one, everything would have to be read anew.
        """
        context = self.model.config.block_size
        ids = tuple(token_ids)
        if self.speech.has_answers:
            return ids[: min(most or context, context)]
        step = dropped_at_once(context)
        ids = ids[step * max(0, math.ceil((len(ids) - context) / step)) :]
        return ids[-(most or context) :]

    def logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """After the tokens, (V,)."""
        return self.reader.logits(self.window(token_ids))

    def answer(self, question: tuple[int, ...]) -> tuple[int, ...]:
        """The likeliest answer."""
        if self._answered is None or self._answered[0] != question:
            made = generate(
                self.model,
                torch.tensor(question),
                max_new_tokens=self.model.config.block_size + 1 - len(question),
                temperature=0,
                strip_prompt=True,
            )
            self._answered = question, tuple(made.tolist())
        return self._answered[1]


class Explorer:
    """One or two models, and what can be done with a text."""

    def __init__(self, sides: Sequence[Side], prompt: str = "") -> None:
        self.sides = tuple(sides)
        self.prompt = prompt

    def text_of(self, text: str) -> Text:
        return Text(text, tuple(side.read(text) for side in self.sides))

    def opened(self, query: str) -> Session:
        """The text of an address, `?text=...`, or the one that the page begins with.

        `ids` are those of the first model, where the text alone would not lead to them; what does
        not belong to the text is passed over.
        """
        try:
            fields = parse_qs(query.removeprefix("?"), keep_blank_values=True, max_num_fields=20)
        except ValueError:  # more than the page makes
            fields = {}
        text = fields.get("text", [self.prompt])[-1]
        session = Session(self.text_of(text))
        try:
            ids = tuple(int(i) for i in fields.get("ids", [""])[-1].split("."))
        except ValueError:
            return session
        side, plain = self.sides[0], session.now.readings[0].token_ids
        known = all(0 <= i < side.model.vocab_size for i in ids)
        if not known or not plain or len(ids) > MOST_CHARACTERS:
            return session
        belongs = ids[: len(plain)] == plain if side.speech.has_answers else side.shown(ids) == text
        return Session(self._with(text, 0, ids)) if belongs else session

    def address(self, session: Session) -> str:
        """The end of an address that leads to the same text, without what came before it.

        Without the text where it is too long for one, or half a character has no place in it.
        """
        now = session.now
        if len(now.text) > MOST_IN_ADDRESS:
            return "?"
        fields = {"text": now.text} if now.text or self.prompt else {}
        ids = now.readings[0].token_ids
        if ids and ids != self.sides[0].read(now.text).token_ids:
            fields["ids"] = ".".join(map(str, ids))
        try:
            query = urlencode(fields)
        except UnicodeEncodeError:
            return "?"
        return f"?{query}" if len(query) < MOST_IN_ADDRESS else "?"

    def typed(self, session: Session, text: str, num_typed: int = 0) -> Session:
        """Another text; one step of `undone`, however many keys it took."""
        session = replace(session, num_typed=num_typed, note=None)
        if text == session.now.text and session.is_typing:
            return session
        after = self._after(session, self.text_of(text))
        past = session.past if session.is_typing else after.past
        return replace(after, past=past, is_typing=True)

    def chosen(self, session: Session, side: int, token_id: int) -> Session:
        """The text with a token behind it.

        Raises:
            DataError: if that is none of the model's, or nothing can follow.
        """
        reading, model = session.now.readings[side], self.sides[side].model
        if not 0 <= token_id < model.vocab_size:
            raise DataError(f"token: {token_id} is none of the model's; choose one that is shown")
        if reading.problem is not None:
            raise DataError(reading.problem)
        if self.sides[side].is_over(session.now, reading.token_ids):
            raise DataError("token: the answer is complete; undo a token, or ask something else")
        ids = (*reading.token_ids, token_id)
        return self._after(session, self._with(session.now.text, side, ids))

    def undone(self, session: Session) -> Session:
        if not session.past:
            return replace(session, note="There is nothing to undo.")
        *past, now = session.past
        return replace(session, now=now, past=tuple(past), is_typing=False, note=None)

    def sampled(
        self, session: Session, side: int, count: int, sampling: SamplingConfig
    ) -> Iterator[Session]:
        """The text after each token that is drawn; all of them are one step of `undone`.

        Raises:
            DataError: if the model cannot go on with the text.
        """
        start, one = session, self.sides[side]
        if (problem := session.now.readings[side].problem) is not None:
            raise DataError(problem)
        if one.is_over(session.now, session.now.readings[side].token_ids):
            raise DataError("sample: the answer is complete; undo a token, or ask something else")
        draws = uniforms(0, [session.drawn], count)
        for draw in draws[0]:
            ids = session.now.readings[side].token_ids
            token = int(next_token(one.logits(ids)[None].cpu(), sampling, draw[None]))
            if token == one.speech.tokenizer.end_of_text and not one.speech.has_answers:
                note = "The document ends here, says the model."
                yield replace(session, drawn=start.drawn + 1, note=note)
                return
            now = self._with(session.now.text, side, (*ids, token))
            session = replace(self._after(start, now), drawn=start.drawn + 1)
            yield session
            if one.is_over(now, now.readings[side].token_ids):
                return

    def _with(self, text: str, side: int, token_ids: tuple[int, ...]) -> Text:
        """What all models read where one of them reads these ids.

        Those that are spoken to in the same way read the same; others, the text anew.
        """
        one = self.sides[side]
        if not one.speech.has_answers:
            text = one.shown(token_ids)
        readings = []
        for other in self.sides:
            is_same = other.model.vocab_size == one.model.vocab_size and is_alike(
                other.speech, one.speech
            )
            readings.append(Reading(token_ids) if is_same else other.read(text))
        return Text(text, tuple(readings))

    def _after(self, session: Session, now: Text) -> Session:
        past = remembered((*session.past, session.now))
        return replace(session, now=now, past=past, is_typing=False, note=None)


def remembered(past: tuple[Text, ...]) -> tuple[Text, ...]:
    """The latest texts, as many as there is room for."""
    sizes = (sum(len(reading.token_ids) for reading in text.readings) for text in reversed(past))
    room = sum(total <= MOST_TOKENS_UNDONE for total in accumulate(sizes))
    return past[max(0, len(past) - min(room, MOST_UNDONE)) :]


def is_alike(first: Speech, second: Speech) -> bool:
    """Whether the same ids say the same to both."""
    return (
        first.tokenizer.fingerprint == second.tokenizer.fingerprint
        and replace(first, tokenizer=second.tokenizer) == second
    )
