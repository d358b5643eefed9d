"""Time by hand-worked numbers, and parts that were timed put together."""

from dataclasses import replace

import pytest
import torch

from gpt2lab.config import AdamWConfig, MuonConfig, Precision
from gpt2lab.planning import timing
from gpt2lab.planning.seconds import (
    HOST,
    LINK_SHARE,
    Known,
    exchange,
    muon_flops,
    seconds_of,
)
from gpt2lab.planning.timing import Timed, timed
from tests.planning.works import work

TINY = ("model.n_layer=3", "model.n_head=2", "model.n_embd=16", "model.block_size=8")
SMALL = ("model=small", "batch_size=8", "micro_batch_size=2")


def test_by_a_data_sheet_products_are_operations_over_their_rate():
    shape = work(*SMALL)
    seconds = seconds_of(shape, Known(1e15, 1e12), 1.0)
    assert seconds.products == pytest.approx(8 * shape.flops_per_sequence / 1e15)
    assert seconds.update == pytest.approx(8 * 4 * (124_439_808 + 47 * 768) / 1e12)
    assert (seconds.exchange, seconds.host) == (0, HOST)
    assert seconds.step == pytest.approx(seconds.products + seconds.update + HOST)


def test_recomputing_takes_a_third_of_the_blocks_time_more():
    plain, again = work(*SMALL), work(*SMALL, "model.activation_checkpointing=true")
    head = 6 * 768 * 50257 * 1024
    more = 2 * (plain.flops_per_sequence - head) / 3
    rates = Known(1.0, 1.0)
    assert rates.products(again) - rates.products(plain) == pytest.approx(more, rel=1e-9)
    assert 1.2 < rates.products(again) / rates.products(plain) < 1.33


def test_ddp_waits_for_what_the_last_backward_pass_does_not_hide():
    shape = work(*SMALL, "devices=4")
    sent = 2 * 3 / 4 * 4 * shape.parameters.all  # a ring of four, fp32
    assert exchange(shape, 0.0, 1e9) == pytest.approx(sent / 1e9)
    products = 0.3 * shape.micro_batches
    assert exchange(shape, products, 1e9) == pytest.approx(sent / 1e9 - 0.3 * 2 / 3)
    assert exchange(shape, 100.0, 1e9) == 0


def test_fsdp_gathers_weights_for_every_micro_batch_and_sums_gradients_once():
    words = ("model=small", "batch_size=16", "devices=4", "strategy=fsdp")
    keeps = "strategy.reshard_after_forward=false"
    numbers = work(*words).parameters
    matrices = 12 * 12 * 768**2  # in bf16; norms, biases and embeddings in fp32
    once = 3 / 4 * (2 * matrices + 4 * (numbers.all - matrices)) / 1e9
    gradients = 3 / 4 * 4 * numbers.all / 1e9
    for more, passes in (
        ([], 2),  # forward and backward
        ([keeps], 1),
        (["micro_batch_size=2"], 2 * 2),
        (["micro_batch_size=2", keeps], 2),
    ):
        shape = work(*words, *more)
        assert exchange(shape, 0.0, 1e9) == pytest.approx(passes * once + gradients)
        assert exchange(shape, 1e9, 1e9) == 0


def test_muon_orthogonalises_whole_matrices_on_every_device():
    words = ("model=small", "batch_size=16", "optim=muon")
    assert muon_flops(768) == 280 * 768**3
    by_muon = 12 * 280 * 768**3 / 1e15
    alone, shared = work(*words), work(*words, "devices=4", "strategy=fsdp")
    for shape, shards in ((alone, 1), (shared, 4)):
        by_adam = replace(shape, uses_muon=False)
        rates = Known(1e15, 1e12)
        assert rates.update(shape) - rates.update(by_adam) == pytest.approx(by_muon)
        assert rates.update(by_adam) == pytest.approx(32 * shape.parameters.all / shards / 1e12)
    # It waits for each matrix that is gathered, however long products take.
    assert exchange(shared, 1e9, 1e9) == pytest.approx(3 / 4 * 4 * 12 * 12 * 768**2 / 1e9)
    parts = Timed(block=0.0, rest=0.0, matrices=7.0, number=0.0, sharing=1)
    assert parts.update(shared) == parts.update(alone) == 12 * 7.0


