"""Text from a model: a cache, the loop around it, samplers, and words in and out."""

from gpt2lab.generation.decoding import Step, decode, generate_step
from gpt2lab.generation.speech import Speech, pack
from gpt2lab.generation.text import Sample, generate, samples, stream

__all__ = [
    "Sample",
    "Speech",
    "Step",
    "decode",
    "generate",
    "generate_step",
    "pack",
    "samples",
    "stream",
]
