"""A model of shapes alone."""

import subprocess
import sys

import torch

from gpt2lab.config import GPT2Config
from gpt2lab.meta import meta_model
from gpt2lab.model import GPT2

SHAPE = GPT2Config(n_layer=2, n_head=2, n_embd=8, block_size=6, vocab_size=11)


def test_it_has_the_shapes_of_the_model_and_draws_no_random_numbers():
    before = torch.get_rng_state()
    found = meta_model(SHAPE).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    wanted = GPT2(SHAPE).state_dict()
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}
    assert {t.device.type for t in found.values()} == {"meta"}


def test_weights_can_be_assigned_to_it():
    model, copy = GPT2(SHAPE), meta_model(SHAPE)
    copy.load_state_dict(model.state_dict(), assign=True)
    ids = torch.tensor([[3, 1, 4]])
    assert torch.equal(copy.eval()(ids), model.eval()(ids))


def test_torchs_compiler_is_not_imported_for_it():
    program = (
        "import sys; from gpt2lab.config import GPT2Config; from gpt2lab.meta import meta_model; "
        "meta_model(GPT2Config(n_layer=1, n_head=1, n_embd=8, block_size=6, vocab_size=11)); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
