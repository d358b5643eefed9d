"""Disks that are full or read-only, paths in the way, logs that cannot be written."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.faults.lab import SORT, Lab, refused, row
from tests.faults.places import DATA, STEP
from tests.faults.same import assert_same_end, assert_whole, content, last_checkpoint
from tests.faults.server import Finished
from tests.faults.tracer import Tracer, held, release

FAST = [*SORT, "callbacks.samples=null"]


def mount(lab: Lab, *arguments: str) -> None:
    """In the children's own view of the file system, which ends with them."""
    inside = ["nsenter", "-m", "-t", str(lab.server.process.pid)]
    done = subprocess.run([*inside, "mount", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def failed(done: Finished, *words: str) -> None:
    """A fault at run time as it must be met: exit code 1 and one line."""
    assert done.code == 1, f"exit code {done.code}: {done.err[-1000:]}"
    assert done.last_line.startswith("error: "), f"last line {done.last_line!r}"
    assert "Traceback" not in done.err, done.err
    for word in words:
        assert word in done.last_line, f"{word!r} is not in {done.last_line!r}"


@row("disk full", "mounts")
def full(lab: Lab) -> None:
    """The path and the bytes are told, old checkpoints are whole, and room is all it takes."""
    straight = lab.straight(FAST)
    one = last_checkpoint(straight).stat().st_size
    for checkpoints in (0.5, 1.5, 2.5):
        with lab.case(f"room for {checkpoints} checkpoints"):
            cwd = lab.fresh()
            (cwd / "runs").mkdir()
            size = 64 * 1024 + int(checkpoints * one)
            mount(lab, "-t", "tmpfs", "-o", f"size={size}", "none", str(cwd / "runs"))
            runs = lab.server.seen_from_outside(cwd / "runs")
            done = lab.train(cwd, *FAST, "name=a")
            failed(done, "step-", "bytes", "No space left")
            left = sorted(p.name for p in (runs / "a" / "checkpoints").iterdir())
            assert not [name for name in left if "tmp" in name], f"left behind: {left}"
            for path in (runs / "a" / "checkpoints").glob("step-*.ckpt"):
                content(path)
            whole = [name for name in left if name.startswith("step-")]
            assert len(whole) >= int(checkpoints) - 1, left
            mount(lab, "-o", f"remount,size={20 * one}", str(cwd / "runs"))
            done = lab.train(cwd, *FAST, "name=a", "resume=auto")
            assert done.code == 0, done.err
            assert_same_end(runs / "a", straight)
            assert_whole(runs / "a")
    with lab.case("no room for the run folder"):
        cwd = lab.fresh()
        (cwd / "runs").mkdir()
        mount(lab, "-t", "tmpfs", "-o", "size=4k", "none", str(cwd / "runs"))
        done = lab.train(cwd, *FAST, "name=a")
        assert done.code in (1, 2), f"exit code {done.code}"
        assert done.last_line.startswith("error: "), done.err
        assert "runs" in done.last_line, done.last_line
        assert "Traceback" not in done.err, done.err
        mount(lab, "-o", f"remount,size={20 * one}", str(cwd / "runs"))
        done = lab.train(cwd, *FAST, "name=a", "resume=auto")
        assert done.code == 0, done.err


@row("read-only folder", "mounts")
def read_only(lab: Lab) -> None:
    straight = lab.straight(FAST)
    with lab.case("from the start"):
        cwd = lab.fresh()
        (cwd / "runs").mkdir()
        mount(lab, "--bind", str(cwd / "runs"), str(cwd / "runs"))
        mount(lab, "-o", "remount,ro,bind", str(cwd / "runs"))
        refused(lab.train(cwd, *FAST, "name=a"), "runs")
        assert not list((cwd / "runs").iterdir())
    with lab.case("a run to go on with"):
        cwd = lab.copy_of(straight)
        mount(lab, "--bind", str(cwd / "runs"), str(cwd / "runs"))
        mount(lab, "-o", "remount,ro,bind", str(cwd / "runs"))
        refused(lab.train(cwd, "name=a", "resume=last", "max_steps=26"), "runs")
    with lab.case("while training"):
        cwd = lab.fresh()
        hook = ("wait_in", {"path": STEP, "number": 8, "folder": str(cwd)})
        process = lab.begin(cwd, *FAST, "name=a", hooks=[hook])
        process.until(cwd / "waits")
        checkpoints = cwd / "runs" / "a" / "checkpoints"
        before = {p.name: p.read_bytes() for p in checkpoints.glob("step-*.ckpt")}
        mount(lab, "--bind", str(checkpoints), str(checkpoints))
        mount(lab, "-o", "remount,ro,bind", str(checkpoints))
        (cwd / "go").touch()
        failed(process.wait(), "step-", "Read-only")
        assert {p.name: p.read_bytes() for p in checkpoints.glob("step-*.ckpt")} == before
        mount(lab, "-o", "remount,rw,bind", str(checkpoints))
        done = lab.train(cwd, "name=a", "resume=last", "trainer.log_every_n_steps=1")
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "a", straight)


@row("path is a file")
def in_the_way(lab: Lab) -> None:
    with lab.case("runs_dir"):
        cwd = lab.fresh()
        (cwd / "runs").write_text("mine")
        refused(lab.train(cwd, *FAST, "name=a"), "runs_dir")
        assert (cwd / "runs").read_text() == "mine"
    with lab.case("a folder above runs_dir"):
        cwd = lab.fresh()
        (cwd / "file").write_text("mine")
        refused(lab.train(cwd, *FAST, "name=a", "runs_dir=file/runs"), "runs_dir")
    for resume in ((), ("resume=auto",), ("resume=last",)):
        with lab.case(f"the run folder {resume}"):
            cwd = lab.fresh()
            (cwd / "runs").mkdir()
            (cwd / "runs" / "a").write_text("mine")
            refused(lab.train(cwd, *FAST, "name=a", *resume), "a")
            assert (cwd / "runs" / "a").read_text() == "mine"
    with lab.case("the checkpoints' folder"):
        cwd = lab.copy_of(lab.straight(FAST))
        folder = cwd / "runs" / "a" / "checkpoints"
        shutil.rmtree(folder)
        folder.write_text("mine")
        refused(lab.train(cwd, *FAST, "name=a", "resume=last"), "checkpoint")
        assert folder.read_text() == "mine"
    with lab.case("a dangling link as runs_dir"):
        cwd = lab.fresh()
        (cwd / "runs").symlink_to(cwd / "nowhere")
        done = lab.train(cwd, *FAST, "name=a")
        assert done.code in (0, 2), f"exit code {done.code}: {done.err}"
        assert "Traceback" not in done.err, done.err
    with lab.case("a folder, as of ranks that were killed, where the next checkpoint will be"):
        cwd = lab.fresh()
        hook = ("wait_in", {"path": STEP, "number": 8, "folder": str(cwd)})
        process = lab.begin(cwd, *FAST, "name=a", hooks=[hook])
        process.until(cwd / "waits")
        folder = cwd / "runs" / "a" / "checkpoints"
        (folder / "step-000008.ckpt").mkdir()
        (cwd / "go").touch()
        done = process.wait()
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "a", lab.straight(FAST))


