"""All that the page shows of a model and a prompt, as numbers on the CPU."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpt2lab.batch import IGNORE
from gpt2lab.config import InsightConfig
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.generation import Speech, generate
from gpt2lab.generation.text import spoken
from gpt2lab.insight.ablation import ablation_costs
from gpt2lab.insight.captions import CAPTIONS
from gpt2lab.insight.heads import measured_induction, previous_token_score
from gpt2lab.insight.inside import attention, shifted
from gpt2lab.insight.labels import labels
from gpt2lab.insight.predictions import Likeliest, TokenScores, logit_lens
from gpt2lab.model import GPT2

NUM_LIKELIEST = 10
DIGITS = 7
"""Behind the point, of every number in JSON: more than the page shows, which rounds it again."""


@dataclass
class Text:
    """Tokens that are read, and what should follow each."""

    token_ids: list[int]
    targets: list[int]
    """The token that follows each; of an answer the right one, or where that is not known the one
    that was said. IGNORE where there is none."""
    question: int | None = None
    """Tokens of the question, where the model answers: what follows is its own answer."""
    answer: list[int] | None = None
    right: list[int] | None = None
    """The right answer, where it is known."""
    cut: tuple[int, int] | None = None
    """The last so many, of how many tokens of the prompt, are read; None for all."""

    @property
    def wanted(self) -> str:
        """What a target is called."""
        if self.answer is None:
            return "actual next token"
        return "token that it said" if self.right is None else "right next token"

    @property
    def marks(self) -> list[str]:
        """Of each token of the answer: right or wrong; nothing where that is not known."""
        given, right = self.answer or [], self.right
        if right is None:
            return [""] * len(given)
        return ["right" if right[i : i + 1] == [t] else "wrong" for i, t in enumerate(given)]


@dataclass
class Findings:
    """L layers, H heads, T tokens; n likeliest tokens of each place."""

    text: Text
    labels: list[str]
    """Each token as it is shown, (T,)."""
    speech: Speech | None
    weights: Tensor
    """(L, H, T, T)."""
    said: Likeliest
    """By each layer, (L + 1, T, n); by the model itself in the last row."""
    scores: TokenScores
    """Of each target by each layer, (L + 1, T)."""
    previous_token: Tensor
    """(L, H); NaN for a single token."""
    induction: Tensor | None
    """(L, H)."""
    costs: Tensor
    """Nats per token that the loss rises by without each head, (L, H); NaN without a target."""
    layer: int
    head: int
    """The head that is shown large."""
    token: int
    """The token whose attention and next token are shown."""

    @property
    def chosen(self) -> Tensor:
        """Attention of the head that is shown large, (T, T)."""
        return self.weights[self.layer, self.head]

    @property
    def last_block(self) -> Tensor:
        """Attention of the last layer, averaged over its heads, (T, T)."""
        return self.weights[-1].mean(0)

    def show(self, token_id: int) -> str:
        return labels(self.speech, [token_id])[0]

    def parts(self) -> list[str]:
        """What can be shown, in the order of the page."""
        is_there = {
            "answer": self.text.question is not None,
            "loss": not self.scores.loss.isnan().all(),
            "previous": not self.previous_token.isnan().any(),
            "induction": self.induction is not None,
            "cost": not self.costs.isnan().any(),
        }
        return [part for part in CAPTIONS if is_there.get(part, True)]

    def numbers(self) -> dict[str, Any]:
        """Everything as plain values, rounded; null where there is none.

        A row of attention ends with the token that looks: what is behind it is 0.
        """
        answer, right = self.text.answer, self.text.right
        return {
            "token_ids": self.text.token_ids,
            "tokens": self.labels,
            "target_ids": [None if i == IGNORE else i for i in self.text.targets],
            "targets": [None if i == IGNORE else self.show(i) for i in self.text.targets],
            "question_tokens": self.text.question,
            "answer": None if answer is None else labels(self.speech, answer),
            "right_answer": None if right is None else labels(self.speech, right),
            "answer_marks": self.text.marks,
            "wanted": self.text.wanted,
            "loss": plain(self.scores.loss[-1]),
            "rank": self.scores.rank[-1].tolist(),
            "lens": {
                "token_ids": self.said.token_ids.tolist(),
                "tokens": [
                    [labels(self.speech, ids) for ids in layer]
                    for layer in self.said.token_ids.tolist()
                ],
                "probabilities": plain(self.said.probabilities),
                "loss": plain(self.scores.loss),
                "rank": self.scores.rank.tolist(),
            },
            "previous_token": plain(self.previous_token),
            "induction": None if self.induction is None else plain(self.induction),
            "ablation_cost": plain(self.costs),
            "layer": self.layer,
            "head": self.head,
            "token": self.token,
            "last_block": up_to_itself(self.last_block),
            "attention": [[up_to_itself(head) for head in layer] for layer in self.weights],
        }


def up_to_itself(weights: Tensor) -> list[list[float]]:
    """Attention (T, T) without what is behind the token that looks."""
    return [plain(row[: t + 1]) for t, row in enumerate(weights)]


def plain(numbers: Tensor) -> Any:
    """Nested lists of rounded numbers, NaN as None."""
    if numbers.dim() > 1:
        return [plain(part) for part in numbers]
    if numbers.dim() == 0:
        return plain(numbers[None])[0]
    return [None if x != x else round(x, DIGITS) for x in numbers.double().tolist()]


def findings(model: GPT2, settings: InsightConfig) -> Findings:
    """Read the prompt, and the model's answer behind it if it answers, and look at all of it.

    Raises:
        ConfigError: if there is no such layer, head or token.
        DataError: if the model cannot be given this prompt.
    """
    check_head(model, settings)
    text = read_text(model, settings)
    if settings.token is not None and settings.token >= len(text.token_ids):
        raise ConfigError(
            f"token: {settings.token} is none of the {len(text.token_ids)} that are read, counted "
            f"from 0; choose 0 to {len(text.token_ids) - 1}"
        )
    inside = attention(model, text.token_ids)
    targets = torch.tensor(text.targets, device=model.device)
    said, scores = logit_lens(model, inside, NUM_LIKELIEST, targets)
    costs = ablation_costs(model, inside, settings.ablation, targets).cpu()
    induction = measured_induction(model)
    layer, head = settings.layer, settings.head
    if layer is None or head is None:
        layer, head = costliest(costs)
    token = len(text.token_ids) - 1 if text.question is None else text.question - 1
    return Findings(
        text=text,
        labels=labels(model.speech, text.token_ids),
        speech=model.speech,
        weights=inside.weights.cpu(),
        said=Likeliest(said.token_ids.cpu(), said.probabilities.cpu()),
        scores=TokenScores(scores.loss.cpu(), scores.rank.cpu()),
        previous_token=previous_token_score(inside.weights).cpu(),
        induction=None if induction is None else induction.cpu(),
        costs=costs,
        layer=layer,
        head=head,
        token=token if settings.token is None else settings.token,
    )


def check_head(model: GPT2, settings: InsightConfig) -> None:
    """
    Raises:
        ConfigError: if the model has no such layer or head.
    """
    problems = [
        f"{name}: {given} is beyond the model's {count} {name}s, counted from 0; "
        f"choose 0 to {count - 1}"
        for name, given, count in (
            ("layer", settings.layer, model.config.n_layer),
            ("head", settings.head, model.config.n_head),
        )
        if given is not None and given >= count
    ]
    if problems:
        raise ConfigError(*problems)


def costliest(costs: Tensor) -> tuple[int, int]:
    """Layer and head of the highest cost (L, H); the last layer's first head where none is."""
    if costs.isnan().any():
        return len(costs) - 1, 0
    layer, head = divmod(int(costs.argmax()), costs.shape[1])
    return layer, head


