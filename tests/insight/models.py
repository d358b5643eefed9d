"""Tiny models of each kind, with weights as large as trained ones."""

import torch

from gpt2lab.config import GPT2Config
from gpt2lab.generation import Speech
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import CharTokenizer, DigitTokenizer

CHARACTERS = "\n $<>&'\"abcdé"


def made(speech: Speech, **sizes: int) -> GPT2:
    config = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, "dropout": 0.0, **sizes}
    model = GPT2(GPT2Config(vocab_size=speech.tokenizer.vocab_size, **config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.speech = speech
    return model


def text_model(**sizes: int) -> GPT2:
    return made(Speech.of_text(CharTokenizer(CHARACTERS, end_of_text=True)), **sizes)


def sort_model() -> GPT2:
    return made(Speech.of_sort(DigitTokenizer(3), 4), block_size=7)


def pairs_model(**sizes: int) -> GPT2:
    return made(Speech.of_pairs(CharTokenizer("abc=\n", end_of_text=True), "="), **sizes)
