"""What must hold between the settings of runs."""

from collections.abc import Iterator

from gpt2lab.config.check.metrics import HIGHER_IS_BETTER
from gpt2lab.config.settings.runs import RunsConfig


def runs_problems(config: RunsConfig) -> Iterator[str]:
    if (config.a is None) != (config.b is None):
        given, missing = ("b", "a") if config.a is None else ("a", "b")
        yield f"{missing}: is missing; name two runs to compare, or leave {given}= out for a list"
    for key in ("runs_dir", "a", "b", "show"):
        if getattr(config, key) == "":
            yield f"{key}: is empty; give a value, or leave {key}= out"
    if config.a is not None and config.b is not None:
        for key in ("sort", "show"):
            if getattr(config, key) is not None:
                yield f"{key}: is for the list of runs; leave it out, or a= and b="
    if config.sort is not None and config.sort not in HIGHER_IS_BETTER:
        metrics = ", ".join(HIGHER_IS_BETTER)
        yield f"sort: {config.sort!r} is no metric; the metrics are {metrics}"
