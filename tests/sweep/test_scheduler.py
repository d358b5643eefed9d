"""Trials that fail, are killed or pruned; a study that is killed; two processes on one study."""

import json
import math
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from gpt2lab import launch
from gpt2lab.config import OnFail, Pruner, Sampler
from gpt2lab.errors import ConfigError, RunError
from gpt2lab.signals import ASKED
from gpt2lab.sweep import claims, outcome, space
from gpt2lab.sweep.process import UNKNOWN, spawn
from gpt2lab.sweep.run import begun, folder_points, run
from gpt2lab.sweep.trials import State
from tests.sweep.studies import ROOT, STUB, start, stub_study, until


def states(points) -> list[str]:
    return [point.state.value for point in points]


def runs(folder: Path) -> list[Path]:
    return sorted(folder.glob("trial-*"))


def is_whole(folder: Path) -> bool:
    """Whether every run made each of its steps once, and no other."""
    return all(
        (run / "steps.txt").read_text().split() == [str(i) for i in range(1, 11)]
        for run in runs(folder)
    )


def test_a_study_tries_so_many_points_in_folders_of_their_own(tmp_path):
    points = run(stub_study(tmp_path / "s"), module=STUB)
    assert states(points) == ["complete"] * 4
    assert [one.name for one in runs(tmp_path / "s")] == [f"trial-{i:04d}-seed-0" for i in range(4)]
    for point in points:
        (trial,) = point.trials
        assert point.value == trial.value == pytest.approx(point.params["lr"])
        assert trial.folder == tmp_path / "s" / f"trial-{point.number:04d}-seed-0"
        assert (trial.steps, trial.reason) == (10, None)
        assert trial.seconds > 0
        assert trial.metrics.exists()


def test_what_is_finished_is_not_run_again_and_more_may_be_asked_for(tmp_path):
    first = run(stub_study(tmp_path / "s", trials=2), module=STUB)
    assert run(stub_study(tmp_path / "s", trials=2), module=STUB) == first
    assert run(stub_study(tmp_path / "s", trials=3), module=STUB)[:2] == first
    assert len(runs(tmp_path / "s")) == 3


def test_another_question_under_the_same_name_is_refused(tmp_path):
    run(stub_study(tmp_path / "s", trials=1), module=STUB)
    with pytest.raises(ConfigError) as error:
        run(stub_study(tmp_path / "s", trials=1, seeds=2, sampler=Sampler.random), module=STUB)
    assert [problem.partition(";")[0] for problem in error.value.problems] == [
        "study.seeds: 1 in the study s, 2 now",
        "study.sampler: tpe in the study s, random now",
    ]


def test_points_do_not_depend_on_when_the_study_was_killed(tmp_path):
    random = {"sampler": Sampler.random, "jobs": 1}
    straight = run(stub_study(tmp_path / "a", **random), module=STUB)
    for trials in (1, 2, 4):
        parts = run(stub_study(tmp_path / "b", **random, trials=trials), module=STUB)
    assert [p.params for p in parts] == [p.params for p in straight]
    assert len({p.params["lr"] for p in straight}) == 4


