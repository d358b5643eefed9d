"""python -m gpt2lab.sweep <study>: run what is missing of a study, and say what it found."""

import gc
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.errors import ConfigError, RunError
from gpt2lab.sweep.process import Process, Start
from gpt2lab.sweep.study import Study, check, check_place, load, of_folder, questions

if TYPE_CHECKING:
    from gpt2lab.sweep.trials import Point

REPORT = "report"

PURPOSE = """\
Run a study: trainings that differ in a few settings, side by side, until a question is answered.
Settings of train (max_steps=50) reach every trial, study.<setting>= changes the study. The same
command, given again, finishes what is missing. `sweep report <folder of a study>` says anew what
it has found so far, and writes its page and pictures.

studies
"""


def main() -> int:
    has_help = {"--help", "-h"} & set(sys.argv[1:])
    flags = arguments("sweep", PURPOSE + questions() if has_help else "")
    words = [word for word in flags.overrides if "=" not in word and not word.startswith("~")]
    is_report = words[:1] == [REPORT]
    asked = words[1:] if is_report else words
    if len(asked) > 1:
        raise ConfigError(f"sweep: {' '.join(asked)} are several studies; name one at a time")
    if find_spec("optuna") is None:
        raise ConfigError("sweep: optuna is not installed; pip install 'gpt2lab[sweep]'")
    overrides = [word for word in flags.overrides if word not in words]
    word = asked[0] if asked else ""
    if is_report:
        return _report(word, overrides, flags.config_dir)
    from gpt2lab.launch import check_devices
    from gpt2lab.launch.started import forget_ranks
    from gpt2lab.sweep.warm import starting
    from gpt2lab.train import check_and_prepare

    forget_ranks()  # tasks of srun are processes that share a study
    study = load(word, overrides, flags.config_dir)
    if flags.cfg:
        check(study, check_and_prepare)
        print_settings({"study": study.public(), **study.printable})
        return 0
    check_devices(study.settings)
    check_place(study)
    with starting(study) as start:  # trials' imports, while this process checks and has its own
        check(study, check_and_prepare)
        return _run(study, start)


def _run(study: Study, start: Callable[[Start], Process]) -> int:
    from gpt2lab.sweep.results import line
    from gpt2lab.sweep.run import folder_points, run

    # The page's libraries take seconds to load, while the first trials wait for theirs.
    Thread(target=import_module, args=["gpt2lab.sweep.report"], daemon=True).start()
    try:
        points = run(study, lambda *told: print(line(*told), flush=True), start=start)
    except RunError:
        with suppress(ConfigError):  # the database, which may be what has failed
            _tell(study, folder_points(study.folder, study.config.storage))
        raise
    return _tell(study, points)


def _report(word: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> int:
    study = of_folder(word, overrides, config_dirs)  # before Optuna is loaded
    from gpt2lab.sweep.run import folder_points

    return _tell(study, folder_points(study.folder, study.config.storage))


def _tell(study: Study, points: "list[Point]") -> int:
    from gpt2lab.sweep import report, results

    results.show(study, points)
    try:
        report.write(study, points)
        report.tell(study, points)
    except OSError as error:  # what was found is in the database
        warnings.warn(
            f"{study.folder}: {error.strerror}; make room, and python -m gpt2lab.sweep report "
            f"{study.folder}",
            stacklevel=1,
        )
    told = json.dumps(results.as_json(study, points)) if study.json else study.folder
    print(told, flush=True)
    gc.freeze()  # the database is closed; to look for garbage among libraries takes half a second
    return 0


if __name__ == "__main__":
    show_errors(main)
