"""What a model would say next, layer by layer, and how right it was."""

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from gpt2lab.batch import IGNORE
from gpt2lab.insight.inside import Inside, shifted
from gpt2lab.model import GPT2


@dataclass
class Likeliest:
    """The n likeliest tokens of each place, likeliest first; n is at most V."""

    token_ids: Tensor
    """(..., n) int64."""
    probabilities: Tensor
    """(..., n) fp32, of all V tokens, so that they need not add up to 1."""


@dataclass
class TokenScores:
    """How right the model was about each target; what is ignored has NaN, and rank 0."""

    loss: Tensor
    """Negative log-likelihood in nats, (..., T) fp32."""
    rank: Tensor
    """1 for the likeliest token of all, V for the least likely, (..., T) int64."""


def next_tokens(logits: Tensor, n: int = 10) -> Likeliest:
    """The likeliest tokens under logits (..., V), by a softmax in fp32."""
    probabilities, ids = logits.float().softmax(-1).topk(min(n, logits.shape[-1]))
    return Likeliest(ids, probabilities)


def token_scores(logits: Tensor, targets: Tensor) -> TokenScores:
    """Loss and rank of each target (..., T) under logits (..., T, V).

    Of tokens that are equally likely, each has the best rank.

    Args:
        targets: the token that follows each, or IGNORE; see `shifted`.
    """
    counts = targets != IGNORE
    logprobs = logits.float().log_softmax(-1)
    of_target = logprobs.gather(-1, targets.where(counts, 0)[..., None])
    loss = (-of_target.squeeze(-1)).where(counts, torch.nan)
    rank = 1 + (logprobs > of_target).sum(-1)
    return TokenScores(loss, rank.where(counts, 0))


@torch.no_grad()
def logit_lens(
    model: GPT2, inside: Inside, n: int = 10, targets: Tensor | None = None
) -> tuple[Likeliest, TokenScores]:
    """What each layer would say, were it the last: its stream through the final norm and the head.

    Nostalgebraist, "interpreting GPT: the logit lens" (2020). Row 0 is the embeddings', row l is
    after l layers, the last row is the model's own prediction.

    Args:
        n: so many likeliest tokens.
        targets: (T,), whose loss and rank are measured; None for the next tokens of the text.
    Returns:
        Likeliest tokens (L + 1, T, n); loss and rank of the targets (L + 1, T).
    """
    targets = shifted(inside.token_ids) if targets is None else targets
    norm = model.transformer.ln_f
    said, scores = [], []
    with model.evaluating():
        earlier = inside.after_layers()[:-1].to(norm.weight.dtype)
        # One at a time, for V is large; the last is not computed again, but the model's own.
        for logits in chain((model.head(norm(stream)) for stream in earlier), [inside.logits]):
            said.append(next_tokens(logits, n))
            scores.append(token_scores(logits, targets))
    return (
        Likeliest(
            torch.stack([layer.token_ids for layer in said]),
            torch.stack([layer.probabilities for layer in said]),
        ),
        TokenScores(
            torch.stack([layer.loss for layer in scores]),
            torch.stack([layer.rank for layer in scores]),
        ),
    )
