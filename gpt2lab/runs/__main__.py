"""python -m gpt2lab.runs: what runs there are, and how two of them differ."""

import json
import math
from pathlib import Path
from typing import Any

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import HIGHER_IS_BETTER, RunsConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.runs.run import Run, check_shown, compared, run_named, runs_in, studies_in
from gpt2lab.terminal import take_any_text

PURPOSE = """\
Lists runs: how far each is, and how well it did; with a= and b=, how two of them differ in
settings, circumstances and results. It reads their folders, those of running ones too, and writes
nothing."""


def main() -> int:
    flags = arguments("runs", PURPOSE)
    composed = settings_from("runs", flags.overrides, flags.config_dir)
    settings: RunsConfig = composed.settings
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    take_any_text()
    runs_dir = Path(settings.runs_dir)
    if settings.a is None or settings.b is None:
        found = list_runs(runs_dir, settings)
    else:
        a, b = run_named("a", settings.a, runs_dir), run_named("b", settings.b, runs_dir)
        found = compare(a, b)
    if settings.json:
        print(json.dumps(finite(found), allow_nan=False, default=str), flush=True)
    return 0


def list_runs(runs_dir: Path, settings: RunsConfig) -> dict[str, Any]:
    from gpt2lab.runs.table import show_list  # here, so that help need not wait for rich

    runs, studies = runs_in(runs_dir), studies_in(runs_dir)
    shown = [] if settings.show is None else [key.strip() for key in settings.show.split(",")]
    check_shown(shown, runs)
    if (metric := settings.sort) is not None:
        runs.sort(key=lambda run: by_best(run, metric))
    show_list(runs, shown, {str(runs_dir / name): count for name, count in studies.items()})
    return {"runs": [run.as_json() for run in runs], "folders": studies}


def compare(a: Run, b: Run) -> dict[str, Any]:
    from gpt2lab.runs.table import show_difference

    found = compared(a, b)
    show_difference(a, b, found)
    return {"a": a.as_json(), "b": b.as_json(), **found}


def by_best(run: Run, metric: str) -> tuple[bool, float]:
    """The best first; at the end those that have no such value."""
    best = run.metrics[1].get(metric)
    if best is None:
        return True, 0.0
    return False, -best if HIGHER_IS_BETTER[metric] else best


def finite(found: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not know."""
    if isinstance(found, dict):
        return {key: finite(value) for key, value in found.items()}
    if isinstance(found, list):
        return [finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


if __name__ == "__main__":
    show_errors(main)
