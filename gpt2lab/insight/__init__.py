"""Inside a model: what each head looks at, what each layer would say, what each head is worth.

    from gpt2lab import load
    from gpt2lab.insight import attention, logit_lens

    model = load("runs/docs", precision="fp32")
    inside = attention(model, model.speech.encode("The function"))
    inside.weights[-1].mean(0)  # (T, T): the last block, averaged over its heads

Importing this loads no torch; each public name loads its home on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lab.insight.ablation import ablation_costs as ablation_costs
    from gpt2lab.insight.heads import induction_score as induction_score
    from gpt2lab.insight.heads import measured_induction as measured_induction
    from gpt2lab.insight.heads import previous_token_score as previous_token_score
    from gpt2lab.insight.inside import Inside as Inside
    from gpt2lab.insight.inside import attention as attention
    from gpt2lab.insight.inside import shifted as shifted
    from gpt2lab.insight.labels import label as label
    from gpt2lab.insight.predictions import Likeliest as Likeliest
    from gpt2lab.insight.predictions import TokenScores as TokenScores
    from gpt2lab.insight.predictions import logit_lens as logit_lens
    from gpt2lab.insight.predictions import next_tokens as next_tokens
    from gpt2lab.insight.predictions import token_scores as token_scores

_HOME = {
    "Inside": "inside",
    "Likeliest": "predictions",
    "TokenScores": "predictions",
    "ablation_costs": "ablation",
    "attention": "inside",
    "induction_score": "heads",
    "label": "labels",
    "logit_lens": "predictions",
    "measured_induction": "heads",
    "next_tokens": "predictions",
    "previous_token_score": "heads",
    "shifted": "inside",
    "token_scores": "predictions",
}
__all__ = [
    "Inside",
    "Likeliest",
    "TokenScores",
    "ablation_costs",
    "attention",
    "induction_score",
    "label",
    "logit_lens",
    "measured_induction",
    "next_tokens",
    "previous_token_score",
    "shifted",
    "token_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gpt2lab.insight' has no attribute {name!r}")
    return getattr(import_module(f"gpt2lab.insight.{_HOME[name]}"), name)
