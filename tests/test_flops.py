"""A formula for a step's operations, beside torch's counter on tensors without memory."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gpt2lab.config import GPT2Config
from gpt2lab.flops import sequence_flops, step_flops
from gpt2lab.model import GPT2

SHAPE = GPT2Config(n_layer=3, n_head=2, n_embd=16, block_size=24, vocab_size=11, dropout=0.0)


def counted(model: GPT2, T: int) -> int:
    """What torch counts of one sequence; it sees attention only where that is plain products."""
    ids = torch.zeros(1, T, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    return counter.get_total_flops()


def on_meta(config: GPT2Config) -> GPT2:
    with torch.device("meta"):
        return GPT2(config)


@pytest.mark.parametrize("T", [24, 10])
@pytest.mark.parametrize("vocab_size", [11, 5000])
def test_the_formula_is_the_counter_and_six_for_each_number_that_only_adds(vocab_size, T):
    model = on_meta(replace(SHAPE, vocab_size=vocab_size))
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert counted(model, T) == sequence_flops(model, T) - 6 * vectors * T


def test_what_checkpointing_computes_anew_is_not_counted():
    plain, again = on_meta(SHAPE), on_meta(replace(SHAPE, activation_checkpointing=True))
    assert sequence_flops(plain, 24) == sequence_flops(again, 24)
    assert counted(again, 24) > 1.2 * counted(plain, 24)


def test_gpt2_small_takes_0_88_teraflop_for_1024_tokens():
    model = on_meta(
        replace(SHAPE, n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50257)
    )
    expected = 6 * (124_439_808 - 1024 * 768) * 1024 + 12 * 12 * 768 * 1024**2
    assert sequence_flops(model, 1024) == expected
    assert expected == pytest.approx(0.876e12, rel=1e-3)
    assert counted(model, 1024) == pytest.approx(expected, rel=1e-3)


def test_a_step_is_all_its_sequences():
    model = on_meta(SHAPE)
    assert step_flops(model, tokens=4 * 10, sequences=4) == 4 * sequence_flops(model, 10)
