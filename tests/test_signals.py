"""Real signals to real trainings; each test starts a process, which takes seconds."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
from gpt2lab.data.module import leave_signals_to_parent
from gpt2lab.metrics import read_metrics
from gpt2lab.signals import ASKED, CTRL_C, GRACE_S, Listener, leaving_at_once, raise_signals

QUICK = [
    "model=nano",
    "data=sort",
    "batch_size=8",
    "max_steps=8",
    "eval_every=8",
    "checkpoint_every=8",
    "stop_at=null",
    "name=a",
]
HALF_A_MINUTE = 30
LONG_STEP = """
import torch
from gpt2lab.lightning_module import GPT2LightningModule as M
step = M.training_step
def slow(self, batch, index):
    if self.trainer.global_step == 5:
        print("ready", flush=True)
        torch.linalg.eigvals(torch.rand(4000, 4000))  # one call into C++, of a minute and more
    step(self, batch, index)
M.training_step = slow
"""
SLOW_CALLBACK = """
import time
from gpt2lab.callbacks import Throughput as T
end = T.on_train_batch_end
def slow(self, trainer, *arguments):
    end(self, trainer, *arguments)
    if trainer.global_step == 5:
        print("ready", flush=True)
        time.sleep(1)
T.on_train_batch_end = slow
"""
LONG_BATCHES = """
import time
from gpt2lab.lightning_module import GPT2LightningModule as M
step = M.validation_step
def slow(self, batch, index):
    print("ready", flush=True)
    time.sleep({seconds})
    step(self, batch, index)
M.validation_step = slow
from gpt2lab.data import sort
sort.EVAL_BATCH = 8
"""
SLOW_DISK = """
import os, time
fsync = os.fsync
def slow(descriptor):
    if ".ckpt" in os.readlink(f"/proc/self/fd/{descriptor}"):
        print("ready", flush=True)
        time.sleep(1)
    fsync(descriptor)
os.fsync = slow
"""
LONG_DRAWING = """
import time
from gpt2lab import report
def slow(*_):
    print("ready", flush=True)
    time.sleep(60)
