"""NaN and infinity: nothing that is not finite reaches the weights."""

import json
from pathlib import Path

import torch

from tests.faults.checkpoints import rewritten
from tests.faults.lab import SORT, Lab, row
from tests.faults.places import STEP
from tests.faults.same import assert_same_end, assert_whole, content, last_checkpoint


@row("loss becomes NaN or infinite")
def nonfinite_loss(lab: Lab) -> None:
    """Training ends before the update, names the last good checkpoint, and tells of the batch."""
    for value in ("nan", "inf", "-inf"):
        for step in (0, 8, 23):
            with lab.case(f"{value} in step {step}"):
                cwd, run = lab.fresh(), "runs/a"
                hook = ("nan_loss", {"steps": [step], "value": value})
                done = lab.train(cwd, *SORT, "name=a", hooks=[hook])
                assert done.code == 1, f"exit code {done.code}: {done.err}"
                assert done.last_line.startswith("error: "), done.err
                assert "Traceback" not in done.err, done.err
                assert_whole(cwd / run)
                assert_spike(cwd / run / "spike.json", step)
                if step > 2:
                    good = last_checkpoint(cwd / run)
                    assert good.name in done.last_line, f"{good.name} not in {done.last_line}"
                    for name, tensor in content(good)["state_dict"].items():
                        assert torch.isfinite(tensor).all(), f"{name} of {good.name}"
                resumed = lab.train(cwd, *SORT, "name=a", "resume=auto")
                assert resumed.code == 0, resumed.err
                assert_same_end(cwd / run, lab.straight(SORT), records=False)


def assert_spike(path: Path, step: int) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path.name} holds {constant}, which is not JSON")

    spike = json.loads(path.read_text(), parse_constant=refuse)
    assert spike["step"] in (step, step + 1), spike["step"]
    assert {"loss", "gradient_norm", "layers", "samples"} <= set(spike), list(spike)
    assert len(spike["samples"]) == 8, "not every sample of the batch is told"
    assert all(sample["text"] for sample in spike["samples"])
    assert spike["layers"]


@row("a bad batch is skipped, with a bound")
def skipped(lab: Lab) -> None:
    """So many steps are left out; one more ends the training."""
    with lab.case("two of two allowed"):
        cwd = lab.fresh()
        hook = ("nan_loss", {"steps": [5, 11]})
        done = lab.train(cwd, *SORT, "name=a", "skip_nonfinite=2", hooks=[hook])
        assert done.code == 0, done.err
        state = content(last_checkpoint(cwd / "runs" / "a"))["state_dict"]
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
    with lab.case("a third"):
        cwd = lab.fresh()
        hook = ("nan_loss", {"steps": [5, 11, 17]})
        done = lab.train(cwd, *SORT, "name=b", "skip_nonfinite=2", hooks=[hook])
        assert done.code == 1, f"exit code {done.code}: {done.err}"
        assert (cwd / "runs" / "b" / "spike.json").exists()
    with lab.case("the count goes on after a resume"):
        cwd = lab.fresh()
        nan = ("nan_loss", {"steps": [5, 17]})
        kill = ("signal_in", {"path": STEP, "number": 12, "signals": [9]})
        settings = [*SORT, "name=a", "skip_nonfinite=1"]
        assert lab.train(cwd, *settings, hooks=[nan, kill]).code == -9
        done = lab.train(cwd, *settings, "resume=last", hooks=[nan])
        assert done.code == 1, f"exit code {done.code}: {done.err}"


@row("NaN or Inf in a checkpoint")
def nonfinite_checkpoint(lab: Lab) -> None:
    """Refused with the tensor's name, unless that tensor is allowed by name."""
    straight = lab.straight(SORT)
    for value in ("nan", "inf", "-inf"):
        for where in ("state_dict", "optimizer_states"):
            with lab.case(f"{value} in {where}"):
                cwd = lab.copy_of(straight)
                path = last_checkpoint(cwd / "runs" / "a")
                name = rewritten(path, lambda c, w=where, v=value: spoil(c, w, float(v)))
                more = ["name=a", "resume=last", "max_steps=26"]
                done = lab.train(cwd, *more)
                assert done.code == 2, f"exit code {done.code}: {done.err}"
                assert name.split(".")[-1] in done.last_line, done.err
                assert path.name in done.err, done.err
                found = done.last_line.split("allow_nonfinite=")
                assert len(found) == 2, f"does not say how to allow it: {done.last_line}"
                allowed = lab.train(cwd, *more, f"allow_nonfinite={found[1].split()[0]}")
                # let in, it makes the loss NaN, which is another row's fault
                assert allowed.code in (0, 1), f"exit code {allowed.code}: {allowed.err}"


def spoil(checkpoint: dict, where: str, value: float) -> str:
    """Put a value into one weight; the tensor's name."""
    if where == "state_dict":
        name = next(iter(checkpoint["state_dict"]))
        checkpoint["state_dict"][name].view(-1)[7] = value
        return f"state_dict.{name}"
    state = checkpoint["optimizer_states"][0]["state"]
    index = next(iter(state))
    state[index]["exp_avg"].view(-1)[7] = value
    return f"optimizer_states.0.state.{index}.exp_avg"
