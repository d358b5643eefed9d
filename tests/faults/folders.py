"""One run, one folder: locks that are held, stale, or told of another machine's process."""

import json
import os
import signal

from tests.faults.lab import SORT, Lab, refused, row
from tests.faults.places import STEP
from tests.faults.same import assert_same_end, assert_whole


@row("two runs in one folder")
def two(lab: Lab) -> None:
    """The second refuses with the first one's pid and host, and the first ends as it would have."""
    straight = lab.straight(SORT)
    for resume in ("auto", "last", "best"):
        with lab.case(f"resume={resume}"):
            cwd = lab.fresh()
            hook = ("wait_in", {"path": STEP, "number": 8, "folder": str(cwd)})
            first = lab.begin(cwd, *SORT, "name=a", hooks=[hook])
            first.until(cwd / "waits")
            second = lab.train(cwd, *SORT, "name=a", f"resume={resume}")
            refused(second, str(first.pid), os.uname().nodename)
            (cwd / "go").touch()
            done = first.wait()
            assert done.code == 0, done.err
            assert_same_end(cwd / "runs" / "a", straight)
            assert_whole(cwd / "runs" / "a")
    with lab.case("both at the same moment"):
        cwd = lab.fresh()
        pair = [lab.begin(cwd, *SORT, "name=a", "resume=auto") for _ in range(2)]
        ends = sorted((process.wait() for process in pair), key=lambda done: done.code)
        assert ends[0].code == 0, ends[0].err
        refused(ends[1])
        assert_same_end(cwd / "runs" / "a", straight)


@row("a lock left by a killed run")
def stale(lab: Lab) -> None:
    """It is taken over, whoever has its pid by now."""
    straight = lab.straight(SORT)
    with lab.case("killed"):
        cwd = lab.fresh()
        hook = ("signal_in", {"path": STEP, "number": 8, "signals": [signal.SIGKILL]})
        assert lab.train(cwd, *SORT, "name=a", hooks=[hook]).code == -9
        assert (cwd / "runs" / "a" / "lock").exists(), "a killed run leaves no lock to take over"
        done = lab.train(cwd, *SORT, "name=a", "resume=auto")
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "a", straight)
        assert_whole(cwd / "runs" / "a")
    us = {"pid": os.getpid(), "host": os.uname().nodename, "started": 0}
    for what, text in {
        "its pid is another process now": json.dumps(us),
        "another machine's": json.dumps({**us, "host": "elsewhere"}),
        "empty": "",
        "garbage": "\0\xff{",
        "a list": "[]",
    }.items():
        with lab.case(what):
            cwd = lab.copy_of(straight)
            (cwd / "runs" / "a" / "lock").write_text(text)
            done = lab.train(cwd, "name=a", "resume=last", "max_steps=26")
            assert done.code == 0, done.err
            assert_whole(cwd / "runs" / "a")
