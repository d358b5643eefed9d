"""Pictures by what they are drawn of: scales, ticks, limits, colours and legends."""

import math
from itertools import pairwise, product

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpt2lab.config import Sampler
from gpt2lab.sweep.axes import Height, Scale
from gpt2lab.sweep.looks import PAPER, look
from gpt2lab.sweep.pictures import PICTURES, curves, draw, parallel, parameters, trade_offs
from gpt2lab.sweep.trials import State
from tests.sweep.constructed import other, point
from tests.sweep.studies import ROOT, stub_study

RATE = {"optim.lr": {"log_range": [1e-3, 1e-1]}}


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


def test_a_long_word_loses_its_middle():
    words = ["a long name of a choice, the first", "a long name of a choice, the second", "b"]
    found = [text for _, text in scale({"choice": words}).ticks()]
    assert found == ["a long na...he first", "a long na...e second", "b"]


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


def test_axes_are_logarithmic_where_the_space_is():
    assert scale({"log_range": [1e-3, 1e-1]}).share(1e-2) == pytest.approx(0.5)
    assert scale({"range": [0, 10]}).share(5) == 0.5
    assert scale({"choice": [24, 48, 96]}).share(48) == pytest.approx(0.5)
    assert scale({"choice": ["a", "b", None]}).share(None) == 1
    assert scale({"choice": [True, False]}).share(False) == 1
    assert scale({"choice": ["a"]}).share("a") == 0.5


def test_what_was_not_reached_lies_beyond_the_worst():
    assert Height("steps", [1.0, 2.0, math.inf]).place(math.inf) > 2
    assert Height("steps", [1.0, 1000.0, math.inf]).is_log
    assert Height("steps", [1.0, 1000.0, math.inf]).place(math.inf) > 1000
    assert Height("steps", [math.inf]).place(math.inf) > 0
    assert Height("steps", [1.0, math.inf]).share(math.inf) > 1


def ticks_of(axis) -> list[float]:
    low, high = axis.get_view_interval()
    return [x for x in axis.get_majorticklocs() if low <= x <= high]


def axes_of(height: Height):
    axes = Figure().subplots()
    height.set(axes)
    return axes


def test_where_no_target_was_reached_no_number_stands():
    axes = axes_of(Height("steps", [math.inf, math.inf]))
    assert ticks_of(axes.yaxis) == []
    assert [text.get_text() for text in axes.texts] == ["not reached"]


def test_no_number_stands_beyond_what_was_reached():
    assert max(ticks_of(axes_of(Height("steps", [60.0, 260.0, math.inf])).yaxis)) <= 260
    assert ticks_of(axes_of(Height("steps", [60.0, math.inf])).yaxis) == [60]
    assert max(ticks_of(axes_of(Height("steps", [1.0, 1500.0, math.inf])).yaxis)) <= 1500


def test_what_was_not_reached_is_named_above_its_points():
    (text,) = axes_of(Height("steps", [60.0, 260.0, math.inf])).texts
    assert text.get_position()[1] >= 4  # points; the marks of points reach 2


def test_axes_name_units_where_names_do_not_say_them():
    labels = {
        "val/loss": "val/loss (nats per token)",
        "best.val/exact_match": "best.val/exact_match (share of 1)",
        "seconds": "seconds (s)",
        "steps": "steps",
    }
    for goal, label in labels.items():
        assert axes_of(Height(goal, [0.5, 1.0])).get_ylabel() == label


@pytest.fixture
def shares(tmp_path):
    """Three seeds each, whose intervals reach above 1."""
    space = {"model.n_layer": {"choice": [1, 2]}, "data.length": {"choice": [6, 12]}}
    study = stub_study(tmp_path / "s", space=space, goal=["val/exact_match"], seeds=3)
    some = [{"model.n_layer": n, "data.length": m} for n in (1, 2) for m in (6, 12)]
    return study, [
        point(study, i, params, lambda _, seed, i=i: (1 - 0.05 * seed - 0.01 * i,), 3)
        for i, params in enumerate(some)
    ]


def test_intervals_of_shares_end_at_one(shares):
    for axes in parameters(*shares).axes:
        drawn = [y for line in axes.lines for y in line.get_ydata()]
        assert max(drawn) == 1
        assert max(ticks_of(axes.yaxis)) <= 1


