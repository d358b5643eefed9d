"""Rules of sampling."""

from collections.abc import Iterator

from gpt2lab.config.changes import shown
from gpt2lab.config.settings.machine import Precision
from gpt2lab.config.settings.sample import SampleConfig, SamplingConfig


def checkpoint_problems(checkpoint: str | None) -> Iterator[str]:
    """Of whatever needs one; whether it is there is found out later."""
    if not checkpoint:
        yield (
            f"checkpoint: is {'null' if checkpoint is None else 'empty'}; give a run folder, "
            "a checkpoint file, a folder in the Hugging Face layout, or a hub name"
        )


def prompt_problems(config: SampleConfig) -> Iterator[str]:
    if config.prompts == "":
        yield "prompts: is empty; name a file, or leave prompts out"
    if config.prompts is not None and config.prompt is not None:
        yield f"prompts: {config.prompts} and prompt= are both given; leave one out"
    yield from text_problems(config.prompt)


def text_problems(prompt: str | None) -> Iterator[str]:
    """Of a prompt as it was typed."""
    try:
        (prompt or "").encode()
    except UnicodeEncodeError as error:
        yield f"prompt: character {error.start + 1} is no whole one; give the text as UTF-8"


def output_problems(config: SampleConfig) -> Iterator[str]:
    """Ways of showing text that do not go together."""
    given = {
        name: f"{name}={shown(getattr(config, name))}"
        for name in ("json", "json_lines", "num_samples", "prompts")
        if getattr(config, name) != getattr(SampleConfig, name)
    }
    if config.interactive:
        yield from (
            f"interactive: true asks for each prompt; leave out {o}" for o in given.values()
        )
    elif config.stream:
        yield from (
            f"stream: true shows one text as it comes; leave out {o}" for o in given.values()
        )
    if {"json", "json_lines"} <= given.keys():
        yield "json: true makes one object of what json_lines=true makes lines; leave one out"
    if config.logprobs and not {"json", "json_lines"} & given.keys():
        yield "logprobs: true shows in JSON alone; add json_lines=true or json=true"
    if config.logprobs and config.sampling.num_beams > 1:
        yield "logprobs: true is for one token after another, not for beams; leave one out"


def beam_problems(sampling: SamplingConfig) -> Iterator[str]:
    for name in ("temperature", "top_k", "top_p", "min_p"):
        if sampling.num_beams > 1 and (value := getattr(sampling, name)):
            yield (
                f"sampling.num_beams: {sampling.num_beams} beams draw nothing, which "
                f"sampling.{name}={value} is for; add sampling=greedy, or leave one out"
            )


def sample_problems(config: SampleConfig) -> Iterator[str]:
    yield from checkpoint_problems(config.checkpoint)
    yield from read_precision_problems(config.precision)
    yield from prompt_problems(config)
    yield from output_problems(config)
    yield from beam_problems(config.sampling)
    if config.sampling.num_beams > 1 and config.num_samples > 1:
        yield (
            f"num_samples: {config.num_samples} searches by beams find the same; "
            "leave it out, or leave out sampling.num_beams"
        )
    if config.quantize is not None and config.precision is Precision.fp32:
        yield f"quantize: {config.quantize.name} is not precision=fp32; leave one out"


def read_precision_problems(precision: Precision) -> Iterator[str]:
    """Of a trained model that is read."""
    if precision is Precision.tf32:
        yield "precision: tf32 is for training; choose auto, bf16 or fp32"
