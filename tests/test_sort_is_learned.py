"""The main job, from the command line to exact match 1.0."""

import json

import pytest

from gpt2lab.experiment import fit


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_nano_learns_to_sort(tmp_path, seed):
    result = fit(["model=nano", "data=sort", f"seed={seed}", f"runs_dir={tmp_path}"])
    assert result.summary["best"]["val/exact_match"] == 1.0
    assert result.summary["steps"] <= 400
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary


@pytest.mark.slow
def test_a_larger_problem_needs_settings_only(tmp_path):
    overrides = ["data.length=10", "data.num_digits=20", "max_steps=1000", f"runs_dir={tmp_path}"]
    result = fit(["model=nano", "data=sort", *overrides])
    assert result.summary["best"]["val/token_accuracy"] > 0.9
