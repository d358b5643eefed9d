"""What begins again after a lost rank; no process is started."""

from pathlib import Path

import pytest

from gpt2lab.errors import LostRankError
from gpt2lab.launch.restarts import with_restarts


@pytest.mark.parametrize(
    ("name", "told"),
    [(None, "step 0, afresh"), ("step-000012.ckpt", "step 12"), ("one.ckpt", "one.ckpt")],
)
def test_a_restart_tells_where_it_begins(tmp_path, name, told):
    begun = []

    def begin(checkpoint, restart):
        begun.append(checkpoint)
        if len(begun) == 1:
            raise LostRankError(1, "SIGKILL")

    origin = name and Path(name)
    (tmp_path / "checkpoints").mkdir()
    with pytest.warns(UserWarning, match=f"restart 1 of 1, from {told}$"):
        with_restarts(begin, tmp_path, origin, max_restarts=1)
    assert begun == [origin, origin]
