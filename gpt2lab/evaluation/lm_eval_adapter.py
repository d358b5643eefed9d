"""A model of ours as lm-eval's harness asks for one.

    lm_eval.simple_evaluate(model=LMEvalAdapter(load("runs/first")), tasks=["lambada_openai"])

It gives the numbers of lm-eval's own adapter for transformers (HFLM, without a start token), the
context of a question being read once for all its answers. Needs the package lm-eval.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation.items import Item
from gpt2lab.evaluation.reading import speech_of_text
from gpt2lab.evaluation.scoring import score_batches
from gpt2lab.evaluation.until import continued_until
from gpt2lab.generation.text import settings_of
from gpt2lab.loading import load
from gpt2lab.model import GPT2

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import (
        get_rolling_token_windows,
        make_disjoint_window,
        simple_parse_args_string,
    )
except ImportError as error:
    raise ImportError("lm-eval is not installed; run pip install 'gpt2lab[lm-eval]'") from error

LONGEST_ANSWER = 256
"""Tokens generated at most where a task does not say, as in HFLM; or half the model's context."""
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""What a task may say of sampling; our names are those of transformers."""


@register_model("gpt2lab")
class LMEvalAdapter(TemplateLM):
    """Once this module is imported, `model="gpt2lab", model_args="checkpoint=runs/first"` too.

    Args:
        batch_tokens: that are computed at once, padding counted.
    Raises:
        ConfigError: if the model reads no text.
    """

    def __init__(self, model: GPT2, batch_tokens: int = 8192) -> None:
        super().__init__()
        self.model, self.batch_tokens = model, batch_tokens
        self.speech = speech_of_text(model, "lm_eval")
        self._device = model.device

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "LMEvalAdapter":
        """Of `checkpoint`, and what `load` takes besides; lm-eval's batch sizes play no part."""
        options = dict(arg_dict)
        if "checkpoint" not in options:
            raise ConfigError("model_args: has no checkpoint; add checkpoint=<run or file>")
        if device := (additional_config or {}).get("device"):
            options["device"] = device
        batch_tokens = int(options.pop("batch_tokens", 8192))
        return cls(load(options.pop("checkpoint"), **options), batch_tokens)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> "LMEvalAdapter":
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def eot_token_id(self) -> int:
        """What stands before a text that nothing precedes."""
        first = self.speech.start if self.speech.start is not None else self.speech.empty
        return 0 if first is None else first

    @property
    def max_length(self) -> int:
        return self.model.config.block_size

    @property
    def tokenizer_name(self) -> str:
        """Requests that are kept belong to a tokenizer."""
        return self.speech.tokenizer.fingerprint

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """As transformers' tokenizer has it, the text `<|endoftext|>` is the token."""
        has_end = self.speech.tokenizer.end_of_text is not None
        return self.speech.tokenizer.encode(string, allow_special=has_end)

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        **options: Any,
    ) -> list[tuple[float, bool]]:
        """Of continuations, each behind its context; those behind one context are one item.

        Raises:
            DataError: if a continuation is longer than the model's context.
        """
        # Nothing is certain to follow, as the likeliest.
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        behind: dict[tuple[int, ...], list[int]] = {}
        for number, (_texts, context, continuation) in enumerate(requests):
            if len(continuation) > self.max_length:
                raise DataError(
                    f"lm_eval_tasks: a continuation has {len(continuation)} tokens, the model's "
                    f"context is {self.max_length}; choose another task or model"
                )
            if continuation:
                kept = tuple(context[-(self.max_length + 1 - len(continuation)) :])
                behind.setdefault(kept, []).append(number)
        groups = list(behind.values())
        items = [
            Item(np.array(context), [np.array(requests[number][2]) for number in group])
            for context, group in behind.items()
        ]
        for batch in score_batches(self.model, items, self.batch_tokens):
            for i, scores in batch:
                for number, each in zip(groups[i], scores, strict=True):
                    found[number] = -math.fsum(each.nll), bool(each.right.all())
                    if (texts := requests[number][0]) is not None:
                        self.cache_hook.add_partial("loglikelihood", texts, found[number])
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Of whole texts, in windows that have as much context as fits, without overlap."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            for window in get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, 1
            ):
                context, continuation = make_disjoint_window(window)
                windows.append((None, context, continuation))
                owners.append(number)
        found = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            found[owner] += value
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Texts, each up to the first of its stop strings, or to the end of text.

        Raises:
            ConfigError: for a way of sampling that is not known here.
        """
        found = [""] * len(requests)
        rows = [self.tok_encode(request.args[0]) or [self.prefix_token_id] for request in requests]
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        for group in alike.values():
            settings, until = self._asked(requests[group[0]].args[1])
            room = settings.max_new_tokens
            group = sorted(group, key=lambda number: -len(rows[number]))
            while group:
                longest = min(len(rows[group[0]]), self.max_length - room)
                count = max(1, self.batch_tokens // (longest + room))
                batch, group = group[:count], group[count:]
                kept = [rows[number][-(self.max_length - room) :] for number in batch]
                texts = continued_until(self.model, kept, batch, settings, until)
                for number, text in zip(batch, texts, strict=True):
                    found[number] = text
                    self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return found

    def _asked(self, wanted: dict[str, Any]) -> tuple[Any, list[str]]:
        """Settings of sampling, and stop strings, of a task's generation_kwargs."""
        asked = dict(normalize_gen_kwargs(wanted, min(LONGEST_ANSWER, self.max_length // 2)))
        room, until = asked.pop("max_gen_toks"), asked.pop("until")
        if not asked.pop("do_sample", False):
            asked = {key: asked[key] for key in asked if key == "repetition_penalty"}
            asked["temperature"] = 0.0
        if unknown := sorted(asked.keys() - set(SAMPLING)):
            raise ConfigError(
                f"generation_kwargs: {', '.join(unknown)} of the task is not known here; known are "
                f"do_sample, max_gen_toks, until, {', '.join(SAMPLING)}"
            )
        if room >= self.max_length:
            raise ConfigError(
                f"generation_kwargs: the task wants {room} new tokens, the model's context is "
                f"{self.max_length}; set max_gen_toks below it in the task, or take another model"
            )
        return settings_of({**asked, "max_new_tokens": room}), [stop for stop in until if stop]
