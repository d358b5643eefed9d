"""The metrics that a run can be stopped or judged by."""

from collections.abc import Iterator

from gpt2lab.config.settings.data import DataConfig, TextConfig

HIGHER_IS_BETTER = {
    "val/loss": False,
    "val/perplexity": False,
    "val/bits_per_byte": False,
    "val/exact_match": True,
    "val/token_accuracy": True,
}
"""The metrics that a run can be stopped or judged by, in nats per token or as shares of 1.

Running text has bits_per_byte, and questions with answers have exact_match.
"""


def stop_at_problems(stop_at: str, data: DataConfig) -> Iterator[str]:
    unmeasured = unmeasured_on(data)
    try:
        metric, target = parse_stop_at(stop_at)
    except ValueError:
        metric, target = "", 0.0
    highest = 1.0 if HIGHER_IS_BETTER.get(metric) else float("inf")
    if metric not in HIGHER_IS_BETTER:
        choices = ", ".join(name for name in HIGHER_IS_BETTER if name != unmeasured)
        yield f"stop_at: {stop_at!r} is not <metric>:<number>; the metrics are {choices}"
    elif metric == unmeasured:
        yield f"stop_at: {metric} is not measured on data={data.kind}; choose another metric"
    elif not 0 <= target <= highest or target == float("inf"):
        yield f"stop_at: {target:g} is never reached by {metric}; choose a value that can be"


def unmeasured_on(data: DataConfig) -> str:
    """The one of the metrics that this data does not have."""
    return "val/exact_match" if isinstance(data, TextConfig) else "val/bits_per_byte"


def parse_stop_at(stop_at: str) -> tuple[str, float]:
    """('val/loss', 1.5) for 'val/loss:1.5'."""
    metric, _, target = stop_at.rpartition(":")
    return metric, float(target)