def test_a_point_is_the_same_where_the_study_was_killed_while_it_was_drawn(tmp_path, monkeypatch):
    random = {"sampler": Sampler.random, "trials": 1}
    straight = run(stub_study(tmp_path / "a", **random), module=STUB)

    def killed(*told):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(space, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        run(stub_study(tmp_path / "b", **random), module=STUB)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    broken = run(stub_study(tmp_path / "b", **random), module=STUB)
    assert [p.params for p in broken] == [p.params for p in straight]


def test_a_result_of_a_point_that_another_machine_has_taken_is_dropped(tmp_path, monkeypatch):
    finished, taken_at = outcome.finished, []

    def taken(*told):
        if (found := finished(*told)) is not None and not taken_at:
            taken_at.append(told)
            with sqlite3.connect(tmp_path / "s" / "study.db") as connection:
                foreign = json.dumps({"host": "elsewhere"})
                connection.execute("UPDATE gpt2lab_claims SET owner='x', process=?", [foreign])
            connection.close()
        return found

    monkeypatch.setattr(outcome, "finished", taken)
    monkeypatch.setattr(claims, "SILENCE_S", 0.1)
    told = []
    points = run(stub_study(tmp_path / "s", trials=1), lambda *of: told.append(of), STUB)
    assert states(points) == ["complete"]
    assert len(told) == 1


def test_trials_of_one_point_may_be_on_two_machines(tmp_path, befalls):
    storage = f"sqlite:///{tmp_path}/shared.db"
    settings = {"storage": storage, "trials": 1, "seeds": 2, "jobs": 1, "on_fail": OnFail.stop}
    befalls({"trial-0000-seed-1": {"raise": "no"}})
    with pytest.raises(RunError):
        run(stub_study(tmp_path / "one" / "s", **settings), module=STUB)
    befalls({})
    (point,) = run(stub_study(tmp_path / "two" / "s", **settings), module=STUB)
    assert [one.folder.relative_to(tmp_path) for one in point.trials] == [
        Path("one/s/trial-0000-seed-0"),
        Path("two/s/trial-0000-seed-1"),
    ]


def test_a_run_on_a_disk_that_is_not_here_is_told_of_by_its_place_there(tmp_path):
    run(stub_study(tmp_path / "s", trials=1), module=STUB)
    shutil.rmtree(tmp_path / "s" / "trial-0000-seed-0")
    with sqlite3.connect(tmp_path / "s" / "study.db") as connection:
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = replace(value_json, ?, '/elsewhere')",
            [str(tmp_path)],
        )
    connection.close()
    (point,) = folder_points(tmp_path / "s")
    assert point.trials[0].folder == Path("/elsewhere/s/trial-0000-seed-0")


def test_the_runs_of_a_study_that_was_moved_are_found(tmp_path):
    run(stub_study(tmp_path / "s", trials=1), module=STUB)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "s").rename(tmp_path / "elsewhere" / "s")
    (point,) = folder_points(moved)
    assert point.trials[0].folder == moved / "trial-0000-seed-0"


def test_each_point_is_run_with_every_seed_and_judged_by_the_mean(tmp_path):
    points = run(stub_study(tmp_path / "s", trials=2, seeds=3), module=STUB)
    assert len(runs(tmp_path / "s")) == 6
    for point in points:
        assert [one.seed for one in point.trials] == [0, 1, 2]
        assert [one.value for one in point.trials] == pytest.approx(
            [point.params["lr"] + seed for seed in range(3)]
        )
        assert point.value == pytest.approx(point.params["lr"] + 1)


def test_a_trial_that_fails_is_counted_with_its_reason(tmp_path, befalls):
    befalls(
        {
            "trial-0000-seed-0": {"raise": "train/loss: is nan at step 5; lower optim.lr"},
            "trial-0001-seed-0": {"signal": signal.SIGKILL},
            "trial-0002-seed-0": {"loss": math.nan},
            "trial-0003-seed-0": {"signal": signal.SIGTERM},
        }
    )
    points = run(stub_study(tmp_path / "s", trials=5), module=STUB)
    assert states(points) == ["failed"] * 4 + ["complete"]
    assert [point.trials[0].reason for point in points] == [
        "train/loss: is nan at step 5; lower optim.lr",
        "ended by SIGKILL; the system's log tells of a lack of memory, if that was it",
        "val/loss is nan",
        "ended by SIGTERM",
        None,
    ]


def test_a_run_that_has_ended_without_its_goal_is_not_tried_again(tmp_path, befalls):
    befalls({"trial-0000-seed-0": {"loss": math.nan}})
    settings = {"on_fail": OnFail.retry, "retries": 3, "trials": 2}
    points = run(stub_study(tmp_path / "s", **settings), module=STUB)
    assert states(points) == ["failed", "complete"]
    assert (runs(tmp_path / "s")[0] / "starts.txt").read_text().count("\n") == 1


def test_a_study_of_failures_alone_fails(tmp_path, befalls):
    befalls({"*": {"raise": "data.path: no"}})
    with pytest.raises(RunError, match=r"every trial has failed, the first by: data\.path: no"):
        run(stub_study(tmp_path / "s", trials=2), module=STUB)


