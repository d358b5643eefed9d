"""A signal, a fault or a death of one of two ranks, or of their parent: one end, and no orphans."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gpt2lab.checkpoint import find_checkpoint, load_checkpoint, load_facts
from gpt2lab.launch import cpus
from gpt2lab.run_folder import read_json
from tests.test_ranks import TINY, column, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cpus() < 2, reason="two ranks need two CPU cores"),
]

# Ranks import the program that starts them, under another name: what it patches is patched there.
PROGRAM = """
import math, os, time
from pathlib import Path

from gpt2lab.command_line import show_errors
from gpt2lab.train import main

if __name__ == "__mp_main__" or {{"LOCAL_RANK", "SLURM_PROCID"}} & {{*os.environ}}:
    from gpt2lab.callbacks import Throughput
    from gpt2lab.lightning_module import GPT2LightningModule

    ended = Throughput.on_train_batch_end
    step = GPT2LightningModule.training_step

    def on_train_batch_end(self, trainer, *args):
        ended(self, trainer, *args)
        place = Path({events!r}) / f"rank-{{trainer.global_rank}}"
        place.with_suffix(".new").write_text(f"{{os.getpid()}} {{trainer.global_step}}")
        place.with_suffix(".new").rename(place)
        time.sleep(0.1)

    def training_step(self, batch, batch_idx):
        rank, number = self.global_rank, self.trainer.global_step + 1
        {hook}
        step(self, batch, batch_idx)
        {after}

    Throughput.on_train_batch_end = on_train_batch_end
    GPT2LightningModule.training_step = training_step

if __name__ == "__main__":
    show_errors(main)