LOGS = ("metrics.csv", "train.log", "samples.md", "curves.png")


@row("disk full for logs only", "strace")
def logs(lab: Lab) -> None:
    """Training goes on with a warning and the same weights, bit for bit."""
    settings = [*SORT, "callbacks.curves={_target_: gpt2lab.callbacks.Curves}"]
    straight = lab.straight(SORT)
    for names in (*((name,) for name in LOGS), LOGS):
        for error in ("ENOSPC", "EIO"):
            with lab.case(f"{error} for {', '.join(names)}"):
                cwd = lab.fresh()
                run = cwd / "runs" / "a"
                hold = {"path": DATA, "number": 1}
                hook = ("hold_in", {**hold, "folder": str(cwd)})
                process = lab.begin(cwd, *settings, "name=a", hooks=[hook])
                options = ["-f", "-e", f"inject=write:error={error}"]
                for name in names:
                    options += ["-P", str(run / name), "-P", str(run / f".{name}.tmp")]
                tracer = Tracer(held(process), cwd / "trace", *options)
                release(process)
                done = process.wait()
                tracer.process.wait(10)
                assert tracer.log.read_text().count("INJECTED") > 0, "nothing was injected"
                assert done.code == 0, f"exit code {done.code}: {done.err}"
                assert "Traceback" not in done.err, done.err
                # without records there is nothing to draw
                for name in set(names) - ({"curves.png"} if "metrics.csv" in names else set()):
                    told = [line for line in done.err.splitlines() if f"{name}: " in line]
                    assert len(told) == 1, f"not one warning for {name}: {done.err}"
                assert_same_end(run, straight, records=False)


