"""The page as a user starts it, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from gpt2lab.checkpoint import AtomicCheckpointIO
from gpt2lab.config import SortConfig, TextConfig
from gpt2lab.model import GPT2
from tests.test_loading import content

WAIT_S = 300
"""For a machine that does much else."""


@dataclass
class Served:
    process: subprocess.Popen[str]
    url: str
    port: int

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body, of a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def interrupt(self) -> tuple[int, str, str]:
        """Ctrl-C: exit code, stdout and stderr."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextmanager
def served(*overrides: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "gpt2lab.explore", *overrides]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()  # of nothing but the address
        assert line, process.communicate()[1]
        yield Served(process, line, int(line.split(":")[2].split("/")[0]))
    finally:
        process.kill()
        process.communicate()


def save(model: GPT2, path: Path) -> Path:
    """A checkpoint file of one of `tests.insight.models`."""
    assert model.speech is not None
    length, tokenizer = model.speech.question_tokens, model.speech.tokenizer
    data: Any = SortConfig(length=length, num_digits=3) if length else TextConfig()
    whole = content(model.config, data, None if length else tokenizer)
    weights = model.state_dict()
    whole["state_dict"] = {f"model.{name}": tensor for name, tensor in weights.items()}
    AtomicCheckpointIO().save_checkpoint(whole, path)
    return path


def joined(session: str, fn_index: int, *data: Any, **event: Any) -> bytes:
    """What the browser sends when a user does something."""
    return json.dumps(
        {"data": data, "event_data": event, "fn_index": fn_index, "session_hash": session}
    ).encode()