def test_goals_against_each_other_show_what_was_not_reached_at_the_side_too(tmp_path):
    study = stub_study(tmp_path / "s", space=RATE, goal=["steps", "seconds"])
    ends = [(10.0, 1.0), (math.inf, 2.0)]
    points = [point(study, i, {"optim.lr": 0.01}, lambda *_, i=i: ends[i]) for i in range(2)]
    (axes,) = trade_offs(study, points).axes
    assert "not reached" in [text.get_text() for text in axes.texts]
    assert ticks_of(axes.xaxis) == [10]


def missed_or(*ends: float, folder):
    """Points of a rate and what they reached."""
    study = stub_study(folder, space=RATE, goal=["steps"])
    some = enumerate(zip((0.001, 0.01, 0.1), ends, strict=False))
    return study, [
        point(study, i, {"optim.lr": lr}, lambda *_, end=end: (end,)) for i, (lr, end) in some
    ]


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_parallel_lines_lie_on_the_whole_scale(tmp_path):
    """Not on what one line alone takes of it."""
    (axes,) = parallel(*missed_or(60.0, folder=tmp_path / "one")).axes
    low, high = axes.get_ylim()
    assert -0.1 < low < 0 < 1 < high < 1.1
    (axes,) = parallel(*missed_or(60.0, 70.0, math.inf, folder=tmp_path / "three")).axes
    assert axes.get_ylim()[1] > Height("steps", [60.0, math.inf]).share(math.inf)
    assert words(axes) == ["0.001", "0.1", "60", "70", "not reached"]


def test_parallel_lines_show_no_number_that_none_reached(tmp_path):
    (axes,) = parallel(*missed_or(math.inf, math.inf, folder=tmp_path / "s")).axes
    assert words(axes) == ["0.001", "0.1", "not reached"]


def test_numbers_stand_on_paper_not_on_lines(tmp_path):
    study, points = missed_or(60.0, 70.0, folder=tmp_path / "s")
    (axes,) = parallel(study, points).axes
    assert all(text.get_bbox_patch() is not None for text in axes.texts)
    _, svg = draw(study, points, "parallel")
    assert "var(--paper)" in svg
    assert PAPER not in svg


def test_one_point_has_the_colour_of_the_best(tmp_path):
    one = curves(*missed_or(60.0, folder=tmp_path / "one"))
    three = curves(*missed_or(60.0, 70.0, 80.0, folder=tmp_path / "three"))
    assert one.axes[0].lines[0].get_color() == three.axes[0].lines[0].get_color()


@pytest.fixture
def widths_and_ways(tmp_path):
    """Four widths times two ways, and rates of which both ways reach the same at width 32."""
    space = {
        "optim.lr": {"log_range": [1e-3, 4e-3], "num": 3},
        "model.n_embd": {"choice": [32, 64, 128, 256]},
        "rates": {"choice": {"one": ["x=1"], "scaled": ["x=2"]}},
    }
    study = stub_study(tmp_path / "s", space=space, sampler=Sampler.grid)
    grid = product(*(parameter.values() for parameter in study.space))
    some = [dict(zip(space, params, strict=True)) for params in grid]

    def reached(params, _):
        is_one = params["rates"] == "one" and params["model.n_embd"] > 32
        return (params["model.n_embd"] / 100 + 10 * params["optim.lr"] + 0.1 * is_one,)

    return study, [point(study, i, params, reached) for i, params in enumerate(some)]


def legend_of(axes) -> dict:
    """The lines by their words."""
    handles, names = axes.get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


def test_a_colour_means_the_same_in_all_panels(widths_and_ways):
    meanings: dict[str, list[set[str]]] = {}
    for axes in parameters(*widths_and_ways).axes:
        for name, line in legend_of(axes).items():
            meanings.setdefault(line.get_color(), []).append(set(name.split(", ")))
    assert len(meanings) > 4
    assert all(set.intersection(*said) for said in meanings.values())


