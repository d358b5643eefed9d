"""python -m gpt2lab.evaluate: a model's quality in numbers that others have published theirs of."""

import json
from collections.abc import Callable
from typing import Any

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import EvaluateConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.terminal import take_any_text

Results = dict[str, Any]
Show = Callable[[Results], None]
PURPOSE = """\
How good a model is, beside what was published of the nearest size: perplexity of any text, and the
benchmarks of the GPT-2 paper, of data given as data= or else from the Hugging Face hub; or any task
of lm-eval; or which of two models is better. Killed and started again it goes on where it was; the
results are a table and a file of JSON."""


def main() -> int:
    flags = arguments("evaluate", PURPOSE)
    composed = settings_from("evaluate", flags.overrides, flags.config_dir)
    settings: EvaluateConfig = composed.settings
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    take_any_text()

    evaluate, show = ways(settings)
    results = evaluate(settings)
    show(results)
    print(json.dumps(results) if settings.json else results["file"], flush=True)
    return 0


def ways(settings: EvaluateConfig) -> tuple[Callable[[EvaluateConfig], Results], Show]:
    """How a task is done, and how its results are shown."""
    if settings.task is not None and settings.task.name == "compare":
        from gpt2lab.evaluation.compare import compare
        from gpt2lab.evaluation.compare.verdict import show as show_compared

        return compare, show_compared
    from gpt2lab.evaluation.results import show

    if settings.task is not None and settings.task.name == "lm_eval":
        from gpt2lab.evaluation.lm_eval_run import evaluate_by_lm_eval

        return evaluate_by_lm_eval, show
    from gpt2lab.evaluation.run import evaluate

    return evaluate, show


if __name__ == "__main__":
    show_errors(main)
