"""Numbers that others have published, to stand beside ours."""

import math
from dataclasses import dataclass

SMALL, MEDIUM, LARGE, XL = 124_439_808, 354_823_168, 774_030_080, 1_557_611_200
"""Parameters of the four sizes, which the GPT-2 paper calls 117M, 345M, 762M and 1542M."""
SIZES = {SMALL: "124M", MEDIUM: "355M", LARGE: "774M", XL: "1558M"}

PAPER = "GPT-2 paper, table 3"
"""Radford et al. 2019, Language Models are Unsupervised Multitask Learners."""
LM_EVAL_SMALL = "lm-eval issue 2159"
LM_EVAL_XL = "lm-eval issue 911"
LLM_C = "llm.c, dev/data/hellaswag.py"
"""Completion style; by the mean over tokens, where lm-eval takes characters."""


@dataclass(frozen=True)
class Published:
    """A number and whose it is."""

    value: float
    parameters: int
    source: str


def _paper(small: float, medium: float, large: float, xl: float) -> list[Published]:
    values = {SMALL: small, MEDIUM: medium, LARGE: large, XL: xl}
    return [Published(value, size, PAPER) for size, value in values.items()]


PUBLISHED: dict[tuple[str, str], list[Published]] = {
    ("lambada", "word_accuracy"): [Published(0.3256, SMALL, LM_EVAL_SMALL)],
    ("lambada", "word_perplexity"): [
        Published(40.0554, SMALL, LM_EVAL_SMALL),
        Published(10.63, XL, LM_EVAL_XL),
    ],
    # The paper filters stop words besides, by a list that is not public.
    ("lambada", "last_token_accuracy"): _paper(0.4599, 0.5548, 0.6012, 0.6324),
    ("lambada", "last_token_perplexity"): _paper(35.13, 15.60, 10.87, 8.63),
    ("cbt", "acc_cn"): _paper(0.8765, 0.9235, 0.9345, 0.9330),
    ("cbt", "acc_ne"): _paper(0.834, 0.871, 0.880, 0.8905),
    ("wikitext2", "word_perplexity"): _paper(29.41, 22.76, 19.93, 18.34),
    ("ptb", "word_perplexity"): _paper(65.85, 47.33, 40.31, 35.76),
    ("enwik8", "bits_per_byte"): _paper(1.16, 1.01, 0.97, 0.93),
    ("text8", "bits_per_character"): _paper(1.17, 1.06, 1.02, 0.98),
    ("wikitext103", "word_perplexity"): _paper(37.50, 26.37, 22.05, 17.48),
    ("1bw", "word_perplexity"): _paper(75.20, 55.72, 44.575, 42.16),
    ("hellaswag", "acc_norm"): [Published(0.2955, SMALL, LLM_C), Published(0.4893, XL, LLM_C)],
}


def nearest(task: str, metric: str, parameters: int) -> Published | None:
    """What was published of the size nearest to this one, by the ratio of parameters."""
    return min(
        PUBLISHED.get((task, metric), []),
        key=lambda each: abs(math.log(each.parameters / parameters)),
        default=None,
    )
