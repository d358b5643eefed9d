import json
from pathlib import Path

import pytest
import torch

from gpt2lab.batch import Batch
from gpt2lab.benchmark import __main__ as benchmark
from gpt2lab.benchmark import data, generate, loop, loss, plan, prepare, startup, train
from gpt2lab.errors import ConfigError


def test_the_loop_benchmark_compares_two_ways_of_the_same_steps(monkeypatch, capsys):
    monkeypatch.setattr(loop, "BLOCK_STEPS", 2)
    monkeypatch.setattr(loop, "BLOCKS", 4)
    monkeypatch.setattr("sys.argv", ["benchmark", "loop", "json=true", "model=nano"])
    compiled = []
    monkeypatch.setattr(loop, "compile_blocks", lambda model, *asked: compiled.append(asked))
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["blocks"] == 4
    assert result["ratio_lower_quartile"] <= result["ratio"] <= result["ratio_upper_quartile"]
    assert result["lightning_ms_a_step"] > 0
    assert compiled == [(None, torch.device("cpu"))]


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


def test_the_plan_benchmark_sets_plans_beside_trainings(monkeypatch, capsys):
    monkeypatch.setattr(plan, "TOKENS", 2**12)
    monkeypatch.setattr(plan, "ROUNDS", 1)
    tiny = ["model=nano", "data=text", "model.block_size=16", "batch_size=2", "trainer=cpu"]
    monkeypatch.setattr(plan, "SIZES", {"tiny": (tiny, 2)})
    monkeypatch.setattr(plan, "get_context", lambda _: SameProcess)
    monkeypatch.setattr("sys.argv", ["benchmark", "plan", "json=true"])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = result["tiny_planned_ms_a_step"] / result["tiny_ms_a_step"]
    assert result["tiny_time_ratio"] == pytest.approx(expected)
    assert result["tiny_memory_ratio"] == result["tiny_planned_mib"] / result["tiny_peak_mib"]


def test_a_moment_in_which_the_machine_is_slow_does_not_decide_about_a_plan(monkeypatch):
    monkeypatch.setattr(plan, "SIZES", {"tiny": (["data=sort"], 2)})
    seconds = {plan.planned: iter([1.0, 1.0, 1.2]), plan.trained: iter([1.0, 4.0, 1.0])}
    monkeypatch.setattr(plan, "in_process", lambda which, *_: (2**20, next(seconds[which])))
    result = plan.measure([])
    assert result["tiny_time_ratio"] == 1.0  # of 1, 0.25 and 1.2
    assert result["tiny_planned_ms_a_step"] == result["tiny_ms_a_step"] == 1000
    assert result["tiny_memory_ratio"] == 1


@pytest.mark.parametrize("name", ["loss", "data", "plan", "prepare", "startup"])
def test_a_benchmark_of_fixed_size_takes_no_settings(monkeypatch, name):
    monkeypatch.setattr("sys.argv", ["benchmark", name, "model=nano"])
    with pytest.raises(ConfigError, match="model=nano is a setting"):
        benchmark.main()


@pytest.mark.parametrize("words", [[], ["lop"], ["loop", "loop"]])
def test_another_word_is_refused(monkeypatch, words):
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    with pytest.raises(ConfigError, match=r"benchmark: .* is not one; choose train"):
        benchmark.main()


def test_the_generate_benchmark_stands_beside_transformers(monkeypatch, capsys):
    sizes = {"PROMPT": 6, "NEW": 4, "BATCHES": (1, 2), "ROUNDS": 1, "CHECKED_TOKENS": 64}
    for name, value in {**sizes, "BANDWIDTH_BYTES": 2**16}.items():
        monkeypatch.setattr(generate, name, value)
    monkeypatch.setattr(generate, "bytes_beyond_weights", lambda *_: None)
    monkeypatch.setattr(generate, "get_context", lambda _: SameProcess)
    words = ["model=nano", "model.block_size=16", "json=true"]
    monkeypatch.setattr("sys.argv", ["benchmark", "generate", *words])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    best = max(
        result["transformers_fp32_batch_2_tokens_per_second"],
        result["transformers_bf16_batch_2_tokens_per_second"],
    )
    for way in ("bf16", "int8"):
        rate = result[f"{way}_batch_2_tokens_per_second"]
        assert result[f"{way}_batch_2_over_transformers"] == pytest.approx(rate / best)
        assert result[f"{way}_loss"] == pytest.approx(result["fp32_loss"], abs=0.01)
        assert 0.8 < result[f"{way}_agrees"] <= 1


