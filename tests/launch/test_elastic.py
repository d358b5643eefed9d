"""What the parent of ranks makes of their reports; no process is started."""

import json
import math
import signal
from types import SimpleNamespace

import pytest
import torch

from gpt2lab.errors import LostRankError, RunError
from gpt2lab.launch.elastic import _raise_first_failure
from gpt2lab.launch.rank import _described
from gpt2lab.signals import Signalled


def raise_what_is_made_of(folder, *errors, signalled_at=math.inf):
    """Of one error of each rank, at second 0, 1 and so on."""
    for rank, error in enumerate(errors):
        kind, problems, _ = _described(error, rank)
        facts = {"rank": rank, "pid": rank, "time": rank}
        report = facts | {"kind": kind, "problems": problems}
        (folder / f"rank-{rank}.json").write_text(json.dumps(report))
    ended = {rank: SimpleNamespace(pid=rank, exitcode=1) for rank in range(len(errors))}
    family = SimpleNamespace(members=lambda: ended, killed=set(), signal=None)
    if signalled_at < math.inf:
        family.signal = signal.SIGTERM
    family.signalled_at = signalled_at
    _raise_first_failure(folder, family)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"),
        torch.AcceleratorError("CUDA error: an illegal memory access"),
        torch.distributed.DistBackendError("NCCL error"),
        torch.distributed.DistNetworkError("the peer has gone"),
    ],
)
def test_a_rank_that_loses_its_device_is_lost(tmp_path, error):
    what = " ".join(str(error).split())
    with pytest.raises(LostRankError) as raised:
        raise_what_is_made_of(tmp_path, error, ValueError("in its wake"))
    assert raised.value.what == f"rank 0: ended by {type(error).__name__}: {what}"


def test_a_fault_of_ours_is_no_lost_rank(tmp_path):
    with pytest.raises(RunError, match="rank 0: ValueError: a fault") as raised:
        raise_what_is_made_of(tmp_path, ValueError("a fault"))
    assert not isinstance(raised.value, LostRankError)


def test_a_signal_that_came_first_is_the_cause(tmp_path):
    with pytest.raises(Signalled, match="SIGTERM"):
        raise_what_is_made_of(tmp_path, ValueError("in its wake"), signalled_at=-0.5)


def test_a_signal_that_a_failure_brought_about_is_not_the_cause(tmp_path):
    """Elastic ends the other ranks by SIGTERM, which they pass on as they do with any."""
    with pytest.raises(RunError, match="rank 0: ValueError: a fault"):
        raise_what_is_made_of(tmp_path, ValueError("a fault"), signalled_at=0.5)
