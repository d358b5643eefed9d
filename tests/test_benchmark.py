import json

import pytest

from gpt2lab import benchmark
from gpt2lab.errors import ConfigError


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(benchmark, "STEPS", 3)
    monkeypatch.setattr(benchmark, "ROUNDS", 3)


@pytest.mark.usefixtures("brief")
def test_the_loop_benchmark_compares_two_ways_of_the_same_steps(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark", "loop", "json=true", "model=nano"])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["steps"], result["rounds"]) == (3, 3)
    assert result["ratio_lowest"] <= result["ratio"] <= result["ratio_highest"]
    assert result["lightning_seconds"] > 0


@pytest.mark.parametrize("words", [[], ["lop"], ["loop", "loop"]])
def test_another_word_is_refused(monkeypatch, words):
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    with pytest.raises(ConfigError, match=r"benchmark: .* is not one; choose loop"):
        benchmark.main()
