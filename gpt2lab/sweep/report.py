"""What a study leaves for its reader: a page, its pictures, and the best settings to train with."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2lab.durable import write_whole
from gpt2lab.sweep.answers import front, table_of_choices
from gpt2lab.sweep.experiment import EXPERIMENT, command, experiment
from gpt2lab.sweep.goals import directions
from gpt2lab.sweep.page import page
from gpt2lab.sweep.pictures import PICTURES, draw
from gpt2lab.sweep.results import best, numbered
from gpt2lab.sweep.study import Study
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
    head, rows = table_of_choices(study, points)
    if rows:
        table = Table(*head)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    if len(study.config.goal) > 1:
        told = numbered(front(points, directions(study.config)))
        console.print(f"bettered by none in all goals: {told}")
    if best(study, points) is not None:
        console.print(Text(f"train as the best: {command(study)}"), soft_wrap=True)
    console.print(Text(f"report: {study.folder / PAGE}"), soft_wrap=True)
