"""Studies of stubs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpt2lab.config import StudyConfig, TrainConfig
from gpt2lab.sweep.run import run
from gpt2lab.sweep.study import Study

ROOT = Path(__file__).parent.parent.parent
SPACE = {"lr": {"range": [0.0, 1.0]}}
STUB = "tests.sweep.stub"


def stub_study(folder: Path, stop_at: str | None = None, **config) -> Study:
    settings = {"question": "?", "space": SPACE, "goal": ["val/loss"], "trials": 4, "jobs": 2}
    return Study(
        name=folder.name,
        config=StudyConfig(**settings | config),
        overrides=[],
        config_dirs=[],
        folder=folder,
        settings=TrainConfig(trainer={"accelerator": "cpu"}, stop_at=stop_at, eval_every=1),
    )


def start(folder: Path, trials: int, **environment: str) -> subprocess.Popen[str]:
    """The same in a process of its own, which may be killed; a line for each trial that has ended.

    Each has a process group of its own.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.studies", str(folder), str(trials)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        process_group=0,
    )


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def main() -> int:
    folder, trials = Path(sys.argv[1]), int(sys.argv[2])
    study = stub_study(folder, trials=trials)
    run(study, lambda one, ended, total: print(one.folder.name, flush=True), STUB)
    return 0


if __name__ == "__main__":
    from gpt2lab.command_line import show_errors

    show_errors(main)
