"""What kind of head a head is, by where it looks.

Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), and Olsson et al.,
"In-context Learning and Induction Heads" (2022): a head that looks at the token before, and a later
one that looks behind the last place where its token stood, together repeat what was there before.
"""

import torch
from torch import Tensor

from gpt2lab.insight.inside import attention
from gpt2lab.model import GPT2

LONGEST_PERIOD = 50
"""Tokens of the random text that is repeated; fewer where two of them do not fit the context."""
REPEATS = 4
"""Random texts, over which a score is averaged."""


def previous_token_score(weights: Tensor) -> Tensor:
    """Mean weight on the token before: (..., T, T) to (...), 0..1; NaN for a single token.

    The first token, which has none before, is left out.
    """
    return weights.diagonal(-1, -2, -1).mean(-1)


def induction_score(weights: Tensor, period: int) -> Tensor:
    """Mean weight on the token behind the last place where the same token stood: (...), 0..1.

    Olsson et al. (2022), "prefix matching score".

    Args:
        weights: (..., T, T) over a text that repeats itself every `period` tokens.
        period: 2 to T - 1. Token t stood at t - period, behind which is t - period + 1.
    """
    return weights.diagonal(1 - period, -2, -1)[..., 1:].mean(-1)


def repeated_tokens(vocab_size: int, period: int, rows: int, seed: int = 0) -> Tensor:
    """Rows of random tokens, each once more behind itself: (rows, 2 * period).

    No token comes twice within a period, where the vocabulary has so many. torch's own random
    numbers are left as they are.
    """
    numbers = torch.Generator().manual_seed(seed)
    if period <= vocab_size:
        drawn = [torch.randperm(vocab_size, generator=numbers)[:period] for _ in range(rows)]
        once = torch.stack(drawn)
    else:
        once = torch.randint(vocab_size, (rows, period), generator=numbers)
    return torch.cat([once, once], dim=1)


def measured_induction(model: GPT2, seed: int = 0) -> Tensor | None:
    """Each head's induction score over random tokens repeated once: (L, H).

    None where the context holds no text of two tokens twice. A vocabulary smaller than the period
    says little: a token stands in many places.
    """
    period = min(LONGEST_PERIOD, model.config.block_size // 2)
    if period < 2:
        return None
    rows = repeated_tokens(model.vocab_size, period, REPEATS, seed)
    scores = [induction_score(attention(model, row).weights, period) for row in rows]
    return torch.stack(scores).mean(0)
