import os

os.environ.setdefault("WANDB_MODE", "disabled")  # nothing here reaches a network

import pytest
import torch

from gpt2lab.config import GPT2Config
from gpt2lab.model import GPT2


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def tiny_config() -> GPT2Config:
    return GPT2Config(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=11, dropout=0.0)


@pytest.fixture
def tiny_model(tiny_config) -> GPT2:
    return GPT2(tiny_config).eval()


@pytest.fixture(scope="module")
def browser():
    from tests.browser import launched  # here: playwright need not be installed for other tests

    with launched() as chromium:
        yield chromium
