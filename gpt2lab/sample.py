"""python -m gpt2lab.sample: text from a trained model."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import SampleConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import one_line
from gpt2lab.large_pages import use_large_pages
from gpt2lab.loading import check_checkpoint, load
from gpt2lab.prompts import read_prompts
from gpt2lab.terminal import is_terminal, take_any_text, write

if TYPE_CHECKING:
    from gpt2lab.generation.text import Sample
    from gpt2lab.model import GPT2

PURPOSE = """\
Text from a trained model: how a prompt goes on, what a question's answer is, or whatever it says
by itself. prompt=, prompts= and checkpoint= are taken as they are typed, and quoted for the shell
alone: prompt="Hello, world". interactive=true asks for prompts."""

TITLE_CHARS = 60
"""Of a prompt in the line above its sample."""


def main() -> int:
    flags = arguments("sample", PURPOSE)
    composed = settings_from("sample", flags.overrides, flags.config_dir)
    settings: SampleConfig = composed.settings
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    prompts = prompts_of(settings)
    take_any_text()
    use_large_pages()
    rows = min(settings.batch_size, len(prompts) * settings.num_samples)
    model = loaded(settings, rows)
    if settings.interactive:
        from gpt2lab.interactive import talk

        return talk(model, flags.overrides, flags.config_dir)
    if streams(settings, prompts):
        show_stream(model, prompts[0], settings)
    else:
        show_samples(model, prompts, settings)
    return 0


def prompts_of(settings: SampleConfig) -> list[str]:
    if settings.prompts is not None:
        return read_prompts(Path(settings.prompts))
    return [settings.prompt or ""]


def loaded(settings: SampleConfig, rows: int) -> "GPT2":
    assert settings.checkpoint is not None
    path = Path(settings.checkpoint)
    check_checkpoint(path)  # before torch is loaded
    return load(
        path,
        precision=settings.precision,
        quantize=settings.quantize,
        device=settings.device,
        allow_nonfinite=settings.allow_nonfinite,
        rows=rows,
    )


def streams(settings: SampleConfig, prompts: list[str]) -> bool:
    """Whether text is shown while it is made."""
    if settings.stream is not None:
        return settings.stream
    is_one = len(prompts) * settings.num_samples == 1
    return is_one and not (settings.json or settings.json_lines) and is_terminal(sys.stdout)


def show_stream(model: "GPT2", prompt: str, settings: SampleConfig) -> None:
    from gpt2lab.generation.text import stream

    try:
        for piece in stream(model, prompt, settings):
            write(piece)
    finally:
        write("\n")


def show_samples(model: "GPT2", prompts: list[str], settings: SampleConfig) -> None:
    from gpt2lab.generation.text import samples

    found: list[Sample] = []
    began = time.perf_counter()
    for batch in samples(model, prompts, settings):
        for sample in batch:
            if settings.json_lines:
                print(json.dumps(as_object(sample)), flush=True)
            else:
                write(f"{title(sample.number, prompts, settings.num_samples)}{sample.text}\n")
            if settings.json:
                found.append(sample)
    if settings.json:
        seconds = time.perf_counter() - began
        result = {
            "samples": [as_object(sample) for sample in found],
            "seconds": seconds,
            "tokens_per_second": sum(len(sample.token_ids) for sample in found) / seconds,
            "checkpoint": settings.checkpoint,
        }
        print(json.dumps(result), flush=True)


def title(number: int, prompts: list[str], num_samples: int) -> str:
    """The line above a sample, `--- 2 of 5`, or `--- 1 of 3, sample 2 of 5: Once upon a time`.

    Empty where there is only one sample.
    """
    i, j = divmod(number, num_samples)
    of_its_prompt = f"{j + 1} of {num_samples}"
    if len(prompts) == 1:
        return f"--- {of_its_prompt}\n" if num_samples > 1 else ""
    text = f"--- {i + 1} of {len(prompts)}"
    if num_samples > 1:
        text += f", sample {of_its_prompt}"
    prompt = one_line(prompts[i])
    if len(prompt) > TITLE_CHARS:
        prompt = f"{prompt[: TITLE_CHARS - 3]}..."
    return f"{text}: {prompt}\n"


def as_object(sample: "Sample") -> dict[str, Any]:
    """A sample as JSON has it."""
    found: dict[str, Any] = {
        "prompt": sample.prompt,
        "text": sample.text,
        "token_ids": sample.token_ids,
        "stop_reason": sample.stop_reason,
    }
    if sample.logprobs is not None:
        found["logprobs"] = sample.logprobs
    if sample.alternatives is not None:
        found["alternatives"] = [
            [alternative._asdict() for alternative in likeliest]
            for likeliest in sample.alternatives
        ]
    return found


if __name__ == "__main__":
    show_errors(main)