"""


class Training:
    """Two ranks, started through a command line in a process group of its own."""

    def __init__(self, folder, *overrides, hook="pass", after="pass"):
        self.runs, self.events = folder / "runs", folder / "events"
        self.events.mkdir(exist_ok=True)
        program = folder / "program.py"
        program.write_text(PROGRAM.format(events=str(self.events), hook=hook, after=after))
        plain = ["callbacks.curves=null", "callbacks.samples=null", f"runs_dir={self.runs}"]
        arguments = [*TINY, "data=sort", "devices=2", "name=a", *plain, *overrides]
        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ranks(self):
        """(process id, steps done) of each rank that has done a step."""
        return [
            tuple(map(int, (self.events / f"rank-{rank}").read_text().split()))
            for rank in (0, 1)
            if (self.events / f"rank-{rank}").exists()
        ]

    def until_step(self, step):
        while [done >= step for _, done in self.ranks()] != [True, True]:
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate())
            time.sleep(0.05)
        return self

    def end(self):
        """Exit code, standard output and the lines of standard error."""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err.splitlines()

    def orphans(self):
        deadline = time.monotonic() + 5
        while alive := [pid for pid, _ in self.ranks() if is_alive(pid)]:
            if time.monotonic() > deadline:
                return alive
            time.sleep(0.05)
        return []

    def checkpoints(self):
        return sorted(p.name for p in (self.runs / "a" / "checkpoints").glob("*.ckpt"))


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def to_parent(training, number):
    training.process.send_signal(number)


def to_group(training, number):
    os.killpg(training.process.pid, number)


def to_one_rank(training, number):
    os.kill(training.ranks()[1][0], number)


def to_all(training, number):
    for pid in (training.process.pid, *(pid for pid, _ in training.ranks())):
        os.kill(pid, number)


@pytest.mark.parametrize(
    ("number", "send", "code"),
    [
        (signal.SIGTERM, to_parent, 143),
        (signal.SIGTERM, to_group, 143),
        (signal.SIGTERM, to_one_rank, 143),
        (signal.SIGTERM, to_all, 143),
        (signal.SIGINT, to_group, 130),
    ],
)
def test_a_signal_ends_all_ranks_after_the_same_step_with_one_checkpoint(
    tmp_path, number, send, code
):
    training = Training(tmp_path, "max_steps=1000").until_step(3)
    begin = time.monotonic()
    send(training, number)
    found, out, err = training.end()
    assert time.monotonic() - begin < 10
    assert (found, err) == (code, [])
    assert out.splitlines()[-1] == str(tmp_path / "runs" / "a")
    (_, step), (_, other) = training.ranks()
    assert step == other
    assert training.checkpoints() == [f"step-{step:06d}.ckpt"]
    summary = read_json(tmp_path / "runs" / "a" / "summary.json")
    assert (summary["steps"], summary["stop_reason"]) == (step, number.name)
    assert not training.orphans()


@pytest.mark.parametrize("send", [to_parent, to_one_rank])
def test_a_step_that_takes_too_long_is_dropped_on_all_ranks(tmp_path, send):
    hook = "time.sleep(60 if number == 4 else 0)"
    training = Training(tmp_path, "max_steps=1000", hook=hook).until_step(3)
    begin = time.monotonic()
    send(training, signal.SIGTERM)
    code, out, err = training.end()
    assert time.monotonic() - begin < 50  # the step takes 60 s
    assert (code, err) == (143, [])
    assert out.splitlines()[-1] == str(tmp_path / "runs" / "a")
    assert training.checkpoints() == ["step-000003.ckpt"]
    assert not training.orphans()


@pytest.mark.parametrize("send", [to_parent, to_one_rank])
def test_a_signal_ends_ranks_that_share_the_state_with_one_checkpoint_of_all(tmp_path, send):
    training = Training(tmp_path, "strategy=fsdp", "max_steps=1000").until_step(3)
    send(training, signal.SIGTERM)
    code, _, err = training.end()
    assert (code, err) == (143, [])
    (_, step), (_, other) = training.ranks()
    assert step == other
    assert training.checkpoints() == [f"step-{step:06d}.ckpt"]
    path = training.runs / "a" / "checkpoints" / training.checkpoints()[0]
    assert load_facts(path)["global_step"] == step
    assert not training.orphans()


@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_ranks_that_share_the_state_save_it_together_where_a_step_takes_too_long(tmp_path, optim):
    hook = "time.sleep(60 if number == 4 else 0)"
    overrides = ["strategy=fsdp", f"optim={optim}", "max_steps=1000"]
    training = Training(tmp_path, *overrides, hook=hook).until_step(3)
    begin = time.monotonic()
    training.process.send_signal(signal.SIGTERM)
    code, out, err = training.end()
    assert time.monotonic() - begin < 50  # the step takes 60 s
    assert (code, err) == (143, [])
    assert out.splitlines()[-1] == str(tmp_path / "runs" / "a")
    assert training.checkpoints() == ["step-000003.ckpt"]
    assert load_facts(training.runs / "a" / "checkpoints" / "step-000003.ckpt")["global_step"] == 3
    assert not training.orphans()


def test_where_one_of_them_cannot_save_none_does_and_it_is_told(tmp_path):
    # The second rank never lets go of its lock.
    hook = "if (rank, number) == (1, 4): self.update_lock.acquire(); time.sleep(60)"
    slow = "time.sleep(60 if (rank, number) == (0, 4) else 0)"
    training = Training(
        tmp_path,
        "strategy=fsdp",
        "max_steps=1000",
        "checkpoint_every=2",
        hook=f"{hook}\n        {slow}",
    ).until_step(3)
    begin = time.monotonic()
    training.process.send_signal(signal.SIGTERM)
    code, _, err = training.end()
    assert time.monotonic() - begin < 50  # the step takes 60 s
    assert (code, len(err)) == (143, 1)
    assert err[0].startswith("warning: SIGTERM: the ranks came to no common step in time; nothing")
    assert "the last checkpoint is step-000002.ckpt" in err[0]
    assert training.checkpoints() == ["step-000002.ckpt"]
    assert not training.orphans()


def test_a_killed_rank_of_those_that_share_the_state_leaves_what_was_saved_before(tmp_path):
    training = Training(tmp_path, "strategy=fsdp", "max_steps=1000", "checkpoint_every=2")
    training.until_step(5)
    os.kill(training.ranks()[1][0], signal.SIGKILL)
    code, out, err = training.end()
    assert (code, out, len(err)) == (1, "", 1), err
    assert err[0].startswith("error: rank 1: ended by SIGKILL; ")
    found = find_checkpoint(training.runs / "a", "last")
    assert load_facts(found)["global_step"] >= 2
    assert not training.orphans()


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    hook = "time.sleep(60 if number == 4 else 0)"
    training = Training(tmp_path, "max_steps=1000", hook=hook).until_step(3)
    begin = time.monotonic()
    training.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    training.process.send_signal(signal.SIGINT)
    code, out, err = training.end()
    assert time.monotonic() - begin < 6
    assert (code, out, len(err)) == (130, "", 1), err
    assert err[0].startswith("error: Ctrl-C: ")
    assert not training.checkpoints()
    assert not training.orphans()


@pytest.mark.parametrize("send", [to_parent, to_group])
def test_a_signal_before_the_training_leaves_nothing(tmp_path, send):
    training = Training(tmp_path, "max_steps=1000")
    while len(children(training.process.pid)) < 2:
        time.sleep(0.01)
    begin = time.monotonic()
    send(training, signal.SIGINT)
    code, out, err = training.end()
    assert time.monotonic() - begin < 10
    assert (code, out, len(err)) == (130, "", 1), err
    assert err[0].startswith("error: ")
    assert not training.runs.exists()


FAMILY = """
import multiprocessing, signal

from gpt2lab.launch.family import ASKED, Family

