"""Sorting: held-out inputs that are answered rightly, to the last digit."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.config import EvaluateConfig, SortConfig
from gpt2lab.errors import ConfigError
from gpt2lab.evaluation.items import Ids, Item, Scores
from gpt2lab.evaluation.task import BaseTask, Metric, Record
from gpt2lab.statistics import share_interval

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


class Sort(BaseTask):
    """By teacher forcing and by generation, which must agree: greedy decoding is right everywhere
    exactly where the likeliest token is right behind the right ones."""

    protocol = "held-out inputs of the task that the model was trained on; greedy"

    def __init__(self, config: EvaluateConfig) -> None:
        super().__init__(config)
        self.questions: list[Ids] = []
        self.answers: list[Ids] = []

    def read(self) -> None:
        """The model says which inputs there are."""

    def items(self, model: "GPT2") -> list[Item]:
        from gpt2lab.data.sort import held_out_inputs

        speech = model.speech
        if speech is None or speech.question_tokens is None:
            raise ConfigError(
                "task: sort needs a model that was trained to sort; choose another task, or "
                "another checkpoint"
            )
        task = SortConfig(length=speech.question_tokens, num_digits=speech.tokenizer.vocab_size)
        for digits in held_out_inputs(task):
            self.questions.append(digits)
            self.answers.append(np.sort(digits))
        return [
            Item(question, [answer])
            for question, answer in zip(self.questions, self.answers, strict=True)
        ]

    def record(self, number: int, scores: Sequence[Scores]) -> Record:
        (answer,) = scores
        return {"right": bool(answer.right.all())}

    def metrics(self, records: Sequence[Record], model: "GPT2") -> list[Metric]:
        forced = [record["right"] for record in records]
        generated = self.generated(model, len(records))
        if differing := sum(a != b for a, b in zip(forced, generated, strict=True)):
            warnings.warn(
                f"sort: generation and teacher forcing differ at {differing} of {len(forced)} "
                "inputs: two digits are as good as equally likely there",
                stacklevel=2,
            )
        return [
            Metric("exact_match", share_interval(forced), "inputs"),
            Metric("exact_match_generated", share_interval(generated), "inputs"),
        ]

    def generated(self, model: "GPT2", count: int) -> list[bool]:
        """Whether each of the first inputs is answered rightly when the model goes on by itself."""
        import torch

        from gpt2lab.generation import generate_step

        questions = torch.from_numpy(np.stack(self.questions[:count]))
        answers = torch.from_numpy(np.stack(self.answers[:count]))
        length = questions.shape[1]
        right: list[bool] = []
        rows = max(1, self.config.batch_tokens // (2 * length))
        for given, wanted in zip(questions.split(rows), answers.split(rows), strict=True):
            token_ids = torch.cat([given, torch.zeros_like(wanted)], dim=1).to(model.device)
            is_given = torch.arange(2 * length, device=model.device) < length
            mask = is_given.expand(len(token_ids), -1)
            with torch.inference_mode():
                made = generate_step(model, {"token_ids": token_ids, "padding_mask": mask})
            found = made["token_ids"][:, length:].cpu()
            right += (found == wanted).all(1).tolist()
        return right
