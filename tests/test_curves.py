"""curves.png: what is on it, and that it can be read."""

import matplotlib as mpl
import pytest

from gpt2lab.curves import curves, draw_curves


def test_no_rows_no_picture(tmp_path):
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("last", "height"), [("", 480), ("0.0", 720)])
def test_exact_match_has_a_panel_where_it_is_measured(tmp_path, last, height):
    metrics, picture = tmp_path / "metrics.csv", tmp_path / "curves.png"
    columns = "step,train/loss,val/loss,val/exact_match"
    metrics.write_text(f"{columns}\n1,2.0,,\n2,nan,1.5,\n3,0.5,,{last}\n4,")  # the last is broken
    draw_curves(metrics, picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert int.from_bytes(picture.read_bytes()[20:24]) == height


def drawn(*losses, column="val/loss"):
    """The panel of losses, at steps 10, 20, ..., as it is on the paper."""
    rows = [{"step": str(10 * n), column: str(x)} for n, x in enumerate(losses, 1)]
    figure = curves(rows, "a")
    with mpl.rc_context():
        figure.draw_without_rendering()
    return figure.axes[0]


def labels(axis):
    low, high = axis.get_view_interval()
    return [
        label.get_text()
        for place, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        if low <= place <= high
    ]


def test_losses_of_many_sizes_are_on_a_logarithmic_axis_with_plain_numbers():
    axis = drawn(3.0, 0.3, 0.004)
    assert axis.get_yscale() == "log"
    assert {"2", "0.1", "0.005"} <= set(labels(axis.yaxis))


@pytest.mark.parametrize("losses", [(3.9, 3.3, 2.8), (0.5, 0.0), (2.0,)])
def test_losses_alike_or_zero_are_on_a_plain_one(losses):
    axis = drawn(*losses)
    assert axis.get_yscale() == "linear"
    assert len(labels(axis.yaxis)) > 2


@pytest.mark.parametrize("count", [1, 2, 40])
def test_steps_are_whole_numbers(count):
    axis = drawn(*[1.0] * count)
    assert labels(axis.xaxis)
    assert all(float(text).is_integer() for text in labels(axis.xaxis))


def test_a_single_value_can_be_seen():
    (line,) = drawn(2.0, column="train/loss").get_lines()
    assert line.get_marker() == "."


def test_a_loss_that_is_no_number_is_marked_at_its_step():
    loss, mark = drawn(2.0, "nan", 1.5, "inf").get_lines()
    assert loss.get_label() == "val/loss"
    assert mark.get_label() == "val/loss is NaN or infinite"
    assert list(mark.get_xdata()) == [20, 40]


def test_where_no_loss_is_a_number_there_are_no_numbers_beside_it():
    axis = drawn("nan", "nan")
    assert labels(axis.yaxis) == []
    (mark,) = axis.get_lines()
    assert list(mark.get_xdata()) == [10, 20]
