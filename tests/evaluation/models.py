"""Tiny models with random weights, ours and transformers', that are the same."""

import numpy as np
import torch
import transformers

from gpt2lab.config import GPT2Config
from gpt2lab.generation import Speech
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import gpt2_tokenizer
from gpt2lab.weights import read_pretrained

CONTEXT = 32


def theirs(**settings):
    """A model of transformers whose weights are large enough for tokens to differ in likelihood."""
    config = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": CONTEXT, **settings}
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def saved(folder, **settings):
    """The same in a folder that our command line takes; transformers' model."""
    model = theirs(**settings)
    model.save_pretrained(folder)
    return model


def ours(folder):
    return read_pretrained(folder).eval()


def text_model(**settings):
    """A model that reads text by GPT-2's tokens."""
    config = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": CONTEXT, **settings}
    model = GPT2(GPT2Config(vocab_size=50257, dropout=0.0, **config)).eval()
    model.speech = Speech.of_text(gpt2_tokenizer())
    return model


@torch.no_grad()
def plainly(model, context, continuation):
    """By transformers, one row and the whole of its logits: nats of each token of a continuation,
    and whether it was the likeliest."""
    row = torch.tensor([*map(int, context), *map(int, continuation)])
    logits = model(row[None, :-1]).logits[0, len(context) - 1 :].double()
    wanted = row[len(context) :]
    nll = -logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    return nll.numpy(), (logits.argmax(-1) == wanted).numpy()


def ids(*numbers):
    return np.array(numbers)
