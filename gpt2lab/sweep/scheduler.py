"""The study's own process: begins trials, watches them, records what became of them.

All that must outlive it is in the database before anything follows from it, so that it may be
killed anywhere: another takes up the points whose process is gone, and of them the trials that
have no end yet, each in the run folder that it has.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gpt2lab.config import OnFail, Pruner
from gpt2lab.errors import RunError
from gpt2lab.signals import ASKED, Signalled
from gpt2lab.sweep import goals, outcome, space
from gpt2lab.sweep.claims import Claims
from gpt2lab.sweep.outcome import Outcome
from gpt2lab.sweep.process import UNKNOWN, Process, Start
from gpt2lab.sweep.sampling import next_point, sampler
from gpt2lab.sweep.slots import Slot
from gpt2lab.sweep.study import Study
from gpt2lab.sweep.trials import SEED, State, Trial, name_of, trials_of
from gpt2lab.sweep.watch import Watch

POLL_S = 0.05
"""How often trials are looked at."""
IDLE_S = 1.0
"""How often the database is asked for work while there is none."""
OUTPUT = "output"
"""The folder of what trials write to stdout and stderr."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class Held:
    """A point that is this process's.

    Args:
        waiting: seeds whose trial is to be begun, or gone on with.
    """

    trial: optuna.Trial
    waiting: list[int] = field(default_factory=list)
    running: int = 0

    @property
    def id(self) -> int:
        return self.trial._trial_id

    def told(self, seed: int) -> dict[str, Any]:
        return dict(self.trial.user_attrs.get(f"{SEED}{seed}", {}))

    def tell(self, seed: int, **facts: Any) -> None:
        self.trial.set_user_attr(f"{SEED}{seed}", {**self.told(seed), **facts})


@dataclass
class Running:
    """A trial at work."""

    held: Held
    seed: int
    slot: Slot
    process: Process
    folder: Path
    watch: Watch | None = None
    is_lost: bool = False
    """Whether its point is another machine's by now."""


