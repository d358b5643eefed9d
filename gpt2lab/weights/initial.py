"""A model's first weights, taken from another model: its tokens found again, its positions kept."""

import torch
from torch import Tensor

from gpt2lab.model import GPT2
from gpt2lab.tokenizer import Tokenizer

WTE, WPE = "transformer.wte.weight", "transformer.wpe.weight"


def same_rows(source: GPT2, tokenizer: Tokenizer, vocab_size: int) -> Tensor:
    """The source's id for what each id of a new model stands for, (V,) int64; -1 for none.

    Of one tokenizer, ids are the same. Of two character tokenizers, characters are: with the ids
    a b c there and b c d here, the rows are 1 2 -1.

    Args:
        tokenizer: the new model's, of the same kind as the source's.
        vocab_size: V, which may be more than the tokenizer has.
    """
    assert source.speech is not None
    theirs = source.speech.tokenizer
    rows = torch.full((vocab_size,), -1)
    if theirs.fingerprint == tokenizer.fingerprint:
        both = min(vocab_size, source.vocab_size)
        rows[:both] = torch.arange(both)
        return rows
    places = {theirs.decode([number]): number for number in range(theirs.vocab_size)}
    texts = [tokenizer.decode([number]) for number in range(tokenizer.vocab_size)]
    rows[: len(texts)] = torch.tensor([places.get(text, -1) for text in texts])
    return rows


@torch.no_grad()
def take_weights(model: GPT2, source: GPT2, rows: Tensor) -> None:
    """Give a new model the source's weights; what the source lacks is made of the new model's own.

    A new token is the mean of all tokens and the model's own noise (standard deviation 0.02).
    The head being the embedding transposed, a token of noise alone would have a logit near 0,
    where those of a trained GPT-2 lie far below, and be likelier than all others; at the mean it
    takes little from them (J. Hewitt, "Initializing New Word Embeddings for Pretrained Language
    Models", 2021). A new position stays as it was initialised.

    Args:
        model: just initialised, of the source's shape but for context and vocabulary.
        rows: as `same_rows` gives them.
    """
    found = source.state_dict()
    for name, tensor in model.state_dict().items():
        if name == WTE:
            known = rows >= 0
            mean = found[name][: source.vocab_size].mean(0)
            own = tensor[: len(rows)] + mean
            own[known] = found[name][rows[known]]
            tensor[: len(rows)] = own
        elif name == WPE:
            both = min(len(tensor), len(found[name]))
            tensor[:both] = found[name][:both]
        else:
            tensor.copy_(found[name])
