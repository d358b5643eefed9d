"""python -m tests.faults: injects every fault of the table for real, and prints what survived.

    python -m tests.faults [--share] [--jobs N] [--list] [words of the rows that are wanted]

The exit code is 0 only when everything survived. With --share, fewer of the cases that are many.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults import rows
from tests.faults.lab import Lab, Outcome, Row

WIDTH = 66
SHOWN = 40
"""Failures of a row that are told one by one."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--share", action="store_true", help="fewer cases, for integration")
    parser.add_argument("--jobs", type=int, default=1, help="rows that are tried at the same time")
    parser.add_argument("--list", action="store_true", help="name the rows, and do nothing")
    parser.add_argument("words", nargs="*", help="rows whose title holds one of these; all if none")
    options = parser.parse_args()
    chosen = [
        row
        for row in rows()
        if not options.words or any(word.lower() in row.title.lower() for word in options.words)
    ]
    if options.list:
        print("\n".join(row.title for row in chosen))
        return 0
    print(f"{'fault':{WIDTH}}  tried  survived  seconds")
    began = time.monotonic()
    outcomes = try_out(chosen, options.jobs, is_share=options.share)
    tried, survived = (sum(getattr(o, name) for o in outcomes) for name in ("tried", "survived"))
    print(f"{'all':{WIDTH}}  {tried:5}  {survived:8}  {time.monotonic() - began:7.1f}")
    return int(survived < tried)


def try_out(chosen: list[Row], jobs: int, *, is_share: bool) -> list[Outcome]:
    """Each row in its turn, so many at the same time, every job in a lab of its own."""
    waiting = iter(chosen)
    outcomes = []

    def work() -> None:
        lab = Lab(is_share=is_share)
        try:
            for row in waiting:
                outcomes.append(lab.try_out(row))
                show(outcomes[-1])
        finally:
            lab.close()

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(work) for _ in range(jobs)]:
            done.result()
    return outcomes


def show(outcome: Outcome) -> None:
    counts = f"{outcome.tried:5}  {outcome.survived:8}  {outcome.seconds:7.1f}"
    came = f"not tried: {outcome.skipped}" if outcome.skipped else counts
    lines = [f"{outcome.row.title:{WIDTH}}  {came}"]
    shown = [f"NOT SURVIVED: {failure}" for failure in outcome.failures[:SHOWN]]
    more = len(outcome.failures) - len(shown)
    more_lines = [f"and {more} more"] if more else []
    lines += [f"    {line}" for line in (*outcome.notes, *shown, *more_lines)]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
