"""Stands for train in tests: a run folder of the same files, in hundredths of a second.

`python -m tests.sweep.stub name=... runs_dir=... seed=... lr=...`: its loss ends at lr + seed. It
makes ten steps, each noted in steps.txt, and goes on with the one that follows. STUB holds,
as JSON, what befalls a run: by its name, or "*" for all of them.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from gpt2lab.lock import lock

STEPS = 10


def main() -> int:
    told = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    folder = Path(told["runs_dir"]) / told["name"]
    plans = json.loads(os.environ.get("STUB", "{}"))
    plan = plans.get("*", {}) | plans.get(folder.name, {})
    folder.mkdir(parents=True, exist_ok=True)
    seconds = plan.get("step_seconds", 0.005)
    steps, metrics = folder / "steps.txt", folder / "metrics.csv"
    asked: list[int] = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in plan else lambda *_: os._exit(143))
    if "saves_until_asked" in plan:
        signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    with lock(folder):
        (folder / "starts.txt").open("a").write(f"{os.environ.get('OMP_NUM_THREADS')}\n")
        (folder / "receipt.json").write_text("{}")
        made = len(steps.read_text().split()) if steps.exists() else 0
        if not made:
            metrics.write_text("step,val/loss\n")
        worse = plan.get("worse_at_last", 0)
        loss = float(told["lr"]) + int(told["seed"])
        for step in range(made + 1, STEPS + 1):
            time.sleep(seconds)
            befall(plan, step, folder)
            with metrics.open("a") as file:
                file.write(f"{step},{loss + STEPS - step + worse * (step == STEPS)}\n")
            with steps.open("a") as file:
                file.write(f"{step}\n")
        if "saves_until_asked" in plan:
            while not asked:
                time.sleep(0.01)
        ends = {"last": {"val/loss": plan.get("loss", loss)}, "best": {"val/loss": loss}}
        ends |= {"steps": STEPS, "ended_by": "itself", "stop_reason": "max_steps"}
        (folder / "summary.json").write_text(json.dumps(ends))
    return 0


def befall(plan: dict, step: int, folder: Path) -> None:
    if step != plan.get("at", 5):
        return
    tries = len((folder / "starts.txt").read_text().split())
    if tries > plan.get("times", 99):
        return
    if "raise" in plan:
        print(f"error: {plan['raise']}", file=sys.stderr, flush=True)
        sys.exit(1)
    if "signal" in plan:
        os.kill(os.getpid(), plan["signal"])


if __name__ == "__main__":
    sys.exit(main())
