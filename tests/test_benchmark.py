import json

import pytest

from gpt2lab.benchmark import __main__ as benchmark
from gpt2lab.benchmark import data, loop, loss, prepare
from gpt2lab.errors import ConfigError


def test_the_loop_benchmark_compares_two_ways_of_the_same_steps(monkeypatch, capsys):
    monkeypatch.setattr(loop, "BLOCK_STEPS", 2)
    monkeypatch.setattr(loop, "BLOCKS", 4)
    monkeypatch.setattr("sys.argv", ["benchmark", "loop", "json=true", "model=nano"])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["blocks"] == 4
    assert result["ratio_lower_quartile"] <= result["ratio"] <= result["ratio_upper_quartile"]
    assert result["lightning_ms_a_step"] > 0


def test_the_loss_benchmark_finds_the_chunked_way_to_need_less_memory(monkeypatch, capsys):
    monkeypatch.setattr(loss, "REPEATS", 1)
    for name, size in {"TOKENS": 1100, "WIDTH": 8, "CLASSES": 5000}.items():
        monkeypatch.setattr(loss, name, size)
    monkeypatch.setattr("sys.argv", ["benchmark", "loss", "json=true"])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ratio"] == pytest.approx(result["chunked_ms"] / result["dense_ms"])
    assert result["memory_ratio"] < 0.5


def test_the_data_benchmark_times_both_shapes(monkeypatch, capsys):
    monkeypatch.setattr(data, "STEPS", 3)
    monkeypatch.setattr("sys.argv", ["benchmark", "data", "json=true"])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["char_tokens_per_second"] * result["char_us_a_step"] == pytest.approx(768e6)


def test_the_prepare_benchmark_is_a_share_of_tiktokens_speed(monkeypatch, capsys):
    monkeypatch.setattr(prepare, "ROUNDS", 1)
    monkeypatch.setattr(prepare, "COPIES", 1)
    monkeypatch.setattr("sys.argv", ["benchmark", "prepare", "json=true"])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["documents"] > 400
    expected = result["tiktoken_seconds"] / result["prepare_seconds"]
    assert result["share_of_tiktokens_speed"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["loss", "data", "prepare"])
def test_a_benchmark_of_fixed_size_takes_no_settings(monkeypatch, name):
    monkeypatch.setattr("sys.argv", ["benchmark", name, "model=nano"])
    with pytest.raises(ConfigError, match="model=nano is a setting"):
        benchmark.main()


@pytest.mark.parametrize("words", [[], ["lop"], ["loop", "loop"]])
def test_another_word_is_refused(monkeypatch, words):
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    with pytest.raises(ConfigError, match=r"benchmark: .* is not one; choose loop"):
        benchmark.main()
