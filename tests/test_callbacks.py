import os
import pty
import re
import subprocess
import sys

import pytest
import torch

from gpt2lab.callbacks import Throughput
from gpt2lab.config import Precision
from gpt2lab.peak import Peak


def test_a_terminal_sees_steps_loss_and_speed(tmp_path):
    ours, theirs = pty.openpty()
    arguments = ["model=nano", "max_steps=20", "eval_every=10", "stop_at=null", "name=a"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2lab.train", *arguments],
        cwd=tmp_path,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "140", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other side has closed
        pass
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"step 20/20 .*loss \d\.\d+ .*exact match \d\.\d+ .*tokens/s .*left", text)


def test_speed_counts_training_alone(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr("gpt2lab.callbacks.time.perf_counter", lambda: next(clock))

    class Trainer:
        global_step = 1
        log_every_n_steps = 100

    throughput = Throughput(tokens_per_step=50)
    throughput.on_train_batch_start()
    throughput.on_train_batch_end(Trainer, None)  # 2 s
    throughput.on_validation_start()  # 8 s that are not counted
    throughput.on_train_batch_start()
    throughput.on_train_batch_end(Trainer, None)  # 3 s
    assert throughput.seconds == 5
    assert throughput.tokens_per_second == pytest.approx(20)


def test_a_save_between_two_steps_is_no_training(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr("gpt2lab.callbacks.time.perf_counter", lambda: next(clock))

    class Trainer:
        global_step = 1
        log_every_n_steps = 10

    throughput = Throughput(tokens_per_step=50)
    throughput.on_train_batch_start()
    throughput.on_train_batch_end(Trainer, None)
    throughput.on_save_checkpoint(Trainer, None, {})  # 8 s
    throughput.on_train_batch_start()
    throughput.on_train_batch_end(Trainer, None)
    assert throughput.seconds == 5


def test_utilisation_is_the_share_of_all_devices_peak(monkeypatch):
    monkeypatch.setattr("gpt2lab.callbacks.peak_of", lambda *_: Peak(100.0, "a guess"))
    recorded = speed_of_two_steps(monkeypatch)
    # 60 operations in each second of training; finding the peak takes 7 s that are not.
    assert recorded == {"train/tokens_per_second": 50, "train/mfu": 60 / (2 * 100)}


def test_unknown_hardware_has_no_utilisation(monkeypatch):
    monkeypatch.setattr("gpt2lab.callbacks.peak_of", lambda *_: None)
    assert speed_of_two_steps(monkeypatch) == {"train/tokens_per_second": 50}


def speed_of_two_steps(monkeypatch) -> dict[str, float]:
    """What is recorded after the second."""
    clock = iter([0.0, 1.0, 8.0, 9.0, 10.0])
    monkeypatch.setattr("gpt2lab.callbacks.time.perf_counter", lambda: next(clock))

    class Trainer:
        global_step = 1
        world_size = 2
        log_every_n_steps = 1

    class Module:
        device = torch.device("cpu")
        record = staticmethod(lambda metrics: recorded.append(metrics))

    recorded: list[dict[str, float]] = []
    throughput = Throughput(50, flops_per_step=60, precision=Precision.fp32)
    throughput.on_train_batch_start()
    throughput.on_train_batch_end(Trainer, Module)
    throughput.on_train_batch_start()
    throughput.on_train_batch_end(Trainer, Module)
    assert throughput.seconds == 2
    assert throughput.mfu in (None, recorded[0].get("train/mfu"))
    return recorded[1]