def test_two_choices_together_have_the_colours_of_one_and_the_dashes_of_the_other(widths_and_ways):
    lines = legend_of(parameters(*widths_and_ways).axes[0])
    assert len(lines) == 8
    assert len({line.get_color() for line in lines.values()}) == 4
    assert {name for name, line in lines.items() if line.get_linestyle() == "--"} == {
        f"n_embd={n}, rates=scaled" for n in (32, 64, 128, 256)
    }


def test_a_line_beneath_another_is_wider_and_shows(widths_and_ways):
    lines = legend_of(parameters(*widths_and_ways).axes[0])
    above, below = lines["n_embd=32, rates=one"], lines["n_embd=32, rates=scaled"]
    assert list(above.get_ydata()) == list(below.get_ydata())
    assert above.get_zorder() > below.get_zorder()
    assert above.get_linewidth() + 0.4 < below.get_linewidth()


def test_where_something_else_moves_too_no_line_is_drawn(tmp_path):
    space = {**RATE, "model.n_embd": {"choice": [24, 48]}}
    study = stub_study(tmp_path / "s", space=space)
    some = [{"optim.lr": 0.01 * (i + 1), "model.n_embd": 24 * (i % 2 + 1)} for i in range(4)]
    points = [point(study, i, params, lambda *_: (1.0,)) for i, params in enumerate(some)]
    rates, widths = parameters(study, points).axes
    assert {line.get_linestyle() for line in legend_of(rates).values()} == {"-"}
    assert {line.get_linestyle() for line in widths.lines} == {"None"}


def test_what_is_at_the_same_place_stands_beside_each_other(shares):
    axes = parameters(*shares).axes[0]
    axes.figure.draw_without_rendering()
    bars = [line for line in axes.lines if len(set(line.get_xdata())) == 1 < len(line.get_ydata())]
    places = {line.get_transform().transform((line.get_xdata()[0], 1))[0] for line in bars}
    assert len(places) == 4  # two lengths at each of two depths


def test_a_legend_names_no_group_without_a_curve(tmp_path):
    study = stub_study(tmp_path / "s", space={"model.n_embd": {"choice": [24, 48]}})
    points = [
        point(study, 0, {"model.n_embd": 24}, lambda *_: (1.0,)),
        other(study, 1, {"model.n_embd": 48}, State.failed, "no"),
    ]
    assert [*legend_of(curves(study, points).axes[0])] == ["n_embd=24", "best"]


def test_more_choices_than_colours_are_still_told_apart():
    space = stub_study(ROOT, space={c: {"choice": [0, 1]} for c in "abc"}).space
    some = [dict(zip("abc", chosen, strict=True)) for chosen in product((0, 1), repeat=3)]
    assert len({look(space, params) for params in some}) == 8


def test_every_picture_says_what_it_shows(tmp_path):
    space = {**RATE, "a": {"range": [0.0, 1.0]}}
    study = stub_study(tmp_path / "s", space=space, goal=["steps", "mfu"])
    points = [
        point(study, i, {"optim.lr": 0.01, "a": i / 20}, lambda *_, i=i: (9.0 + i, 0.1 * i))
        for i in range(12)
    ]
    titles = {name: made(study, points).get_suptitle() for name, made in PICTURES.items()}
    assert titles["parameters"] == "s: steps and mfu against what is varied"
    assert all(title.startswith("s: ") for title in titles.values())


def test_curves_of_one_point_are_none(tmp_path):
    study, points = missed_or(60.0, 70.0, folder=tmp_path / "s")
    for one in points:
        one.trials[0].metrics.write_text("step,val/loss,val/exact_match\n200,1.5,0.5\n")
    assert curves(study, points) is None


@pytest.mark.parametrize("letters", [4, 40])
def test_a_legend_is_no_wider_than_its_picture(tmp_path, letters):
    space = {**RATE, "a": {"choice": ["x" * letters, "y" * letters]}}
    study = stub_study(tmp_path / "s", space=space)
    points = [
        point(study, i, {"optim.lr": 0.01, "a": c * letters}, lambda *_: (1.0,))
        for i, c in enumerate("xy")
    ]
    figure = parameters(study, points)
    figure.draw_without_rendering()
    box = figure.axes[0].get_legend().get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert figure.axes[0].bbox.width > 0.6 * figure.bbox.width
