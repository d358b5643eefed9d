"""python -m gpt2lab.runs: what runs there are, and how two of them differ."""

import json
import math
from pathlib import Path
from typing import Any

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import HIGHER_IS_BETTER, RunsConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.runs.run import Run, check_shown, run_named, runs_in, studies_in
from gpt2lab.terminal import take_any_text

PURPOSE = """\
Which runs there are, how far each is and how well it did; or, with a= and b=, how two of them
differ in settings, circumstances and results. It reads what stands in their folders, of runs that
are under way too, and writes nothing."""


def main() -> int:
    flags = arguments("runs", PURPOSE)
    composed = settings_from("runs", flags.overrides, flags.config_dir)
    settings: RunsConfig = composed.settings
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    take_any_text()
    runs_dir = Path(settings.runs_dir).expanduser()
    if settings.a is not None and settings.b is not None:
        compare(
            run_named("a", settings.a, runs_dir), run_named("b", settings.b, runs_dir), settings
        )
    else:
        list_runs(runs_dir, settings)
    return 0


def compare(a: Run, b: Run, settings: RunsConfig) -> None:
    from gpt2lab.runs.table import compared, show_difference

    show_difference(a, b)
    if settings.json:
        found = {key.replace(" ", "_"): values for key, values in compared(a, b).items()}
        print(as_json({"a": a.as_json(), "b": b.as_json(), **found}), flush=True)


def list_runs(runs_dir: Path, settings: RunsConfig) -> None:
    from gpt2lab.runs.table import show_list

    runs, studies = runs_in(runs_dir), studies_in(runs_dir)
    check_shown(settings.show, runs)
    if (metric := settings.sort) is not None:
        runs.sort(key=lambda run: rank(run, metric))
    show_list(runs, settings.show, studies)
    if settings.json:
        print(as_json({"runs": [run.as_json() for run in runs], "folders": studies}), flush=True)


def as_json(found: Any) -> str:
    return json.dumps(finite(found), allow_nan=False)


def finite(found: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not know."""
    if isinstance(found, dict):
        return {key: finite(value) for key, value in found.items()}
    if isinstance(found, list):
        return [finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def rank(run: Run, metric: str) -> tuple[bool, float]:
    """The best first; at the end those that have no such value."""
    best = run.metrics[1].get(metric, math.nan)
    return math.isnan(best), -best if HIGHER_IS_BETTER[metric] else best


if __name__ == "__main__":
    show_errors(main)
