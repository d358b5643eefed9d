"""Pictures by what they are drawn of: scales, ticks, limits, colours and legends."""

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpt2lab.sweep.axes import Scale
from tests.sweep.studies import ROOT, stub_study


def scale(told) -> Scale:
    return Scale(stub_study(ROOT, space={"x": told}).space[0])


def labels_of(told) -> list:
    """The labels of a parameter's axis, from left to right, after it is drawn."""
    figure = Figure(figsize=(5.0, 2.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_ylabel("val/loss")
    scale(told).set(axes)
    figure.draw_without_rendering()
    shown = [text for text in axes.get_xticklabels() if text.get_text()]
    low, high = axes.get_xlim()
    return [text for text in shown if low <= text.get_position()[0] <= high]


@pytest.mark.parametrize(
    "values",
    [
        [1e-4, 3e-4, 1e-3, 3e-3],
        [1e-4, 2e-4, 5e-4, 1e-3],
        [1e-3, 3e-3, 1e-2],
        [1e-3, 1e-2],
        [3e-2, 3e-3],
        [1e-2, 1e-3, 1e-4],
        [24, 48, 96],
        [1e-3, 2e-3, 5e-3, 8e-3, 1e-2],
    ],
)
def test_choices_that_grow_by_factors_have_a_logarithmic_axis(values):
    assert scale({"choice": values}).is_log


@pytest.mark.parametrize(
    "values", [[1, 2, 3], [6, 12, 18, 24], [*range(1, 13)], [0.0, 0.1, 0.2], [0, 1], [4], [-1, 1]]
)
def test_choices_at_even_steps_and_those_that_begin_at_zero_have_a_linear_one(values):
    found = scale({"choice": values})
    assert found.is_number
    assert not found.is_log


def test_numbers_that_no_axis_holds_apart_stand_beside_each_other():
    found = scale({"choice": [1e-2, 0.0, 1e-5, 1e-1]})
    assert [found.share(x) for x in (0.0, 1e-5, 1e-2, 1e-1)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize(
    "told",
    [
        {"choice": [1e-4, 3e-4, 1e-3, 3e-3]},
        {"choice": [1e-4, 2e-4, 5e-4, 1e-3]},
        {"choice": [1e-3, 2e-3, 5e-3, 8e-3, 1e-2]},
        {"choice": [0, 1e-5, 1e-4, 1e-3]},
        {"choice": [*range(1, 41)]},
        {"choice": [f"a rather long name of a choice {i}" for i in range(5)]},
        {"choice": [0.00101, 0.00102, 0.00103, 0.00104, 0.00105, 0.0011]},
        {"log_range": [1e-6, 1.0]},
        {"log_range": [1e-4, 1e-1]},
        {"log_range": [1e-3, 1e-1]},
        {"log_range": [3e-3, 4e-3]},
    ],
)
def test_no_label_touches_another(told):
    shown = labels_of(told)
    assert len(shown) >= 2
    if shown[0].get_rotation():
        across = [text.get_window_extent().x1 for text in shown]  # they end at their ticks
        height = 1.2 * shown[0].get_fontsize() * 100 / 72
        assert all(b - a >= height for a, b in pairwise(across))
    else:
        boxes = [text.get_window_extent() for text in shown]
        assert all(b.x0 > a.x1 for a, b in pairwise(boxes))