def read_text(model: GPT2, settings: InsightConfig) -> Text:
    """
    Raises:
        DataError: if the model cannot be given this prompt.
    """
    speech = spoken(model)
    ids = speech.encode(
        settings.prompt or "",
        add_start_token=settings.add_start_token,
        allow_special=settings.allow_special,
    )
    if speech.has_answers:
        return answered(model, speech, ids, settings.max_tokens)
    is_started = settings.add_start_token and speech.start is not None
    return running(ids, int(is_started), settings.max_tokens, model.config.block_size)


def running(ids: list[int], num_before: int, max_tokens: int, context: int) -> Text:
    """Running text: of a longer one the last tokens, with a warning.

    Args:
        num_before: tokens before the prompt, which are kept and count towards the context alone.
    """
    before, prompt = ids[:num_before], ids[num_before:]
    most = min(max_tokens, context - num_before)
    if len(prompt) > most:
        limit = f"the context of {context} leaves {most}"
        if most == max_tokens:
            limit = f"max_tokens={max_tokens}"
        warnings.warn(
            f"prompt: has {len(prompt):,} tokens, {limit}; its last {most} are read", stacklevel=2
        )
        ids = [*before, *prompt[len(prompt) - most :]]
    cut = (most, len(prompt)) if len(prompt) > most else None
    return Text(ids, shifted(torch.tensor(ids)).tolist(), cut=cut)


def answered(model: GPT2, speech: Speech, question: list[int], max_tokens: int) -> Text:
    """A question with the model's own answer; the last token is made, but not read.

    Raises:
        DataError: if the question leaves no room for an answer.
    """
    most = min(max_tokens, model.config.block_size)
    limit, mend = ("the model's context", "ask a shorter question")
    if most == max_tokens:
        limit, mend = "max_tokens", "add max_tokens="
    wanted = speech.answer_tokens or 1
    if len(question) + wanted - 1 > most:
        raise DataError(
            f"prompt: has {len(question)} tokens, which with {wanted} of an answer is more than "
            f"{limit} of {most}; {mend}"
        )
    room = most + 1 - len(question)
    answer: list[int] = generate(
        model,
        torch.tensor(question),
        max_new_tokens=room,
        temperature=0,
        strip_prompt=True,
    ).tolist()
    # The token that ends an answer is none of it.
    if speech.answer_tokens is None and len(answer) == room:
        warnings.warn(
            f"prompt: has {len(question)} tokens, whose answer is cut after {room} by {limit} of "
            f"{most}; {mend}",
            stacklevel=2,
        )
    return judged(question, answer, speech.right_answer(question))


def judged(question: Sequence[int], answer: Sequence[int], right: Sequence[int] | None) -> Text:
    """The targets are the right answer where it is known, else the answer itself.

    2 0 1 with the answer 0 1 2 is read as 2 0 1 0 1, with the targets . . 0 1 2.
    """
    wanted = answer if right is None else right
    return Text(
        [*question, *answer[:-1]],
        [*[IGNORE] * (len(question) - 1), *(wanted or [IGNORE])],
        question=len(question),
        answer=list(answer),
        right=None if right is None else list(right),
    )
