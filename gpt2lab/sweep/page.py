"""report.html: one file without a script, which opens anywhere and asks nobody for anything."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from gpt2lab.sweep.answers import front, table_of_choices
from gpt2lab.sweep.experiment import command
from gpt2lab.sweep.goals import directions
from gpt2lab.sweep.pictures import has_interval
from gpt2lab.sweep.results import (
    best,
    certainty,
    counted,
    counts,
    failures,
    in_order,
    numbered,
    params_text,
    row,
    with_interval,
)
from gpt2lab.sweep.study import Study
from gpt2lab.sweep.trials import Point, State

MOST_ROWS = 200
"""Points in the page's table; the database has all."""

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --pale: #6b7280; --line: #d6dae0;
  --mark: #b3540e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e3e6ea; --pale: #9aa3af;
  --line: #343a42; --mark: #f0a05a; } }
body { margin: 0 auto; max-width: 760px; padding: 16px; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.35em; line-height: 1.25; margin: .2em 0 .6em; }
h2 { font-size: 1.05em; margin: 1.8em 0 .4em; }
.pale, figcaption { color: var(--pale); font-size: .88em; }
.answer { border-left: 3px solid var(--mark); padding-left: 12px; }
figure { margin: 1.6em 0; }
.wide { overflow-x: auto; }
svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: .88em; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
td.long { white-space: normal; min-width: 14em; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: 8px 10px; font-size: .85em; }
"""


def page(study: Study, points: Sequence[Point], pictures: Mapping[str, str]) -> str:
    """
    Args:
        pictures: svg elements by their names.
    """
    body = [
        f"<h1>{escape(study.config.question)}</h1>",
        f"<p class=pale>{escape(_state(study, points))}</p>",
        *_answer(study, points),
        *_choices(study, points),
        *(_figure(svg, caption(study, points, name)) for name, svg in pictures.items()),
        *_points(study, points),
        *_failed(points),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        # Even if a text in it were made to, the page could load nothing and run nothing.
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(study.name)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def caption(study: Study, points: Sequence[Point], name: str) -> str:
    """What a picture shows, of what is in it."""
    complete = [point for point in points if point.values]
    thick = " The best is thick." if best(study, points) else ""
    if name == "parameters":
        seeds = " Pale dots are seeds." if any(len(p.trials) > 1 for p in complete) else ""
        bars = " Bars are 95 % intervals." if any(map(has_interval, complete)) else ""
        goals = "the goal" if len(study.config.goal) == 1 else "each goal"
        return f"Each parameter against {goals}.{seeds}{bars}"
    if name == "parallel":
        return f"Each line is a point: its settings, and what it reached.{thick}"
    if name == "curves":
        states = [one.state for point in points for one in point.trials]
        ended = all(state is State.complete for state in states)
        return f"Learning curves.{thick}" + ("" if ended else f" Dotted: {_unended(states)}.")
    return {
        "trade_offs": "Goals against each other. Points with a ring are bettered by none in all.",
        "importance": "What sets the best tenth of the points apart from the others.",
    }[name]


def _unended(states: Sequence[State]) -> str:
    """`pruned or not at their end`."""
    words = {"pruned": State.pruned, "failed": State.failed, "not at their end": State.running}
    return " or ".join(word for word, state in words.items() if state in states)


def _state(study: Study, points: Sequence[Point]) -> str:
    found = ", ".join(f"{n} {name}" for name, n in counts(points).items() if n) or "none begun"
    asked = counted(study.points_asked, "point")
    ways = zip(study.config.goal, directions(study.config), strict=True)
    wanted = ", ".join(f"{goal} ({direction.name})" for goal, direction in ways)
    seeds = f", {study.config.seeds} seeds each" if study.config.seeds > 1 else ""
    base = " ".join(study.shown_overrides)
    return f"Study {study.name}: {asked} asked for{seeds}; {found}. Goal: {wanted}. Base: {base}"


def _answer(study: Study, points: Sequence[Point]) -> Iterable[str]:
    chosen = best(study, points)
    if chosen is None:
        has_values = any(point.values for point in points)
        text = "No point has reached its target." if has_values else "No point is complete."
        yield f"<p class=answer>{text}</p>"
        return
    names = study.config.goal
    ends = zip(names, _reached(chosen), strict=True)
    reached = ", ".join(f"{name} {told}" for name, told in ends)
    text = f"Best: point {chosen.number}, {params_text(chosen.params)}: {reached}."
    if len(names) > 1:
        told = numbered(front(points, directions(study.config)))
        text = (
            f"Bettered by none in all goals: {told}. Of {names[0]} alone, the best is "
            f"point {chosen.number}, {params_text(chosen.params)}: {reached}."
        )
    yield f"<p class=answer>{escape(text)} {escape(certainty(study, points))}</p>"
    yield f"<pre>{escape(command(study))}</pre>"


def _choices(study: Study, points: Sequence[Point]) -> Iterable[str]:
    head, rows = table_of_choices(study, points)
    if rows:
        yield "<h2>The best of each choice</h2>"
        yield _table(head, rows)


def _points(study: Study, points: Sequence[Point]) -> Iterable[str]:
    names, goals = [p.name for p in study.space], study.config.goal
    rows = [[str(p.number), *row(p, names, len(goals))] for p in in_order(study, points)]
    if rows:
        yield "<h2>Points</h2>"
        yield _table(["point", *names, *goals], rows[:MOST_ROWS])
    if (left := len(rows) - MOST_ROWS) > 0:
        yield f"<p class=pale>{counted(left, 'more point')} in the database.</p>"


def _reached(point: Point) -> list[str]:
    return [with_interval(point, i) for i in range(len(point.values))]


def _failed(points: Sequence[Point]) -> Iterable[str]:
    found = failures(points)
    if found:
        yield "<h2>Failed trials</h2>"
        yield _table(["trial", "why"], [[one.folder.name, str(one.reason)] for one in found], True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], has_text: bool = False) -> str:
    """
    Args:
        has_text: whether the last column is prose.
    """
    last = "<td class=long>" if has_text else "<td>"
    cells = "".join(f"<th>{escape(name)}" for name in head)
    lines = [
        "<tr>" + "".join(f"<td>{escape(c)}" for c in row[:-1]) + f"{last}{escape(row[-1])}"
        for row in rows
    ]
    return f"<div class=wide><table><tr>{cells}\n" + "\n".join(lines) + "\n</table></div>"


def _figure(svg: str, caption: str) -> str:
    named = svg.replace('role="img"', f'role="img" aria-label="{escape(caption)}"', 1)
    return (
        f"<figure><div class=wide>{named}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )
