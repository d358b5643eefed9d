"""metrics.csv as it is read, whatever has happened to it."""

import math

import pytest

from gpt2lab.metrics import last_and_best, read_metrics

ROWS = "step,train/loss,val/loss,val/exact_match\n1,3.0,2.0,0.5\n2,2.5,,\n3,2.0,1.5,0.25\n"


def read(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_metrics(path)


def steps(rows):
    return [int(row["step"]) for row in rows]


def test_a_line_that_is_cut_short_is_left_out(tmp_path):
    assert steps(read(tmp_path, ROWS + "4,1.")) == [1, 2, 3]
    assert steps(read(tmp_path, ROWS.replace("2,2.5,,", "2,2.5"))) == [1, 3]


@pytest.mark.parametrize("damage", [b'"', b"\0", b"\xff", b","])
def test_a_damaged_byte_costs_its_own_line_alone(tmp_path, damage):
    content = ROWS.encode()
    place = content.index(b"2.5")
    assert steps(read(tmp_path, content[:place] + damage + content[place + 1 :])) == [1, 3]
    long = ROWS + "".join(f"{step},1.0,1.0,1.0\n" for step in range(4, 20_000))
    damaged = long.encode().replace(b"2.5", damage + b".5")
    assert len(read(tmp_path, damaged)) == 19_998


def test_no_file_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.csv") == []


def test_the_best_loss_is_the_least_and_the_best_exact_match_the_greatest(tmp_path):
    last, best = last_and_best(read(tmp_path, ROWS))
    assert last == {"train/loss": 2.0, "val/loss": 1.5, "val/exact_match": 0.25}
    assert best == {"val/loss": 1.5, "val/exact_match": 0.5}


@pytest.mark.parametrize("losses", [("nan", "1.5", "2"), ("1.5", "nan", "2"), ("2", "1.5", "nan")])
def test_a_loss_that_is_no_number_is_never_the_best(losses):
    last, best = last_and_best([{"step": "1", "val/loss": loss} for loss in losses])
    assert best == {"val/loss": 1.5}
    assert math.isnan(last["val/loss"]) == (losses[-1] == "nan")


def test_where_no_loss_is_a_number_none_is_the_best():
    assert last_and_best([{"step": "1", "val/loss": "nan"}])[1] == {}
