"""What the model itself says: answers to held-out questions, continuations of held-out text."""

import re
import warnings
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from torch import Tensor

from gpt2lab.backends import eager
from gpt2lab.durable import write_whole
from gpt2lab.generation import generate
from gpt2lab.guard import Guard
from gpt2lab.loggers import show_text

TEMPERATURE = 0.8
SECTION = "## step "


class Samples(Callback):
    """After every evaluation, a few answers or continuations in samples.md and loggers.

    Args:
        examples: held-out questions that are answered.
        prompts: beginnings of held-out text that are continued.
        new_tokens: length of a continuation.
    """

    def __init__(
        self, path: str, examples: int = 8, prompts: int = 3, new_tokens: int = 128
    ) -> None:
        self.path = Path(path)
        self.guard = Guard(self.path.name)
        self.examples = examples
        self.prompts = prompts
        self.new_tokens = new_tokens

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.path.is_file():  # a resumed run: what it will write again is dropped
            step = trainer.global_step
            self.guard(self._drop_beyond, step - 1 if pl_module.owes_evaluation else step)

    def _drop_beyond(self, step: int) -> None:
        # At the start of a line only: an answer may say the same.
        text = self.path.read_text("utf-8", errors="replace")
        title, *sections = re.split(rf"^{SECTION}(?=\d+$)", text, flags=re.M)
        kept = [section for section in sections if int(section.split()[0]) <= step]
        write_whole(self.path, SECTION.join([title, *kept]).encode())

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.guard.failed:
            return
        data, step = trainer.datamodule, trainer.global_step  # type: ignore[attr-defined]
        if data.has_answers:
            text = answers_table(answers(pl_module, data, self.examples))
        else:
            going_on = continuations(pl_module, data, self.prompts, self.new_tokens, seed=step)
            text = "".join(quoted(given, more) for given, more in going_on)
        self.guard(self._append, f"{SECTION}{step}\n\n{text}\n")
        show_text(trainer, "samples", text)

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


def answers_table(rows: list[tuple[str, str, str]]) -> str:
    """A Markdown table of questions, answers and right answers."""
    text = "| input | GPT-2's answer | right answer | |\n|---|---|---|---|\n"
    for row in rows:
        given, answer, right = map(_cell, row)
        text += f"| {given} | {answer} | {right} | {'yes' if row[1] == row[2] else 'no'} |\n"
    return text


def _cell(text: str) -> str:
    """Text that cannot end its cell of a Markdown table."""
    escaped = text.strip().replace("\\", "\\\\").replace("|", "\\|")
    return "<br>".join(escaped.splitlines())


def quoted(given: str, more: str) -> str:
    """A prompt and its continuation as two indented blocks, which no text can end."""
    blocks = ("\n".join(f"    {line}" for line in text.splitlines()) for text in (given, more))
    return "Given:\n\n{}\n\nGPT-2 goes on:\n\n{}\n\n".format(*blocks)


def answers(module: Any, data: Any, examples: int) -> list[tuple[str, str, str]]:
    """Input, GPT-2's answer and the right answer of a few held-out examples, as text.

    `data.questions` gives prompts and right answers, each a row of ids of its own length; GPT-2's
    answer has as many tokens as the right one, which is enough to tell whether they are equal.
    """
    prompts, wanted = data.questions(examples)
    found = said(module, prompts, max(map(len, wanted)))
    return [
        tuple(data.decode(ids.tolist()) for ids in (prompt, answer[: len(right)], right))
        for prompt, answer, right in zip(prompts, found, wanted, strict=True)
    ]


def continuations(
    module: Any, data: Any, prompts: int, new_tokens: int, seed: int
) -> list[tuple[str, str]]:
    """Beginnings of held-out text, and how GPT-2 goes on from them, drawn at random."""
    given = data.prompts(prompts)
    more = said(module, given, new_tokens, temperature=TEMPERATURE, seed=seed)
    return [
        (data.decode(a.tolist()), data.decode(b.tolist())) for a, b in zip(given, more, strict=True)
    ]


def said(
    module: Any, prompts: list[Tensor], new_tokens: int, temperature: float = 0, seed: int = 0
) -> list[Tensor]:
    """New ids for each prompt, from the model as it is evaluated."""
    with (
        # The same number format as in the evaluation, so that the two agree.
        module.trainer.precision_plugin.forward_context(),
        eager(module.model),
        warnings.catch_warnings(),
    ):
        # How long a sample is, and that its beginning is forgotten then, is for nobody to mend.
        warnings.filterwarnings("ignore", "max_new_tokens: ")
        model = module.model if module.whole is None else module.whole.to(module.device)
        given = [prompt.to(module.device) for prompt in prompts]
        new = generate(
            model,
            given,
            max_new_tokens=new_tokens,
            strip_prompt=True,
            temperature=temperature,
            seed=seed,
        )
    if module.whole is not None:
        module.whole.cpu()  # the device's memory is for the training
    return new
