"""A study from its settings to its results."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import optuna
import yaml

from gpt2lab.durable import write_whole
from gpt2lab.errors import ConfigError, RunError
from gpt2lab.sweep.claims import Claims
from gpt2lab.sweep.goals import directions
from gpt2lab.sweep.process import Process, Start, spawn
from gpt2lab.sweep.results import failures
from gpt2lab.sweep.sampling import check_installed, pruner
from gpt2lab.sweep.scheduler import Scheduler
from gpt2lab.sweep.storage import (
    check_same,
    failing_as,
    open_storage,
    open_study,
    place,
)
from gpt2lab.sweep.study import DATABASE, FILE, Study, check_place
from gpt2lab.sweep.trials import Point, State, Trial, points_of, stem_of

TRAIN = "gpt2lab.train"


def run(
    study: Study,
    on_trial: Callable[[Trial, int, int], None] = lambda trial, ended, total: None,
    module: str = TRAIN,
    start: Callable[[Start], Process] = spawn,
) -> list[Point]:
    """Run what is missing of a study; all of its points.

    Args:
        on_trial: told of each trial that has ended here, and how many points have of how many.
        module: the command line that a trial is; train's, but for tests.
        start: makes the process of a trial.
    Raises:
        ConfigError: if the study, its folder or its database are not what they should be.
        RunError: if no trial is complete, or one has failed with on_fail=stop.
        Signalled: after SIGTERM or Ctrl-C.
    """
    check_installed(study.config)
    kept, claims = begun(study)
    with failing_as(RunError, place(study.config.storage, study.folder)), closing(claims):
        Scheduler(study, kept, claims, study.slots, start, module, on_trial).run()
        points = points_of(kept, study.folder)
    if points and all(point.state is State.failed for point in points):
        first = failures(points)[0]
        raise RunError(f"{study.folder}: every trial has failed, the first by: {first.reason}")
    return points


def begun(study: Study) -> tuple[optuna.Study, Claims]:
    """The study's folder and database, new or as they are, and this process's claims on it.

    Raises:
        ConfigError: if they cannot be, or are another study's; a folder that is new is gone again.
    """
    check_place(study)
    with _folder(study.folder), failing_as(ConfigError, place(study.config.storage, study.folder)):
        storage = open_storage(study.config.storage, study.folder)
        kept = open_study(storage, study.name, directions(study.config))
        claims = Claims(storage.engine, kept._study_id)
        with claims.alone():
            check_no_strangers(kept, study.folder)
            check_same(kept, study.definition())
            write_whole(study.folder / FILE, as_yaml(study).encode())
    kept.pruner = pruner(study.config, study.settings.eval_every)
    return kept, claims


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """A folder that is there in the body, and gone if it is new and the body fails.

    Raises:
        ConfigError: if it cannot be made, or nothing can be written in it.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        if is_new and not (folder / FILE).exists():
            with suppress(OSError):
                for file in folder.glob(f"{DATABASE}*"):
                    file.unlink()
                folder.rmdir()
        if isinstance(error, OSError):
            raise ConfigError(
                f"runs_dir: {folder} cannot be written ({error.strerror}); choose another folder"
            ) from error
        raise


def check_no_strangers(kept: optuna.Study, folder: Path) -> None:
    """
    Raises:
        ConfigError: if there are runs that the database knows nothing of; they would be taken for
            trials of its points.
    """
    found = sorted(folder.glob("trial-*"))
    known = {stem_of(trial.number) for trial in kept.get_trials(deepcopy=False)}
    strangers = [one.name for one in found if one.name.partition("-seed-")[0] not in known]
    if strangers:
        raise ConfigError(
            f"{folder}: holds {strangers[0]}, which its database does not know; "
            "bring back the database, or choose another name="
        )


def as_yaml(study: Study) -> str:
    return yaml.safe_dump(study.public(), sort_keys=False, allow_unicode=True, width=100)


def folder_points(folder: Path, storage: str | None = None) -> list[Point]:
    """The points of a study by its folder, whoever ran it.

    Args:
        storage: the database, where it is not in the folder.
    Raises:
        ConfigError: if the database cannot be read, or knows no such study.
    """
    opened, where = open_storage(storage, folder), place(storage, folder)
    with failing_as(ConfigError, where), ExitStack() as at_the_end:
        at_the_end.callback(opened.engine.dispose)
        try:
            return points_of(optuna.load_study(study_name=folder.name, storage=opened), folder)
        except KeyError as error:
            raise ConfigError(
                f"{where}: holds no study {folder.name}; give the database that does"
            ) from error
