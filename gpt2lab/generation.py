"""Text from a model, one token at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gpt2lab.model import GPT2


@torch.no_grad()
def generate(
    model: GPT2,
    prompts: Sequence[Tensor] | Tensor,
    new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Tensor]:
    """A continuation of each prompt, (new_tokens,) ids.

    Args:
        prompts: ids (T,), each of its own length, at least 1.
        temperature: divides the logits of what is drawn; 0 takes the likeliest.
        seed: of the draws, which leave torch's own random numbers alone.
    """
    rows = list(prompts)
    random = torch.Generator(rows[0].device).manual_seed(seed)
    for _ in range(new_tokens):
        contexts = [row[-model.config.block_size :] for row in rows]
        last = torch.tensor([len(context) - 1 for context in contexts])
        # Padded on the right, where a causal model does not look.
        logits = model(pad_sequence(contexts, batch_first=True))  # (B, T, V)
        logits = logits[torch.arange(len(rows)), last].float()
        if temperature > 0:
            drawn = torch.multinomial((logits / temperature).softmax(-1), 1, generator=random)
        else:
            drawn = logits.argmax(-1, keepdim=True)
        rows = [torch.cat([row, token]) for row, token in zip(rows, drawn, strict=True)]
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]
