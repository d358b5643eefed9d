"""What a study leaves for its reader: a page, its pictures, and the best settings to train with."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2lab.config.redact import REDACTED
from gpt2lab.durable import write_whole
from gpt2lab.errors import ConfigError
from gpt2lab.sweep.answers import best, best_of_choices, front
from gpt2lab.sweep.experiment import EXPERIMENT, command, experiment
from gpt2lab.sweep.goals import directions
from gpt2lab.sweep.page import page
from gpt2lab.sweep.pictures import PICTURES, draw
from gpt2lab.sweep.results import value_text, with_interval
from gpt2lab.sweep.storage import DATABASE
from gpt2lab.sweep.study import FILE, Study, load, read
from gpt2lab.sweep.trials import Point

PAGE = "report.html"


def write(study: Study, points: Sequence[Point]) -> None:
    """All of it as things stand, in the study's folder; what there was before is replaced."""
    elements = {}
    for name in PICTURES:
        picture = study.folder / f"{name}.png"
        if drawn := draw(study, points, name):
            png, elements[name] = drawn
            write_whole(picture, png)
        else:
            picture.unlink(missing_ok=True)
    write_whole(study.folder / PAGE, page(study, points, elements).encode())
    file = study.folder / EXPERIMENT
    if (chosen := best(study, points)) is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(exist_ok=True)
    write_whole(file, experiment(study, chosen.params).encode())


def tell(study: Study, points: Sequence[Point]) -> None:
    """In the terminal, what the table of points does not say by itself."""
    console = Console()
    varied = [p.name for p in study.space if not p.choice]
    if found := best_of_choices(study, points):
        table = Table("the best of", *varied, study.config.goal[0], "point")
        for name, point in found.items():
            told = [value_text(point.params[key]) for key in varied]
            cells = [name, *told, with_interval(point), str(point.number)]
            table.add_row(*map(Text, cells))
        console.print(table)
    if len(study.config.goal) > 1:
        numbers = ", ".join(str(p.number) for p in front(points, directions(study.config)))
        console.print(f"bettered by none in all goals: points {numbers}")
    if best(study, points) is not None:
        console.print(Text(f"train as the best: {command(study)}"), soft_wrap=True)
    console.print(Text(f"report: {study.folder / PAGE}"), soft_wrap=True)


def of_folder(word: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Study:
    """A study that has been begun, by its folder.

    Raises:
        ConfigError: if there is none.
    """
    if not word:
        raise ConfigError("sweep report: no study is named; give its folder, such as runs/sort_lr")
    folder = Path(word)
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder}: is not the folder of a study; give one, such as runs/sort_lr")
    base = [one for one in read(folder / FILE).get("base", []) if REDACTED not in one]
    where = [f"name={folder.resolve().name}", f"runs_dir={folder.parent}"]
    told = [f"study.base={json.dumps(base)}", *overrides, *where]
    study = load(str(folder / FILE), told, config_dirs)
    if study.config.storage is None and not (folder / DATABASE).is_file():
        raise ConfigError(f"{folder / DATABASE}: is not there; give study.storage=<its database>")
    return study