class Scheduler:
    """
    Args:
        study: what is asked.
        optuna_study: where it is kept.
        claims: on its points, of this process.
        slots: where trials run.
        start: makes the process of a trial.
        module: the command line that a trial is; train's, but for tests.
        on_trial: told of each trial that has ended, and how many points have of how many.
    """

    def __init__(
        self,
        study: Study,
        optuna_study: optuna.Study,
        claims: Claims,
        slots: Sequence[Slot],
        start: Callable[[Start], Process],
        module: str,
        on_trial: Callable[[Trial, int, int], None],
    ) -> None:
        self.study = study
        self.config = study.config
        self.optuna_study = optuna_study
        self.claims = claims
        self.free = list(slots)
        self.start = start
        self.module = module
        self.on_trial = on_trial
        self.held: dict[int, Held] = {}
        self.running: list[Running] = []
        self.signal: int | None = None
        self.failure: Trial | None = None
        """The trial that ends the study, with on_fail=stop."""
        self._asks_at = 0.0
        self._is_over = False
        (study.folder / OUTPUT).mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Until every point has an end, whoever brings it about.

        Raises:
            Signalled: after SIGTERM, SIGUSR1 or Ctrl-C, once the trials have saved and left.
            RunError: with on_fail=stop, if a trial has failed.
        """
        with self._listening():
            try:
                while not self._is_over and not self._is_leaving:
                    self._tick()
                    time.sleep(POLL_S)
                self._leave()
            except BaseException:
                self._part()
                raise
        if self.signal is not None:
            raise Signalled(self.signal)
        if self.failure is not None:
            raise RunError(
                f"{self.failure.folder}: {self.failure.reason}; "
                "mend it and start the study again, or go on without it: study.on_fail=continue"
            )

    @property
    def _is_leaving(self) -> bool:
        """Whether trials are on their way out, to go on when the study does."""
        return self.signal is not None or self.failure is not None

    def _tick(self) -> None:
        still = self.claims.beat()
        if still is not None:
            for id in self.held.keys() - still:
                self._lose(id)
        self._look()
        asked = time.monotonic()  # those that begin together wait for the same imports
        while self.free and not self._is_leaving and (work := self._next()) is not None:
            self._begin(*work, asked)

    def _lose(self, id: int) -> None:
        """A point that another machine has taken, having heard nothing for long."""
        del self.held[id]
        for one in self.running:
            if one.held.id == id:
                one.is_lost = True
                one.process.kill()

    # What there is to do

    def _next(self) -> tuple[Held, int] | None:
        """A trial to begin: of a point that is at work, of one taken up, or of a new one."""
        for held in self.held.values():
            if held.waiting:
                return held, held.waiting.pop(0)
        if time.monotonic() < self._asks_at:
            return None
        found = self._another_point()
        if found is None:
            self._asks_at = time.monotonic() + IDLE_S
            return None
        return (found, found.waiting.pop(0)) if found.waiting else None

    def _another_point(self) -> Held | None:
        with self.claims.choosing() as is_ours:
            if not is_ours:
                return None
            known = self.optuna_study.get_trials(deepcopy=False)
            begun = [trial for trial in known if trial.state is not TrialState.WAITING]
            for trial in begun:
                is_free = trial.state is TrialState.RUNNING and trial._trial_id not in self.held
                if is_free and self.claims.take(trial._trial_id):
                    return self._take_up(trial)
            if len(begun) < self.study.points_asked:
                new = next_point(self.optuna_study, self.config, self.study.space)
                if new is not None:
                    is_ours = self.claims.take(new._trial_id)
                    return self._hold(new, self.study.seeds) if is_ours else None
        self._is_over = not self.held and all(trial.state in FINISHED for trial in begun)
        return None

    def _hold(self, trial: optuna.Trial, seeds: list[int]) -> Held:
        held = Held(trial, list(seeds))
        self.held[held.id] = held
        return held

    def _take_up(self, known: FrozenTrial) -> Held:
        """A point whose process is gone: what has no end yet is waiting again."""
        self.optuna_study.sampler = sampler(self.config, known.number)
        trial = optuna.Trial(self.optuna_study, known._trial_id)
        space.draw(trial, self.study.space)
        told = trials_of(known, self.study.folder)
        ended = {one.seed for one in told if one.state is not State.running}
        held = self._hold(trial, [seed for seed in self.study.seeds if seed not in ended])
        if pruned := [one for one in told if one.state is State.pruned]:
            self._give_up(held, pruned[0].reason or "")
        self._finish_if_all_ended(held)
        return held

    # Trials

    def _begin(self, held: Held, seed: int, asked: float) -> None:
        folder = self.study.folder / name_of(held.trial.number, seed)
        held.running += 1
        found = outcome.finished(folder, self.config.goal, self.study.settings.stop_at)
        if found is not None:  # it ended while nobody watched
            self._record(held, seed, found, 0.0)
            return
        told = space.merged(
            self.study.overrides,
            space.overrides(held.trial.params, self.study.space),
            [f"seed={seed}", f"name={folder.name}", "resume=auto"],
            [f"runs_dir={space.quoted(str(self.study.folder))}"],
        )
        told += [f"--config-dir={path}" for path in self.study.config_dirs]
        held.tell(seed, state=State.running.value, runs_dir=str(self.study.folder.absolute()))
        slot = self.free.pop(0)
        output = self.study.folder / OUTPUT / f"{folder.name}.txt"
        process = self.start(Start(self.module, told, slot.environment, output, asked))
        self.running.append(
            Running(held, seed, slot, process, folder, self._watch(held, seed, folder))
        )

    def _watch(self, held: Held, seed: int, folder: Path) -> Watch | None:
        """A point is judged by the first of its seeds."""
        if self.config.pruner is Pruner.none or seed != self.study.seeds[0]:
            return None
        (goal,), (direction,) = self.config.goal, goals.directions(self.config)
        metric = goals.curve(goal, self.study.settings)
        known = self.optuna_study._storage.get_trial(held.id)
        return Watch(
            folder / "metrics.csv",
            metric,
            goals.is_turned(goal, direction, metric),
            held.trial,
            known.last_step,
        )

    def _look(self) -> None:
        for one in list(self.running):
            code = one.process.poll()
            if code is not None:
                self._end(one, code)
            elif (
                one.watch is not None
                and not one.process.was_asked_to_leave
                and one.watch.should_prune()
            ):
                self._prune(one)

    def _prune(self, one: Running) -> None:
        """All trials of its point; that is known before they are asked to leave."""
        assert one.watch is not None
        reason = f"{one.watch.metric} at step {one.watch.last_step}, {self.config.pruner.name}"
        self._give_up(one.held, reason)
        for other in self.running:
            if other.held is one.held:
                other.process.terminate()

    def _give_up(self, held: Held, reason: str) -> None:
        """Of a point's trials, those that have begun are pruned, the others are not run."""
        held.waiting.clear()
        for seed in self.study.seeds:
            if held.told(seed).get("state") == State.running.value:
                held.tell(seed, state=State.pruned.value, reason=reason)

    def _end(self, one: Running, code: int) -> None:
        self.running.remove(one)
        self.free.append(one.slot)
        self._asks_at = 0.0
        if one.is_lost:
            return
        seconds = one.process.seconds
        found = outcome.finished(one.folder, self.config.goal, self.study.settings.stop_at)
        told = one.held.told(one.seed)
        if found is None and told.get("state") == State.pruned.value:
            found = Outcome(State.pruned, reason=told["reason"], steps=outcome.steps_of(one.folder))
        if found is None and (self._is_leaving or code == UNKNOWN):
            one.held.running -= 1
            one.held.waiting.append(one.seed)
            one.held.tell(one.seed, seconds=self._seconds(one.held, one.seed, seconds))
            return
        has_ended = found is not None
        if found is None:
            found = outcome.failed(code, one.process.said(), one.folder)
        self._record(one.held, one.seed, found, seconds, is_to_retry=not has_ended)

    def _seconds(self, held: Held, seed: int, more: float) -> float:
        return round(held.told(seed).get("seconds", 0.0) + more, 3)

    def _record(
        self, held: Held, seed: int, found: Outcome, seconds: float, is_to_retry: bool = False
    ) -> None:
        """The end of a trial, which may be no end: one that failed may wait for another try.

        With on_fail=stop, that is the next start of the study.

        Args:
            is_to_retry: whether its run, which goes on, could come to something else.
        """
        held.running -= 1
        if not self.claims.holds(held.id):
            self._lose(held.id)
            return
        tries = held.told(seed).get("tries", 0) + 1
        has_failed = found.state is State.failed and is_to_retry
        again = has_failed and self._is_retried(tries)
        held.tell(
            seed,
            state=(State.running if again else found.state).value,
            values=list(found.values),
            reason=found.reason,
            steps=found.steps,
            seconds=self._seconds(held, seed, seconds),
            tries=tries,
        )
        if again:
            held.waiting.append(seed)
        else:
            self._finish_if_all_ended(held)
        if not again or self.config.on_fail is OnFail.stop:
            self._report(held, seed, found.state)

    def _is_retried(self, tries: int) -> bool:
        if self.config.on_fail is OnFail.retry:
            return tries <= self.config.retries
        return self.config.on_fail is OnFail.stop

    def _report(self, held: Held, seed: int, state: State) -> None:
        known = self.optuna_study.get_trials(deepcopy=False)
        ended = sum(trial.state in FINISHED for trial in known)
        frozen = next(trial for trial in known if trial._trial_id == held.id)
        trials = trials_of(frozen, self.study.folder)
        one = next(replace(one, state=state) for one in trials if one.seed == seed)
        if one.state is State.failed and self.config.on_fail is OnFail.stop:
            self.failure = self.failure or one
        self.on_trial(one, ended, self.study.points_asked)

    def _finish_if_all_ended(self, held: Held) -> None:
        """The point's own end: the mean of its trials, if all of them are complete."""
        if held.waiting or held.running:
            return
        found = trials_of(self.optuna_study._storage.get_trial(held.id), self.study.folder)
        states = [one.state for one in found]
        if State.running in states:
            return
        if states == [State.complete] * self.config.seeds:
            of_goals = zip(*(one.values for one in found), strict=True)
            values = [sum(values) / len(values) for values in of_goals]
            self.optuna_study.tell(held.trial, values)
        elif State.failed in states:
            self.optuna_study.tell(held.trial, state=TrialState.FAIL)
        else:
            self.optuna_study.tell(held.trial, state=TrialState.PRUNED)
        del self.held[held.id]
        self.claims.release(held.id)

    # The end

    def _part(self) -> None:
        """Let what still runs save and leave, without a word to the database."""
        for one in self.running:
            one.process.terminate()
        while any(one.process.poll() is None for one in self.running):
            time.sleep(POLL_S)

    def _leave(self) -> None:
        """Ask what still runs to save and leave, and wait for it."""
        for one in self.running:
            one.process.terminate()
        while self.running:
            self._look()
            time.sleep(POLL_S)
        for held in list(self.held.values()):
            self.claims.release(held.id)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Signals become a wish; a second one is no patience, and kills the trials."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in ASKED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            for one in self.running:
                one.process.kill()
        self.signal = self.signal or number
