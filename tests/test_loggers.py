import csv
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from gpt2lab.loggers import CSVLogger, Guarded, show_picture, show_text
from gpt2lab.metrics import read_metrics


def test_one_row_a_step_with_empty_cells_for_what_was_not_measured(tmp_path):
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 2.5}, step=10)
    logger.log_metrics({"val/loss": 2.25}, step=10)
    logger.log_metrics({"train/loss": 1.5}, step=20)
    logger.save()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["10", "20"]
    assert (rows[0]["train/loss"], rows[0]["val/loss"], rows[1]["val/loss"]) == ("2.5", "2.25", "")


def test_a_metric_that_appears_later_gets_a_column(tmp_path):
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 2.5}, step=10)
    logger.log_metrics({"mine": 7.0}, step=20)
    logger.save()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["mine"] for row in rows] == ["", "7.0"]
    assert rows[0]["train/loss"] == "2.5"


def test_a_resume_drops_the_rows_beyond_its_step_and_appends(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CSVLogger(path)
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": float(step)}, step=step)
    logger.save()
    again = CSVLogger(path)
    again.resume_at(20)
    again.log_metrics({"train/loss": 0.5}, step=30)
    again.save()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["step"], r["train/loss"]) for r in rows] == [
        ("10", "10.0"),
        ("20", "20.0"),
        ("30", "0.5"),
    ]


def test_what_a_step_was_still_to_be_measured_for_goes_into_its_row(tmp_path):
    path = tmp_path / "metrics.csv"
    whole, begun = CSVLogger(tmp_path / "whole.csv"), CSVLogger(path)
    for logger in (whole, begun):
        logger.log_metrics({"train/loss": 0.1}, step=10)
        logger.log_metrics({"train/loss": 0.2}, step=20)
    begun.save()
    again = CSVLogger(path)
    again.resume_at(20)
    for _ in range(2):  # a second time, it is the same row again
        again.log_metrics({"val/loss": 0.3}, step=20)
        again.save()
    whole.log_metrics({"val/loss": 0.3}, step=20)
    for logger in (whole, again):
        logger.log_metrics({"train/loss": 0.4}, step=30)
        logger.save()
    assert path.read_text() == (tmp_path / "whole.csv").read_text()


def test_a_step_without_a_row_gets_one_for_what_was_still_to_be_measured(tmp_path):
    logger = CSVLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 0.1}, step=10)
    logger.save()
    again = CSVLogger(tmp_path / "metrics.csv")
    again.resume_at(20)
    again.log_metrics({"val/loss": 0.3}, step=20)
    again.save()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == ["10", "20"]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/loss\n10,2.5,\n20,1.")
    assert [row["step"] for row in read_metrics(path)] == ["10"]


class Failing(Logger):
    name = version = "x"

    def log_metrics(self, metrics, step=None):
        raise OSError("No space left on device")

    def log_hyperparams(self, params):
        raise AssertionError("is not asked again after a failure")


def test_a_damaged_row_is_left_out_and_hides_no_other(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,train/loss\n1,0.5\n2,0.\xff\n3,0.3\n")
    assert [row["step"] for row in read_metrics(path)] == ["1", "3"]


def test_a_failing_logger_is_one_warning(tmp_path):
    logger = Guarded("logger.x", Failing)
    with pytest.warns(UserWarning, match=r"logger\.x: No space left on device; training goes on"):
        logger.log_metrics({"a": 1.0}, step=1)
    logger.log_metrics({"a": 1.0}, step=2)
    logger.log_hyperparams({})
    logger.save()
    logger.finalize("success")
    assert logger.experiment is None


def test_a_logger_that_cannot_be_made_is_one_warning():
    def make():
        raise ModuleNotFoundError("No module named 'wandb'")

    with pytest.warns(UserWarning, match=r"logger\.wandb: No module named 'wandb'"):
        logger = Guarded("logger.wandb", make)
    logger.log_metrics({"a": 1.0}, step=1)


def test_loggers_that_can_show_a_text_and_a_picture_do(tmp_path):
    pytest.importorskip("tensorboard")
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.fromarray(np.full((3, 5, 3), 200, np.uint8)).save(tmp_path / "red.png")
    csv_logger = Guarded("metrics.csv", lambda: CSVLogger(tmp_path / "metrics.csv"))
    board = Guarded("logger.tensorboard", lambda: TensorBoardLogger(str(tmp_path), "", "board"))
    trainer = SimpleNamespace(loggers=[csv_logger, board], global_step=7)
    show_text(trainer, "samples", "| a |\n|---|\n| b |\n")
    show_picture(trainer, "attention", tmp_path / "red.png")
    show_picture(trainer, "absent", tmp_path / "absent.png")
    board.finalize("success")
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    (image,) = events.Images("attention")
    assert (image.step, image.width, image.height) == (7, 5, 3)
    assert events.Tags()["images"] == ["attention"]
    assert events.Tags()["tensors"] == ["samples/text_summary"]


def test_a_text_or_picture_that_cannot_be_shown_is_one_warning(tmp_path):
    class Shows(Failing):
        def log_text(self, name, text, step):
            raise OSError("No space left on device")

        log_image = log_text

    (tmp_path / "a.png").touch()
    trainer = SimpleNamespace(loggers=[Guarded("logger.x", Shows)], global_step=1)
    with pytest.warns(UserWarning, match=r"logger\.x: No space left on device"):
        show_text(trainer, "samples", "text")
    with warnings.catch_warnings(action="error"):
        show_picture(trainer, "curves", tmp_path / "a.png")
