"""What a step is computed with: chosen before it, and said."""

import json

import pytest
import torch

from gpt2lab import fit
from gpt2lab.backends import attention_kernel, choose_products, compile_blocks, eager
from gpt2lab.batch import Batch
from gpt2lab.config import GPT2Config, Precision
from gpt2lab.errors import ConfigError
from gpt2lab.model import GPT2
from gpt2lab.precision import chosen_precision

CPU = torch.device("cpu")


def tiny(**changed) -> GPT2:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, "vocab_size": 11}
    return GPT2(GPT2Config(**{**shape, "dropout": 0.0, **changed}))


def batch(rows: int = 2) -> Batch:
    ids = torch.arange(rows * 8).view(rows, 8) % 11
    return Batch(ids, ids.roll(-1, 1))


def test_the_kernel_of_attention_is_the_one_that_torch_takes():
    assert attention_kernel(tiny(), batch()) == "flash"
    assert attention_kernel(tiny(dropout=0.1), batch()) == "math"  # on a CPU flash has no dropout
    documents = batch()._replace(documents=torch.zeros(2, 8, dtype=torch.int64))
    assert attention_kernel(tiny(), documents) == "flash"


@pytest.fixture
def graphs():
    """Compiled code is forgotten afterwards."""
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_compute_the_same_under_the_same_names(graphs, checkpointing):
    plain, compiled = (tiny(activation_checkpointing=checkpointing) for _ in range(2))
    assert compile_blocks(compiled, True, CPU, backend="aot_eager") == "each block"
    for rows in (2, 3):
        for model in (plain, compiled):
            model.zero_grad()
            model.loss(batch(rows)).backward()
        for (name, a), (other, b) in zip(
            plain.named_parameters(), compiled.named_parameters(), strict=True
        ):
            assert name == other
            torch.testing.assert_close(a.grad, b.grad)
    with torch.no_grad(), plain.evaluating(), compiled.evaluating():
        torch.testing.assert_close(plain(batch().inputs), compiled(batch().inputs))
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_one_graph_serves_all_blocks(graphs):
    model = tiny(n_layer=6)
    compile_blocks(model, True, CPU, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    model.loss(batch()).backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_no_graph_ends_at_the_hooks_of_a_block_that_is_shared_out(graphs):
    model = tiny()
    compiled = compile_blocks(model, True, CPU, backend="aot_eager", is_sharded=True)
    assert compiled == "attention and MLP of each block"
    gathered = []
    for block in model.transformer.h:
        for unit in (block, block.ln_1, block.ln_2):
            hook = torch._dynamo.disable(lambda *_: gathered.append(1))
            unit.register_forward_pre_hook(hook)
    torch._dynamo.utils.counters.clear()
    model.loss(batch()).backward()
    assert len(gathered) == 6
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert eager(model).__class__.__name__ != "nullcontext"


def test_the_buckets_of_ddp_cut_no_block(graphs):
    compile_blocks(tiny(), True, CPU, backend="aot_eager")
    assert torch._dynamo.utils.get_optimize_ddp_mode() == "no_optimization"


def test_what_grows_with_each_call_is_left_to_run_eagerly(graphs):
    model = tiny()
    compile_blocks(model, True, CPU, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    with torch.no_grad(), eager(model):
        for length in range(1, 8):
            model(batch().inputs[:, :length])
    assert not torch._dynamo.utils.counters["stats"]


def test_nothing_is_compiled_on_a_cpu_unless_it_is_asked_for():
    model = tiny()
    assert compile_blocks(model, None, CPU) == compile_blocks(model, False, CPU) == "eager"
    assert eager(model).__class__.__name__ == "nullcontext"


def test_without_a_compiler_one_warning_says_so(graphs):
    with pytest.warns(UserWarning, match=r"compile: does not work here .*; going on without it"):
        said = compile_blocks(tiny(), True, CPU, backend="no_such_compiler")
    assert said.startswith("eager: does not work here")


def test_tf32_only_where_it_is_asked_for():
    try:
        choose_products(Precision.tf32)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        choose_products(Precision.bf16)
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ConfigError, match="precision: tf32 needs an NVIDIA GPU since Ampere"):
        chosen_precision(Precision.tf32, "cpu")


def test_a_run_says_what_it_computes_with(tmp_path):
    run = fit(
        [
            *("model=nano", "data=sort", "trainer=cpu", "batch_size=8", "micro_batch_size=4"),
            *("max_steps=1", "schedule.warmup_steps=1", "model.dropout=0", f"runs_dir={tmp_path}"),
        ]
    )
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["backends"] == {"compile": "eager", "attention": "flash"}
    assert summary["micro_batch_size"] == 4
    assert (
        "computes with compile: eager, attention: flash; 4 sequences at once"
        in (run.folder / "train.log").read_text()
    )


def test_auto_is_bf16_where_it_gains(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert chosen_precision(Precision.auto, "cpu") is Precision.bf16
    assert chosen_precision(Precision.auto, "cpu", 256) is Precision.bf16
    assert chosen_precision(Precision.auto, "cpu", 128) is Precision.fp32
    assert chosen_precision(Precision.bf16, "cpu", 128) is Precision.bf16
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert chosen_precision(Precision.auto, "cpu", 256) is Precision.fp32