def test_only_a_share_of_a_link_is_counted_on():
    shape = work(*SMALL, "devices=2")
    found = seconds_of(shape, Known(1e30, 1e30), 1e9)
    assert found.exchange == pytest.approx(exchange(shape, 0.0, LINK_SHARE * 1e9))


def test_timed_parts_are_so_many_blocks_and_one_rest():
    shape = work(*TINY, "batch_size=6")
    numbers = shape.parameters
    parts = Timed(block=2.0, rest=5.0, matrices=0.0, number=0.5, sharing=1)
    assert parts.products(shape) == 6 * (3 * 2.0 + 5.0)
    assert parts.update(shape) == 0.5 * numbers.all
    muon = replace(shape, uses_muon=True)
    by_adam = numbers.all - 3 * numbers.block_matrices
    assert replace(parts, matrices=7.0).update(muon) == 3 * 7.0 + 0.5 * by_adam
    assert replace(parts, sharing=2).products(shape) == 2 * parts.products(shape)


@pytest.mark.parametrize("optim", [AdamWConfig(), MuonConfig()])
@pytest.mark.parametrize("more", [[], ["model.activation_checkpointing=true"]])
def test_timing_leaves_random_numbers_as_they_were(monkeypatch, optim, more):
    monkeypatch.setattr(timing, "AT_MOST_TIMES", 1)
    state = torch.get_rng_state()
    shape = work(*TINY, "batch_size=2", "model.vocab_size=11", *more, on_gpu=False)
    masked = replace(shape, is_masked=True, counted=0.5)
    found = timed(masked, optim, torch.device("cpu"), Precision.fp32)
    assert min(found.block, found.rest, found.number) > 0
    assert (found.matrices > 0) == isinstance(optim, MuonConfig)
    assert torch.equal(state, torch.get_rng_state())


def test_of_many_rows_only_some_are_timed(monkeypatch):
    monkeypatch.setattr(timing, "CPU_TOKENS", 16)
    monkeypatch.setattr(timing, "AT_MOST_TIMES", 1)
    seen = []
    original = timing.batch_of
    monkeypatch.setattr(
        timing, "batch_of", lambda w, rows, d: seen.append(rows) or original(w, rows, d)
    )
    shape = work(*TINY, "batch_size=8", "model.vocab_size=11", on_gpu=False)
    timed(shape, AdamWConfig(), torch.device("cpu"), Precision.fp32)
    assert seen == [2]


def test_what_is_timed_is_computed_as_in_training(monkeypatch):
    asked = []
    monkeypatch.setattr(timing, "AT_MOST_TIMES", 1)
    monkeypatch.setattr(timing, "choose_products", asked.append)
    monkeypatch.setattr(
        timing, "compile_blocks", lambda model, wanted, *_, **more: asked.append((wanted, more))
    )
    shape = work(*TINY, "batch_size=8", "devices=2", "strategy=fsdp", "model.vocab_size=11")
    timed(shape, AdamWConfig(), torch.device("cpu"), Precision.tf32, None)
    assert asked == [Precision.tf32, (None, {"is_sharded": True})]


def test_the_targets_that_count_are_as_many_as_planned():
    shape = work(*TINY, "batch_size=2", counted=0.5)
    batch = timing.batch_of(shape, 2, torch.device("cpu"))
    assert batch.num_counted() == 8


def test_a_copy_tells_the_rate_of_the_memory():
    assert timing.memory_rate(torch.device("cpu")) > 1e8