def test_on_fail_stop_ends_the_study_and_a_second_start_tries_the_trial_again(tmp_path, befalls):
    befalls({"trial-0001-seed-0": {"raise": "no"}})
    settings = {"on_fail": OnFail.stop, "jobs": 1}
    with pytest.raises(RunError, match="trial-0001-seed-0: no; mend it"):
        run(stub_study(tmp_path / "s", **settings), module=STUB)
    assert states(folder_points(tmp_path / "s")) == ["complete", "running"]
    befalls({})
    points = run(stub_study(tmp_path / "s", **settings), module=STUB)
    assert states(points) == ["complete"] * 4
    assert is_whole(tmp_path / "s")


def test_on_fail_retry_runs_a_trial_again_from_where_it_was(tmp_path, befalls):
    befalls(
        {
            "trial-0000-seed-0": {"raise": "once", "times": 1},
            "trial-0001-seed-0": {"raise": "always"},
        }
    )
    settings = {"on_fail": OnFail.retry, "retries": 2, "trials": 2}
    points = run(stub_study(tmp_path / "s", **settings), module=STUB)
    assert states(points) == ["complete", "failed"]
    assert [len((r / "starts.txt").read_text().split()) for r in runs(tmp_path / "s")] == [2, 3]
    assert (runs(tmp_path / "s")[0] / "steps.txt").read_text().split() == [
        str(i) for i in range(1, 11)
    ]


def test_a_trial_of_which_nobody_knows_how_it_ended_is_run_again(tmp_path, befalls):
    befalls({"trial-0000-seed-0": {"raise": "no", "times": 1}})
    started = []

    def forgetful(what):
        process = spawn(what)
        if not started:
            poll = process.poll
            process.poll = lambda: None if poll() is None else UNKNOWN
        started.append(what)
        return process

    (point,) = run(stub_study(tmp_path / "s", trials=1), module=STUB, start=forgetful)
    assert point.state is State.complete
    assert len(started) == 2
    assert is_whole(tmp_path / "s")


def test_a_trial_that_does_worse_is_pruned_and_keeps_its_folder(tmp_path, befalls):
    befalls({"*": {"step_seconds": 0.05}})
    grid = {"lr": {"choice": [0.1, 0.2, 5.0, 0.05]}}
    settings = {"space": grid, "sampler": Sampler.grid, "trials": None, "jobs": 1}
    settings |= {"pruner": Pruner.median, "prune_after_trials": 2, "prune_after_steps": 2}
    points = run(stub_study(tmp_path / "s", **settings), module=STUB)
    assert states(points) == ["complete", "complete", "pruned", "complete"]
    (pruned,) = points[2].trials
    assert pruned.reason.startswith("val/loss at step ")
    assert pruned.reason.endswith(", median")
    assert len((pruned.folder / "steps.txt").read_text().split()) < 10
    assert points[2].value is None


def test_by_halving_only_the_best_at_each_rung_go_on(tmp_path, befalls):
    befalls({"trial-0001-seed-0": {"step_seconds": 1}})  # time enough to be pruned in
    grid = {"lr": {"choice": [0.1, 5.0, 0.05]}}
    settings = {"space": grid, "sampler": Sampler.grid, "trials": None, "jobs": 1}
    points = run(
        stub_study(tmp_path / "s", **settings, pruner=Pruner.successive_halving), module=STUB
    )
    assert states(points) == ["complete", "pruned", "complete"]
    assert points[1].trials[0].reason.endswith(", successive_halving")


def test_a_pruned_point_is_pruned_with_all_of_its_seeds(tmp_path, befalls):
    befalls({"*": {"step_seconds": 0.05}})
    space = {"lr": {"choice": [0.1, 0.2, 5.0]}}
    settings = {"space": space, "sampler": Sampler.grid, "trials": None, "seeds": 3}
    settings |= {"pruner": Pruner.median, "prune_after_trials": 1, "prune_after_steps": 2}
    point = run(stub_study(tmp_path / "s", **settings), module=STUB)[-1]
    assert point.state is State.pruned
    assert State.running not in {one.state for one in point.trials}
    assert point.trials[0].state is State.pruned


