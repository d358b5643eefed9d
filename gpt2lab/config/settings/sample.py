"""Sampling."""

from dataclasses import dataclass, field
from enum import Enum

from gpt2lab.config.settings.fields import ranged, verbatim
from gpt2lab.config.settings.machine import Device, Precision, Quantize


@dataclass
class SamplingConfig:
    """From logits to a token: each that is set changes the distribution, in the order given here.

    The order and the meaning of each are transformers'.
    """

    repetition_penalty: float = ranged(1.0, gt=0)
    """Positive logits of tokens that are there already are divided by it, negative multiplied."""
    temperature: float | None = ranged(None, ge=0)
    """Divides the logits; 0 takes the likeliest. Null: 1, and 0 where a question has one answer."""
    top_k: int | None = ranged(None, ge=1)
    """So many likeliest tokens are left; null for all."""
    top_p: float | None = ranged(None, gt=0, le=1)
    """The fewest likeliest tokens are left whose probability reaches this; null for all."""
    min_p: float | None = ranged(None, ge=0, le=1)
    """Tokens are left that are at least so likely, as a share of the likeliest; null for all."""
    num_beams: int = ranged(1, ge=1, le=1024)
    """Beams of a beam search, which takes the likeliest whole text; 1 for none."""
    length_penalty: float = ranged(1.0, ge=-10, le=10)
    """Beams are ranked by log-probability / new tokens ** length_penalty."""


class BeyondContext(Enum):
    """What happens when a text is as long as the model's context."""

    slide = "slide"
    stop = "stop"


@dataclass
class SampleConfig:
    """All settings of `python -m gpt2lab.sample`."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    checkpoint: str | None = verbatim(path=True)
    """A run folder (its best checkpoint, else its last), a checkpoint file, a folder in the Hugging
    Face layout, or a name on its hub: gpt2, owner/name, owner/name@revision."""
    prompt: str | None = verbatim()
    """What is continued, as it is typed; null begins with nothing, "null" is the word."""
    prompts: str | None = verbatim(path=True)
    """A file of prompts, one a line, or .jsonl of {"prompt": ...}, which may hold line ends."""
    num_samples: int = ranged(1, ge=1, le=100_000)
    """Samples of each prompt."""
    max_new_tokens: int = ranged(128, ge=1, le=1_000_000)
    """Longest continuation."""
    max_length: int | None = ranged(None, ge=1, le=1_000_000)
    """Longest sample, start token and what the context holds of its prompt counted; null: none."""
    seed: int = ranged(0, ge=0, lt=2**63)
    """Decides the draws: a sample's depend on it and the sample's number alone."""
    batch_size: int = ranged(8, ge=1, le=65_536)
    """Samples that are decoded at once."""
    beyond_context: BeyondContext = BeyondContext.slide
    """Beyond the model's context: slide drops the oldest tokens, stop ends the sample."""
    add_start_token: bool = True
    """Begin each prompt with the end of text, after which documents begin; where there is one."""
    allow_special: bool = False
    """The text <|endoftext|> in a prompt stands for the token; else it is plain text."""
    stop_at_end: bool = True
    """A sample ends with its document."""
    strip_prompt: bool | None = None
    """Leave the prompt out of the result; null: only where a question has one answer."""
    stream: bool | None = None
    """Show text as it is made; null: on a terminal, for one sample."""
    logprobs: bool = False
    """With json or json_lines: each token's log-probability (nats), and the ten likeliest."""
    json_lines: bool = False
    """Each sample as a JSON object on a line."""
    json: bool = False
    """The last line is one JSON object with all samples."""
    interactive: bool = False
    """Ask for prompts in a terminal; :help there tells more."""
    precision: Precision = Precision.auto
    """Of the weights; auto takes bf16 where the processor or GPU has it, else fp32."""
    quantize: Quantize | None = None
    """int8 for the weights and products of the linear layers: faster, at a small cost in loss."""
    device: Device = Device.auto
    """auto takes a GPU where there is one."""
    compile: bool | None = None
    """On a GPU, compile the step into a CUDA graph; null: where so much is made that it pays."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
