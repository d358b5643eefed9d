"""A training step on a device: the host runs ahead of it, and waits once."""

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2lab import fit
from gpt2lab.batch import IGNORE, Batch, mask_prefix
from gpt2lab.callbacks import Stop
from gpt2lab.config import GPT2Config
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.model import GPT2
from gpt2lab.optim import clip_gradients

WAITS = ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy", "nonzero")


@pytest.mark.parametrize("prefix", [0, 5], ids=["all count", "a prefix does not"])
@pytest.mark.parametrize("vocab_size", [11, 50257], ids=["dense", "in chunks"])
def test_no_operation_of_a_micro_batch_depends_on_what_a_tensor_holds(prefix, vocab_size):
    """A fake tensor holds nothing, so that whatever would wait for its content raises."""
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, block_size=128, vocab_size=vocab_size)
    ids = torch.zeros(2, 128, dtype=torch.int64)
    batch = Batch(ids, mask_prefix(ids, torch.full((2,), prefix)))
    with_counted = batch.with_counted()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        model = GPT2(config)

        def backward(batch: Batch) -> None:
            there = Batch(*(t if t is None else fake.from_tensor(t) for t in batch))
            model.loss(there, torch.full((), 9)).backward()

        backward(with_counted)
        with pytest.raises(DynamicOutputShapeException):
            backward(batch)


def test_the_host_waits_for_the_device_once_a_step(monkeypatch, tmp_path):
    waits: list[list[str]] = []
    is_within_a_step = False

    def counting(name):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *args, **kwargs):
            if is_within_a_step:
                waits[-1].append(name)
            return original(tensor, *args, **kwargs)

        return counted

    step, ended = GPT2LightningModule.training_step, Stop.on_train_batch_end

    def begins(*args):
        nonlocal is_within_a_step
        waits.append([])
        is_within_a_step = True
        step(*args)

    def ends(*args):
        nonlocal is_within_a_step
        ended(*args)
        is_within_a_step = False

    for name in WAITS:
        monkeypatch.setattr(torch.Tensor, name, counting(name))
    monkeypatch.setattr(GPT2LightningModule, "training_step", begins)
    monkeypatch.setattr(Stop, "on_train_batch_end", ends)
    fit(
        [
            "model=nano",
            "data=sort",
            "trainer=cpu",
            "batch_size=8",
            "micro_batch_size=4",
            "max_steps=3",
            "schedule.warmup_steps=1",
            "optim.grad_clip=0.01",
            "stop_at=null",
            f"runs_dir={tmp_path}",
        ]
    )
    assert waits == [["tolist"]] * 3


class Copies(TorchDispatchMode):
    """What is copied from one device to another."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten._to_copy.default and result.device != args[0].device:
            self.made.append(tuple(result.shape))
        return result


def test_clipping_copies_no_number_to_the_device():
    """From memory that is not pinned, for which the host would wait."""
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    parameter.grad = torch.zeros_like(parameter)
    with Copies() as copies:
        clip_gradients([parameter], 5.0, 1.0)
        assert copies.made == []
        torch.zeros(3).to("meta")
        assert copies.made == [(3,)]


def test_what_counts_in_pinned_targets_is_pinned_too(monkeypatch):
    pinned = []
    batch = Batch(torch.zeros(1, 3), torch.tensor([[IGNORE, 1, 2]]))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t.tolist()) or t)
    batch.with_counted()
    assert pinned == []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _: True)
    batch.with_counted()
    assert pinned == [[1, 2]]