def test_a_point_pruned_at_its_last_step_is_no_mean_of_fewer_seeds(tmp_path, befalls):
    befalls({"trial-0001-seed-0": {"saves_until_asked": True, "worse_at_last": 9}})
    settings = {"trials": 2, "seeds": 3, "jobs": 1, "sampler": Sampler.random}
    settings |= {"pruner": Pruner.median, "prune_after_trials": 1}
    study = stub_study(tmp_path / "s", **settings)
    kept, _ = begun(study)
    lr = {"lr": FloatDistribution(0.0, 1.0)}
    better = {"value": 1.0, "intermediate_values": {10: 0.0}}
    kept.add_trial(create_trial(params={"lr": 0.0}, distributions=lr, **better))
    _, point = run(study, module=STUB)
    assert point.state is State.pruned
    assert [one.state for one in point.trials] == [State.complete]


def test_a_target_that_is_not_reached_is_infinitely_far(tmp_path, befalls):
    befalls({"trial-0001-seed-0": {"loss": 1.5}})
    study = stub_study(tmp_path / "s", goal=["steps"], stop_at="val/loss:1", trials=2)
    assert [point.value for point in run(study, module=STUB)] == [10, math.inf]


def test_a_grid_is_tried_whole_and_in_order(tmp_path):
    space = {"lr": {"log_range": [0.01, 1.0], "num": 3}, "x": {"choice": ["a", "b"]}}
    settings = {"space": space, "sampler": Sampler.grid, "trials": None}
    points = run(stub_study(tmp_path / "s", **settings), module=STUB)
    assert [tuple(point.params.values()) for point in points] == [
        (lr, x) for lr in (0.01, 0.1, 1.0) for x in "ab"
    ]


@pytest.mark.parametrize("sampler", [Sampler.tpe, Sampler.cmaes, Sampler.nsga2])
def test_every_sampler_goes_on_after_a_stop_whatever_it_was_told(tmp_path, befalls, sampler):
    if sampler is Sampler.cmaes:
        pytest.importorskip("cmaes")
    space = {"lr": {"range": [0.0, 1.0]}, "x": {"range": [1, 9]}}
    goals = ["steps", "val/loss"] if sampler is Sampler.nsga2 else ["steps"]
    befalls({"trial-0001-seed-0": {"loss": 1.5}, "trial-0007-seed-0": {"loss": 1.5}})
    for trials in (5, 12):
        study = stub_study(tmp_path / "s", space=space, goal=goals, sampler=sampler, trials=trials)
        points = run(study, module=STUB)
    assert states(points) == ["complete"] * 12
    assert len({tuple(point.params.values()) for point in points}) == 12


def test_the_threads_are_divided_among_the_slots(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launch, "cpus", lambda: 8)
    run(stub_study(tmp_path / "s", trials=1, jobs=2), module=STUB)
    assert (runs(tmp_path / "s")[0] / "starts.txt").read_text() == "4\n"


def test_plain_optuna_reads_the_database(tmp_path):
    points = run(stub_study(tmp_path / "s"), module=STUB)
    url = f"sqlite:///{tmp_path / 's' / 'study.db'}"
    study = optuna.load_study(study_name="s", storage=url)
    assert study.best_value == min(point.value for point in points)
    assert folder_points(tmp_path / "s") == points


def ended_after(process, lines: int) -> int | None:
    """Kill a study when so many trials have ended; its exit code if it ends before."""
    for _ in range(lines):
        if not process.stdout.readline():
            return process.wait()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return None


def killed_every(folder: Path, i: int, trials: int) -> None:
    for _ in range(trials + 2):
        process = start(folder, trials, STUB=json.dumps({"*": {"step_seconds": 0.02}}))
        code = ended_after(process, i)
        process.stdout.close()
        process.stderr.close()
        if code is not None:
            assert code == 0
            return
    raise AssertionError("it never comes to its end")


def test_a_study_that_is_killed_ends_with_exactly_what_was_asked(tmp_path):
    killed_every(tmp_path / "s", 2, trials=5)
    assert states(folder_points(tmp_path / "s")) == ["complete"] * 5
    assert len(runs(tmp_path / "s")) == 5
    assert is_whole(tmp_path / "s")