class SameProcess:
    """A pool of one process, which is this one."""

    Pool = staticmethod(lambda _: SameProcess())
    apply = staticmethod(lambda function, arguments: function(*arguments))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_transformers_gets_the_weights_that_are_compared(tiny_model):
    (_, rival), _ = generate.transformers_models(tiny_model)
    ids = torch.tensor([[3, 1, 4]])
    assert torch.allclose(rival(ids).logits, tiny_model(ids), atol=1e-5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="not a Linux")
def test_memory_beyond_the_weights_is_that_of_the_second_embedding_and_little_more(monkeypatch):
    monkeypatch.setattr(generate, "PROMPT", 6)
    monkeypatch.setattr(generate, "NEW", 4)
    found = generate.bytes_beyond_weights(["model=nano", "model.block_size=16"], "bf16")
    assert 50_000 * 48 * 2 < found < 200e6


def test_the_train_benchmark_stands_beside_two_plain_loops(monkeypatch, capsys):
    monkeypatch.setattr(train, "STEPS", 3)
    monkeypatch.setattr(train, "ENOUGH_FLOPS", 0)
    monkeypatch.setattr(train, "TOKENS", 2**12)
    monkeypatch.setattr(train, "get_context", lambda _: SameProcess)
    monkeypatch.setattr("gpt2lab.peak.LARGEST", 64)
    words = ["model=nano", "model.block_size=16", "batch_size=2", "json=true"]
    monkeypatch.setattr("sys.argv", ["benchmark", "train", *words])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["steps"] == 3
    for way in ("ours", "by_hand", "transformers"):
        rate = result[f"{way}_tokens_per_second"]
        assert rate == pytest.approx(32 / result[f"{way}_ms_a_step"] * 1e3)
        share = result["flops_a_step"] * rate / 32 / result["peak_flops_per_second"]
        assert result[f"{way}_share_of_peak"] == pytest.approx(share)
        assert result[f"{way}_peak_mib"] > 100
    assert result["speed_over_by_hand_lower_quartile"] <= result["speed_over_by_hand"]


@pytest.mark.parametrize("word", ["data=sort", "data.path=x", "experiment=dates"])
def test_the_train_benchmark_has_data_of_its_own(monkeypatch, word):
    monkeypatch.setattr("sys.argv", ["benchmark", "train", word])
    with pytest.raises(ConfigError, match=f"{word} chooses data; leave it out"):
        benchmark.main()


def test_the_plain_loops_see_the_same_loss_and_gradients_as_ours(tiny_model):
    batch = Batch(torch.randint(11, (4, 12)), torch.randint(11, (4, 12)))
    (_, rival), _ = generate.transformers_models(tiny_model)
    expected = tiny_model.loss(batch)
    expected.backward()
    gradient = tiny_model.transformer.wte.weight.grad.clone()
    tiny_model.zero_grad()
    for module, model in ((tiny_model, tiny_model), (rival, lambda ids: rival(ids).logits)):
        assert train.usual_loss(model, batch, rows=3) == pytest.approx(expected.item(), rel=1e-5)
        assert torch.allclose(module.transformer.wte.weight.grad, gradient, atol=1e-6)


def test_the_startup_benchmark_runs_to_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr(startup, "PROCESSES", 1)
    monkeypatch.setattr("sys.argv", ["benchmark", "startup", "json=true"])
    assert benchmark.main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < result["help_seconds"] < result["first_step_seconds"]