if __name__ == "__main__":
    with Family():
        child = multiprocessing.get_context("spawn").Process(target=print)
        child.start()
        print(set(ASKED) <= signal.pthread_sigmask(signal.SIG_BLOCK, []))
        child.join()
"""


def test_starting_a_process_lets_no_signal_through_to_the_next(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FAMILY)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.stdout.split() == ["True"], done.stderr


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_killed_rank_ends_the_others_with_one_line_and_no_checkpoint(tmp_path):
    training = Training(tmp_path, "max_steps=1000").until_step(3)
    os.kill(training.ranks()[1][0], signal.SIGKILL)
    begin = time.monotonic()
    code, out, err = training.end()
    assert time.monotonic() - begin < 10
    assert (code, out, len(err)) == (1, "", 1), err
    assert err[0].startswith("error: rank 1: ended by SIGKILL; ")
    assert not training.checkpoints()
    assert not training.orphans()


def weights(folder):
    return load_checkpoint(find_checkpoint(folder, "last"))["state_dict"]


@pytest.mark.parametrize(("every", "step"), [(3, 3), (100, 0)])
def test_a_lost_rank_is_made_up_for_by_a_restart(tmp_path, every, step):
    """Its weights, and metrics, are those of a run that has lost nothing."""
    hook = (
        f"first = Path({str(tmp_path)!r}) / 'lost'; "
        "(rank, number, first.exists()) == (1, 6, False) and "
        "(first.touch(), os.kill(os.getpid(), 9))"
    )
    plain = ["max_steps=8", "eval_every=4", f"checkpoint_every={every}", "model.dropout=0.1"]
    training = Training(tmp_path, *plain, "max_restarts=1", hook=hook)
    code, out, err = training.end()
    assert (code, out.splitlines()[-1]) == (0, str(tmp_path / "runs" / "a")), err
    where = f"step {step}" if step else "step 0, afresh"
    assert err[0] == f"warning: rank 1: ended by SIGKILL; restart 1 of 1, from {where}"
    assert not training.orphans()
    (leg,) = read_json(tmp_path / "runs" / "a" / "receipt.json")["resumed"]
    assert (leg["step"], leg["restart"]) == (step, "rank 1: ended by SIGKILL")

    (tmp_path / "straight").mkdir()
    assert Training(tmp_path / "straight", *plain).end()[0] == 0
    folders = [tmp_path / "runs" / "a", tmp_path / "straight" / "runs" / "a"]
    found, wanted = map(weights, folders)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for name in ("step", "train/loss", "val/loss"):
        assert column(folders[0], name) == column(folders[1], name)


def test_no_more_restarts_than_were_asked_for(tmp_path):
    hook = "(rank, number) == (0, 3) and os.kill(os.getpid(), 9)"
    code, out, err = Training(tmp_path, "max_steps=8", "max_restarts=1", hook=hook).end()
    assert (code, out) == (1, "")
    assert [line.partition(";")[0] for line in err] == [
        "warning: rank 0: ended by SIGKILL",
        "error: rank 0: ended by SIGKILL",
    ]


def test_what_a_restart_would_meet_again_is_not_restarted(tmp_path):
    hook = "if number == 3: self.model.transformer.ln_f.weight.data.fill_(math.nan)"
    code, _, err = Training(tmp_path, "max_steps=9", "max_restarts=3", hook=hook).end()
    assert (code, len(err)) == (1, 1), err
    assert err[0].startswith("error: step 3: the loss is nan; ")


def test_a_signal_to_the_parent_is_not_made_up_for(tmp_path):
    training = Training(tmp_path, "max_steps=1000", "max_restarts=3").until_step(3)
    training.process.send_signal(signal.SIGTERM)
    assert training.end()[0] == 143
    assert not training.orphans()


def test_the_first_rank_killed_is_the_one_that_is_named(tmp_path):
    training = Training(tmp_path, "max_steps=1000").until_step(3)
    os.kill(training.ranks()[0][0], signal.SIGKILL)
    code, _, err = training.end()
    assert (code, len(err)) == (1, 1)
    assert err[0].startswith("error: rank 0: ended by SIGKILL; ")
    assert not training.orphans()


def test_ranks_leave_when_their_parent_is_killed(tmp_path):
    training = Training(tmp_path, "max_steps=1000").until_step(3)
    training.process.kill()
    assert not training.orphans()
    assert not training.checkpoints()


def test_a_rank_that_hangs_does_not_keep_the_others_from_ending(tmp_path):
    hang = "if (rank, number) == (1, 4): signal_or_hang()"
    hook = hang.replace("signal_or_hang()", "time.sleep(1000)")
    training = Training(tmp_path, "max_steps=1000", hook=hook).until_step(3)
    os.kill(training.ranks()[0][0], signal.SIGKILL)
    begin = time.monotonic()
    code, _, err = training.end()
    assert time.monotonic() - begin < 60
    assert (code, len(err)) == (1, 1)
    assert not training.orphans()


def test_a_fault_on_one_rank_is_one_line_that_names_it(tmp_path):
    hook = "if (rank, number) == (1, 3): raise ValueError('a fault of rank 1')"
    code, out, err = Training(tmp_path, "max_steps=9", hook=hook).end()
    assert (code, out) == (1, "")
    assert err == ["error: rank 1: ValueError: a fault of rank 1; add debug=true to see where"]


def test_a_fault_is_told_where_the_other_rank_passes_on_the_signal_that_ends_it(tmp_path):
    hook = "number == 3 and (time.sleep(100) if rank else (_ for _ in ()).throw(KeyError('it')))"
    code, _, err = Training(tmp_path, "max_steps=9", hook=hook).end()
    assert (code, err) == (1, ["error: rank 0: KeyError: 'it'; add debug=true to see where"])


def test_a_full_disk_on_the_first_rank_ends_both(tmp_path):
    hook = (
        "from gpt2lab.checkpoint import AtomicCheckpointIO as IO; "
        "IO.save_checkpoint = lambda *a, **k: (_ for _ in ()).throw(OSError(28, 'No space'))"
    )
    code, _, err = Training(tmp_path, "max_steps=9", "checkpoint_every=3", hook=hook).end()
    assert (code, len(err)) == (1, 1)
    assert "No space" in err[0]


def test_bad_input_found_by_the_ranks_is_told_once_and_leaves_nothing(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"source": "a"}\n')
    code, out, err = Training(tmp_path, "data=pairs", f"data.path={pairs}", "max_steps=9").end()
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(f"error: {pairs}")
    assert not training_began(tmp_path)


def training_began(folder):
    return (folder / "runs" / "a").exists()


def test_a_loss_that_is_nan_on_one_rank_ends_both_before_the_update(tmp_path):
    hook = "if (rank, number) == (1, 3): self.model.transformer.ln_f.weight.data.fill_(math.nan)"
    training = Training(tmp_path, "max_steps=9", "checkpoint_every=2", hook=hook)
    code, out, err = training.end()
    assert (code, out, len(err)) == (1, "", 1), err
    run = tmp_path / "runs" / "a"
    assert err[0].startswith("error: step 3: the loss is nan; nothing was changed by it, the last ")
    assert str(run / "checkpoints" / "step-000002.ckpt") in err[0]
    spike = read_json(run / "spike.json")
    # The second half of the rows is the second rank's.
    assert [sample["loss"] == "nan" for sample in spike["samples"]] == [False] * 4 + [True] * 4
    assert [sample["id"] for sample in spike["samples"]] == list(range(16, 24))
    assert training.checkpoints() == ["step-000002.ckpt"]
    assert not training.orphans()


def test_a_step_that_is_nan_on_one_rank_can_be_left_out_on_all(tmp_path):
    hook = (
        "w = self.model.transformer.ln_f.weight.data; kept = w.clone(); "
        "(rank, number) == (1, 3) and w.fill_(math.nan)"
    )
    training = Training(
        tmp_path, "max_steps=5", "skip_nonfinite=1", hook=hook, after="w.copy_(kept)"
    )
    code, _, err = training.end()
    assert code == 0
    assert sum("step 3: the loss is nan; it was left out" in line for line in err) == 1
    assert [row["step"] for row in rows(tmp_path / "runs" / "a")] == ["1", "2", "3", "4", "5"]


def test_other_numbers_of_ranks_see_the_same_batches_after_a_resume(tmp_path):
    """Four steps on one device, four on two, four on one: as twelve on one."""

    def train(name, devices, steps, *more):
        overrides = [
            *TINY,
            "data=sort",
            f"runs_dir={tmp_path}",
            f"name={name}",
            f"devices={devices}",
            "schedule=constant",
            f"max_steps={steps}",
            *more,
        ]
        command = [sys.executable, "-m", "gpt2lab.train", *overrides]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        changes = done.stderr.splitlines()
        assert all(line.startswith(("max_steps: ", "devices: ")) for line in changes), changes
        return tmp_path / name

    straight = train("straight", 1, 12)
    changing = train("changing", 1, 4)
    train("changing", 2, 8, "resume=last")
    train("changing", 1, 12, "resume=last")
    assert [row["step"] for row in rows(changing)] == [row["step"] for row in rows(straight)]
    found, wanted = column(changing, "train/loss"), column(straight, "train/loss")
    assert found == pytest.approx(wanted, rel=1e-3)  # fp32, added up in another order
    assert json.loads((changing / "receipt.json").read_text())["resumed"]
