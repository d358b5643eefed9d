"""Whole plans, beside numbers worked out by hand."""

import pytest

from gpt2lab.data.prepare import prepare
from gpt2lab.planning.plan import ASSUMED_CHARACTERS, make_plan
from gpt2lab.planning.table import duration, operations, show, size, tokens
from tests.planning.works import settings

XL = ("model=xl", "data=fineweb_edu", "experiment=gpt2_xl_fineweb", "hardware=h100")


def plan_of(*overrides):
    from gpt2lab.config.compose import settings_from

    return make_plan(settings_from("plan", overrides).settings)


def test_gpt2_xl_on_eight_h100():
    plan = plan_of(*XL, "strategy=fsdp", "devices=8", "price_per_hour=2.5")
    found = plan.results()
    assert found["parameters"] == 1_557_611_200
    assert found["tokens_a_step"] == 1024 * 1024
    sequence = 6 * (1_557_611_200 - 1024 * 1600) * 1024 + 12 * 48 * 1600 * 1024**2
    assert found["flops_a_step"] == 1024 * sequence
    assert found["flops"] == 32_000 * found["flops_a_step"]
    assert (found["micro_batch_size"], found["micro_batches"]) == (16, 8)
    products = found["flops_a_step"] / (8 * 0.4 * 989.4e12)
    assert found["seconds_by_part"]["products"] == pytest.approx(products)
    hours = 32_000 * found["seconds_a_step"] / 3600
    assert found["hours"] == pytest.approx(hours)
    assert found["money"] == pytest.approx(hours * 8 * 2.5)
    assert found["tokens_per_second"] == pytest.approx(1024**2 / found["seconds_a_step"])
    assert found["utilisation"] == pytest.approx(0.4, rel=0.01)  # 0.4 but for the update
    assert found["fits"]
    assert found["would_fit"] == []
    assert any("efficiency=0.4" in text for text in found["assumed"])


def test_without_fsdp_the_same_does_not_fit_and_the_ways_are_told(capsys):
    plan = plan_of(*XL, "devices=8", "hardware=a100-40gb")
    assert not plan.fits
    assert plan.results()["money"] is None
    show(plan)
    told = capsys.readouterr().out
    assert "does not fit" in told
    assert plan.ways
    for way in plan.ways:
        assert f"\n  {' '.join(way.overrides)}  (" in told


def test_an_efficiency_of_ones_own_is_not_assumed():
    plan = plan_of(*XL, "devices=8", "strategy=fsdp", "efficiency=0.5")
    assert plan.utilisation == pytest.approx(0.5, rel=0.01)
    assert not [text for text in plan.assumed if "efficiency" in text]


def test_time_is_not_known_where_the_rate_is_not():
    plan = plan_of(*XL, "hardware=t4", "precision=bf16")
    assert plan.seconds is plan.hours is plan.money is plan.utilisation is None
    assert plan.results()["tokens_per_second"] is None


def test_an_automatic_micro_batch_is_the_largest_that_fits():
    plan = plan_of(*XL, "devices=8", "strategy=ddp", "micro_batch_size=auto")
    assert plan.fits
    assert plan.work.rows == plan.fitting_rows > 1
    assert plan.work.sequences == 1024


def test_a_training_ends_when_its_minutes_do():
    found = plan_of(*XL, "max_minutes=90").results()
    assert found["hours"] == pytest.approx(1.5, abs=found["seconds_a_step"] / 3600)
    assert found["steps"] * found["seconds_a_step"] == 3600 * found["hours"]
    assert found["tokens"] == found["steps"] * found["tokens_a_step"]
    assert found["flops"] == found["steps"] * found["flops_a_step"]
    assert plan_of(*XL, "max_minutes=1e9").steps == 32_000


def test_rows_of_sorted_digits_are_as_long_as_they_are_and_a_part_of_them_counts():
    plan = plan_of("model=nano", "data=sort", "hardware=l4")
    assert (plan.work.tokens, plan.work.counted) == (11, 6 / 11)


def test_characters_are_assumed_until_the_text_is_prepared(tmp_path):
    words = ["model=char", "data=builtin", "hardware=l4", f"data_dir={tmp_path / 'data'}"]
    plan = plan_of(*words)
    assert plan.work.model.vocab_size == ASSUMED_CHARACTERS
    assert plan.assumed[0].startswith("model.vocab_size=256: ")
    assert not (tmp_path / "data").exists()
    text = tmp_path / "a.txt"
    text.write_text("abc\n" * 500)
    words = ["model=char", "data=text", f"data.path={text}", "data.tokenizer=char", "hardware=l4"]
    words.append(f"data_dir={tmp_path / 'data'}")
    prepare(settings(*words[1:]).data, tmp_path / "data")
    plan = plan_of(*words)
    assert plan.work.model.vocab_size == 4
    assert not [text for text in plan.assumed if "vocab_size" in text]


def test_numbers_are_short():
    assert tokens(33_554_432_000) == "33.6 B tokens"
    assert tokens(704) == "704 tokens"
    assert operations(10_778_894_873_395_200) == "10.8 PFLOP"
    assert size(5 * 2**30) == "5.0 GiB"
    assert size(3 * 2**20) == "3.0 MiB"
    assert [duration(s) for s in (0.0251, 3.4, 90, 5400, 4 * 86400)] == [
        "25.1 ms",
        "3.4 s",
        "1.5 minutes",
        "1.5 hours",
        "4 days",
    ]


def test_more_devices_than_this_machine_has_are_said_to_be_assumed(monkeypatch):
    monkeypatch.setattr("gpt2lab.planning.plan.os.cpu_count", lambda: 2)
    tiny = ("model=nano", "data=sort", "trainer=cpu", "batch_size=8")
    assert "a core for each of 4 devices; this machine has 2" in plan_of(*tiny, "devices=4").assumed
    assert not any("a core" in text for text in plan_of(*tiny, "devices=2").assumed)
