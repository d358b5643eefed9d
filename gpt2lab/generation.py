"""Text from a model, one token at a time."""

import torch
from torch import Tensor

from gpt2lab.model import GPT2


@torch.no_grad()
def greedy(model: GPT2, token_ids: Tensor, new_tokens: int) -> Tensor:
    """The likeliest continuation: ids (B, T) to the ids that follow, (B, new_tokens)."""
    T = token_ids.shape[1]
    for _ in range(new_tokens):
        context = token_ids[:, -model.config.block_size :]
        likeliest = model(context)[:, -1].argmax(-1, keepdim=True)
        token_ids = torch.cat([token_ids, likeliest], dim=1)
    return token_ids[:, T:]