report.answers = slow
"""


class Training:
    """python -m gpt2lab.train, with something in it replaced."""

    def __init__(self, cwd: Path, *overrides: str, patch: str = "", **environment: str) -> None:
        code = f"{patch}\nfrom gpt2lab import command_line, train\n"
        code += "command_line.show_errors(train.main)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *overrides],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def until_ready(self) -> "Training":
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "ready\n":
                return self
        raise AssertionError(self.process.communicate()[1])

    def send(self, number: int) -> None:
        self.began = time.monotonic()
        self.children = children(self.process.pid)
        self.process.send_signal(number)

    def end(self) -> tuple[int, list[str], list[str]]:
        """Exit code, lines of stdout and of stderr; within ten seconds, and with no orphans."""
        self.process.wait(HALF_A_MINUTE)
        ended = time.monotonic()
        assert ended - self.began < 10
        while any(map(is_alive, self.children)):
            # Sooner than torch's workers notice by themselves, every five seconds.
            assert time.monotonic() - ended < 1
            time.sleep(0.01)
        out, err = self.process.communicate()
        return self.process.returncode, out.splitlines(), err.splitlines()


def run(cwd: Path, *overrides: str, patch: str = "", **environment: str) -> tuple[list[str], str]:
    training = Training(cwd, *overrides, patch=patch, **environment)
    out, err = training.process.communicate(timeout=120)
    assert training.process.returncode == 0, err
    return out.splitlines(), err


def checkpoint(run: Path) -> dict:
    newest = find_checkpoint(run, "last")
    assert newest is not None
    return load_checkpoint(newest)


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


# --- while it trains


def test_a_step_that_takes_a_minute_is_dropped(tmp_path):
    training = Training(tmp_path, *QUICK, "data.num_workers=2", patch=LONG_STEP).until_ready()
    assert len(children(training.process.pid)) >= 2
    training.send(signal.SIGTERM)
    code, out, err = training.end()
    assert (code, err) == (143, [])
    assert out[-2:] == ["stopped by SIGTERM", "runs/a"]
    run_a = tmp_path / "runs" / "a"
    assert [p.name for p in (run_a / "checkpoints").glob("*.ckpt")] == ["step-000005.ckpt"]
    assert summary(run_a)["steps"] == 5
    assert summary(run_a)["stop_reason"] == "SIGTERM"
    assert "stopped at step 5: SIGTERM" in (run_a / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("patch", [LONG_STEP, SLOW_CALLBACK, LONG_BATCHES.format(seconds=60)])
def test_a_resume_behind_a_signal_is_the_straight_run(tmp_path, patch):
    overrides = [*QUICK, "eval_every=4", "model.dropout=0.1"]
    training = Training(tmp_path, *overrides, patch=patch).until_ready()
    training.send(signal.SIGTERM)
    assert training.end()[0] == 143
    assert checkpoint(tmp_path / "runs" / "a")["global_step"] < 8
    run(tmp_path, "name=a", "resume=last")
    run(tmp_path, *overrides, "name=b")
    ours, straight = (checkpoint(tmp_path / "runs" / name) for name in "ab")
    assert ours["global_step"] == straight["global_step"] == 8
    assert same(ours["state_dict"], straight["state_dict"])
    assert same(ours["optimizer_states"], straight["optimizer_states"])
    rows = [read_metrics(tmp_path / "runs" / name / "metrics.csv") for name in "ab"]
    for row in (*rows[0], *rows[1]):
        del row["train/tokens_per_second"], row["train/mfu"]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_step_does_not_begin_behind_a_signal(tmp_path):
    training = Training(tmp_path, *QUICK, patch=SLOW_CALLBACK).until_ready()
    training.send(signal.SIGTERM)
    assert training.end()[0] == 143
    assert summary(tmp_path / "runs" / "a")["steps"] == 5


def test_a_second_ctrl_c_ends_it_at_once_though_it_be_in_the_middle_of_c(tmp_path):
    training = Training(tmp_path, *QUICK, "data.num_workers=2", patch=LONG_STEP).until_ready()
    training.send(signal.SIGINT)
    time.sleep(0.5)
    assert training.process.poll() is None
    training.send(signal.SIGINT)
    code, _, err = training.end()
    assert time.monotonic() - training.began < GRACE_S
    assert code == 130
    assert err == [f"error: {CTRL_C}"]


@pytest.mark.slow
def test_an_evaluation_is_left_for_the_resume(tmp_path):
    patch = LONG_BATCHES.format(seconds=0.3)
    training = Training(tmp_path, *QUICK, "eval_every=4", patch=patch).until_ready()
    training.send(signal.SIGTERM)
    code, out, err = training.end()
    assert (code, err) == (143, [])
    assert out[-1] == "runs/a"
    folder = tmp_path / "runs" / "a"
    assert checkpoint(folder)["global_step"] == summary(folder)["steps"] == 4
    assert not any(row["val/loss"] for row in read_metrics(folder / "metrics.csv"))
    run(tmp_path, "name=a", "resume=last")
    assert [row["step"] for row in read_metrics(folder / "metrics.csv") if row["val/loss"]] == [
        "4",
        "8",
    ]


@pytest.mark.slow
def test_a_run_left_in_its_last_evaluation_is_not_finished(tmp_path):
    training = Training(tmp_path, *QUICK, patch=LONG_BATCHES.format(seconds=60)).until_ready()
    training.send(signal.SIGTERM)
    assert training.end()[0] == 143
    folder = tmp_path / "runs" / "a"
    assert (summary(folder)["steps"], summary(folder)["stop_reason"]) == (8, "SIGTERM")
    run(tmp_path, "name=a", "resume=auto")
    assert (summary(folder)["steps"], summary(folder)["stop_reason"]) == (8, "max_steps=8")
    assert summary(folder)["last"]["val/loss"] > 0


@pytest.mark.slow
def test_a_batch_of_an_evaluation_that_takes_a_minute_is_left_too(tmp_path):
    patch = LONG_BATCHES.format(seconds=60)
    training = Training(tmp_path, *QUICK, "eval_every=4", patch=patch).until_ready()
    training.send(signal.SIGINT)
    code, out, err = training.end()
    assert (code, err) == (130, [])
    assert out[-2:] == ["stopped by SIGINT", "runs/a"]
    folder = tmp_path / "runs" / "a"
    assert checkpoint(folder)["global_step"] == summary(folder)["steps"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", ASKED)
def test_a_save_under_way_is_finished(tmp_path, number):
    overrides = [*QUICK, "max_steps=1000000", "checkpoint_every=1000", "eval_every=1000000"]
    training = Training(tmp_path, *overrides, patch=SLOW_DISK).until_ready()
    training.send(number)
    code, out, err = training.end()
    assert (code, err) == (128 + number, [])
    folder = tmp_path / "runs" / "a"
    assert checkpoint(folder)["global_step"] == summary(folder)["steps"]
    assert out.count("ready") <= 1  # one more, if training went on meanwhile
    assert not list((folder / "checkpoints").glob("*.tmp"))


# --- before and after


def test_a_signal_while_torch_is_imported_is_one_line(tmp_path):
    training = Training(tmp_path, *QUICK)
    maps = Path(f"/proc/{training.process.pid}/maps")
    while "libtorch" not in maps.read_text():
        assert training.process.poll() is None
        time.sleep(0.01)
    training.send(signal.SIGTERM)
    code, out, err = training.end()
    assert (code, out) == (143, [])
    assert err == ["error: SIGTERM: stopped before the end; what was saved before is whole"]


@pytest.mark.slow
@pytest.mark.parametrize("number", ASKED)
def test_a_signal_at_any_time_of_the_start_is_one_line(tmp_path, number):
    for i in range(8):
        training = Training(tmp_path, *QUICK, f"name=run{i}", "max_steps=1000000")
        maps = Path(f"/proc/{training.process.pid}/maps")
        while "libtorch" not in maps.read_text():
            time.sleep(0.01)
        time.sleep(0.3 * i)
        training.send(number)
        code, _, err = training.end()
        assert code == 128 + number, err
        assert len(err) <= 1, err  # none where training had begun


@pytest.mark.slow
def test_a_signal_while_answers_are_drawn_is_one_line(tmp_path):
    training = Training(tmp_path, *QUICK, patch=LONG_DRAWING).until_ready()
    training.send(signal.SIGTERM)
    code, _, err = training.end()
    assert code == 143
    assert err == ["error: SIGTERM: stopped before the end; what was saved before is whole"]
    assert summary(tmp_path / "runs" / "a")["stop_reason"] == "max_steps=8"


@pytest.mark.slow
def test_a_signal_ends_the_whole_multirun(tmp_path):
    overrides = ["-m", *QUICK, "name=grid", "seed=0,1"]
    training = Training(tmp_path, *overrides, patch=SLOW_CALLBACK).until_ready()
    training.send(signal.SIGTERM)
    assert training.end()[0] == 143
    assert not (tmp_path / "runs" / "grid-1").exists()


# --- the listener alone


def test_what_was_installed_before_is_restored():
    before = [signal.getsignal(number) for number in ASKED]
    ours, target = os.pipe()
    os.set_blocking(target, False)
    previous = signal.set_wakeup_fd(target)
    listener = Listener()
    try:
        with listener.during(threading.RLock(), lambda: 0):
            listener.listen()
            os.kill(os.getpid(), signal.SIGTERM)
            assert listener.number == signal.SIGTERM
            os.kill(os.getpid(), signal.SIGUSR1)
            assert listener.number == signal.SIGTERM  # the first one counts
        assert signal.set_wakeup_fd(previous) == target
    finally:
        signal.set_wakeup_fd(previous)
        os.close(ours)
        os.close(target)
    assert [signal.getsignal(number) for number in ASKED] == before


def test_outside_of_the_main_thread_signals_are_left_alone():
    before = [signal.getsignal(number) for number in ASKED]
    listener = Listener()
    faults = []

    def work() -> None:
        try:
            with listener.during(threading.RLock(), lambda: 0):
                listener.listen()
                assert [signal.getsignal(number) for number in ASKED] == before
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not faults


def test_a_forked_child_does_not_write_into_its_parents_descriptor():
    listener = Listener()
    with listener.during(threading.RLock(), lambda: 0):
        listener.listen()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if signal.set_wakeup_fd(-1) == -1 else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_loader_workers_leave_signals_to_their_parent():
    before = [signal.getsignal(number) for number in ASKED]
    try:
        leave_signals_to_parent(0)
        assert {signal.getsignal(number) for number in ASKED} == {signal.SIG_IGN}
    finally:
        for number, handler in zip(ASKED, before, strict=True):
            signal.signal(number, handler)


def test_ctrl_c_before_a_command_listens_ends_it_without_a_word(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # not ignored, as by nohup
        "def at(event, args):\n"
        "    if event == 'import' and args[0] == 'gpt2lab.command_line':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(at)\n"
    )
    place = os.pathsep.join([str(tmp_path), str(Path(gpt2lab.__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "gpt2lab.plan"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": place},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("number", ASKED)
def test_a_signal_while_libraries_are_imported_ends_all_at_once_in_a_line(number):
    """An exception could not pass what they have in C++."""
    program = (
        "import os\n"
        "from gpt2lab.exit import exit_code\n"
        "from gpt2lab.heap import importing\n"
        "from gpt2lab.signals import raise_signals\n"
        "raise_signals()\n"
        "with importing():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    finally:\n"
        "        print('an exception has passed', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr.count("error: ") == done.stderr.count("\n") == 1


def test_signals_raise_again_once_libraries_are_imported():
    before = {number: signal.getsignal(number) for number in ASKED}
    try:
        raise_signals()
        ours = [signal.getsignal(number) for number in ASKED]
        with leaving_at_once():
            assert [signal.getsignal(number) for number in ASKED] != ours
        assert [signal.getsignal(number) for number in ASKED] == ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