@pytest.mark.slow
@pytest.mark.parametrize("i", range(1, 13))
def test_a_study_killed_after_every_ith_trial_ends_with_twelve(tmp_path, i):
    killed_every(tmp_path / "s", i, trials=12)
    assert states(folder_points(tmp_path / "s")) == ["complete"] * 12
    assert len(runs(tmp_path / "s")) == 12
    assert is_whole(tmp_path / "s")


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(8))
def test_a_study_killed_at_any_moment_ends_with_twelve(tmp_path, moment):
    folder = tmp_path / "s"
    for sign in ("study.db", "study.yaml", "study.yaml"):  # written in this order by every start
        (folder / "study.yaml").unlink(missing_ok=True)
        process = start(folder, 12, STUB=json.dumps({"*": {"step_seconds": 0.02}}))
        while not (folder / sign).exists():
            assert process.poll() is None
        time.sleep(moment / 10)
        process.kill()  # the study alone: its trials leave by themselves
        process.communicate()
    process = start(folder, 12)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert states(folder_points(folder)) == ["complete"] * 12
    assert is_whole(folder)


def test_no_trial_outlives_its_study(tmp_path):
    process = start(tmp_path / "s", 2, STUB=json.dumps({"*": {"step_seconds": 60}}))
    while len(list((tmp_path / "s").glob("trial-*/starts.txt"))) < 2:
        time.sleep(0.05)
    locks = [json.loads((one / "lock").read_text()) for one in runs(tmp_path / "s")]
    process.kill()
    process.communicate()
    until(lambda: not any(Path(f"/proc/{lock['pid']}").exists() for lock in locks))


@pytest.mark.parametrize("number", ASKED)
def test_a_signal_is_passed_on_and_the_study_goes_on_later(tmp_path, number):
    process = start(tmp_path / "s", 2, STUB=json.dumps({"*": {"step_seconds": 0.2}}))
    while len(list((tmp_path / "s").glob("trial-*/steps.txt"))) < 2:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert errors.startswith("error: ")
    assert states(folder_points(tmp_path / "s")) == ["running"] * 2
    points = run(stub_study(tmp_path / "s", trials=2), module=STUB)
    assert states(points) == ["complete"] * 2
    assert is_whole(tmp_path / "s")
    assert points[0].trials[0].state is State.complete


def test_two_processes_on_one_study_never_run_the_same_trial(tmp_path):
    slow = {"STUB": json.dumps({"*": {"step_seconds": 0.03}})}
    both = [start(tmp_path / "s", 8, **slow) for _ in range(2)]
    told = []
    for process in both:
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        told.append(out.split())
    assert Counter(told[0] + told[1]) == Counter(f"trial-{i:04d}-seed-0" for i in range(8))
    assert min(map(len, told)) >= 1
    assert all(len((one / "starts.txt").read_text().split()) == 1 for one in runs(tmp_path / "s"))
    assert is_whole(tmp_path / "s")


def test_what_a_killed_process_of_two_had_begun_the_other_finishes(tmp_path):
    slow = {"STUB": json.dumps({"*": {"step_seconds": 0.05}})}
    one, other = (start(tmp_path / "s", 8, **slow) for _ in range(2))
    assert one.stdout.readline()
    one.kill()
    one.communicate()
    _, errors = other.communicate()
    assert other.returncode == 0, errors
    assert states(folder_points(tmp_path / "s")) == ["complete"] * 8
    assert is_whole(tmp_path / "s")


def test_a_second_ctrl_c_waits_for_nobody(tmp_path):
    deaf = {"step_seconds": 60, "deaf": True}
    process = start(tmp_path / "s", 2, STUB=json.dumps({"*": deaf}))
    while len(list((tmp_path / "s").glob("trial-*/receipt.json"))) < 2:
        time.sleep(0.05)
    pids = [json.loads((one / "lock").read_text())["pid"] for one in runs(tmp_path / "s")]
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)  # a patient end takes LEAVING_S
    assert process.returncode == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_trials_that_begin_together_count_what_they_wait_for_together(tmp_path):
    waits = []

    def late(what):
        if not waits:
            time.sleep(0.5)  # the imports, for which the first has to wait
        waits.append(what)
        return spawn(what)

    points = run(stub_study(tmp_path / "s", trials=2), module=STUB, start=late)
    assert len(waits) == 2
    assert all(point.trials[0].seconds > 0.5 for point in points)