@row("stdout and stderr full or closed")
def output(lab: Lab) -> None:
    """What cannot be said costs no step: the weights are those of the straight run."""
    straight = lab.straight(SORT)
    with lab.case("/dev/full"):
        cwd = lab.fresh()
        done = lab.train(cwd, *SORT, "name=a", out="/dev/full")
        assert done.code in (0, 1), f"exit code {done.code}"
        assert_same_end(cwd / "runs" / "a", straight)
        assert (cwd / "runs" / "a" / "summary.json").exists()
    with lab.case("a reader that has left"):
        cwd = lab.fresh()
        read, write = os.pipe()
        os.close(read)
        done = lab.train(cwd, *SORT, "name=a", out=f"/proc/{os.getpid()}/fd/{write}")
        os.close(write)
        assert done.code in (0, 1), f"exit code {done.code}"
        assert_same_end(cwd / "runs" / "a", straight)


@row("wandb absent, without key")
def wandb(lab: Lab) -> None:
    """One warning, and the same weights."""
    straight = lab.straight(SORT)
    online = {"WANDB_MODE": None, "WANDB_API_KEY": None, "HOME": "/nonexistent"}
    for what, how in {
        "absent": {"hooks": [("absent", {"module": "wandb"})]},
        "without a key": {"environment": online},
    }.items():
        with lab.case(what):
            cwd = lab.fresh()
            done = lab.train(cwd, *SORT, "logger=wandb", "name=a", **how)
            assert_goes_on(done, cwd / "runs" / "a", straight)
    with lab.case("tensorboard absent"):
        cwd = lab.fresh()
        hide = [("absent", {"module": name}) for name in ("tensorboard", "tensorboardX")]
        done = lab.train(cwd, *SORT, "logger=tensorboard", "name=a", hooks=hide)
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "a", straight)


@row("wandb without network", "network namespaces")
def no_network(lab: Lab) -> None:
    straight = lab.straight(SORT)
    with lab.case("no network"):
        cwd = lab.fresh()
        keyed = {"WANDB_MODE": None, "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "5"}
        done = lab.train(
            cwd, *SORT, "logger=wandb", "name=a", hooks=[("no_network", {})], environment=keyed
        )
        assert_goes_on(done, cwd / "runs" / "a", straight)
    with lab.case("a run without loggers needs none"):
        cwd = lab.fresh()
        done = lab.train(cwd, *SORT, "name=a", hooks=[("no_network", {})])
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "a", straight)


def assert_goes_on(done: Finished, run: Path, straight: Path) -> None:
    assert done.code == 0, f"exit code {done.code}: {done.err}"
    warned = [line for line in done.err.splitlines() if "training goes on without it" in line]
    assert len(warned) == 1, f"not one warning: {done.err}"
    assert_same_end(run, straight)
