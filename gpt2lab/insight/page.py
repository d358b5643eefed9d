"""The page of an insight: everything in one file, which opens without a network."""

import json
from html import escape
from importlib.util import find_spec
from pathlib import Path

from gpt2lab.insight.captions import BORDER, CAPTIONS, MARKS, png_of
from gpt2lab.insight.findings import Findings

HERE = Path(__file__).parent

SHOWN = dict.fromkeys(("answer", "arcs", "head"), '<span class="chosen"></span>') | {
    "next": '<span id="next-of"></span>'
}
"""What our script writes behind a title: which head or token is shown."""


def has_plotly() -> bool:
    return find_spec("plotly") is not None


def page(found: Findings, name: str, facts: str, ablation: str) -> str:
    """The whole page as HTML.

    With plotly its script is inside and the pictures answer; without, they are the PNGs beside it.

    Args:
        name: of the checkpoint.
        facts: one line about the model.
        ablation: what stood for the output of a head: mean or zero.
    """
    is_live = has_plotly()
    pngs = {key: png_of(key) for key in found.parts()}
    last = {png: key for key, png in pngs.items()}
    body = ""
    for key, png in pngs.items():
        # One picture holds all tables of heads, and stands below the last of them.
        picture = live(key, png) if is_live else still(key, png) * (last[png] == key)
        body += part(key, caption(key, found, ablation), picture)
    style = (HERE / "page.css").read_text("utf-8")
    title = f"Inside {name}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="facts">{escape(facts)}</p>\n'
        f"{answers(found)}{controls() if is_live else ''}{text(found, is_live)}{body}"
        f"{scripts(found) if is_live else ''}</body>\n</html>\n"
    )


def caption(key: str, found: Findings, ablation: str) -> str:
    return CAPTIONS[key][1].format(
        ablation={"zero": "zero", "mean": "its mean over the text"}[ablation],
        wanted=found.text.wanted,
        marks=MARKS if found.text.right is not None else "",
        border=BORDER if found.text.question is not None else "",
    )


def part(key: str, caption: str, picture: str) -> str:
    """Title, caption and picture, one below the other."""
    title = CAPTIONS[key][0]
    of = f" <small>{SHOWN[key]}</small>" if key in SHOWN else ""
    return (
        f"<section>\n<h2>{escape(title)}{of}</h2>\n<figure>\n"
        f"<p>{escape(caption)}</p>\n{picture}</figure>\n</section>\n"
    )


def live(key: str, png: str) -> str:
    """A place for our script to draw in, and the way to the picture."""
    said = f'role="img" aria-label="{escape(CAPTIONS[key][0])}"'
    return (
        f'<div class="wide"><div class="plot" id="{key}" {said}></div></div>\n'
        f'<a class="png" href="{png}">as PNG</a>\n'
    )


def still(key: str, png: str) -> str:
    return f'<img src="{png}" alt="{escape(CAPTIONS[key][0])}">\n'


def controls() -> str:
    return (
        '<div class="controls">\n'
        '<label>layer <select id="layer"></select></label>\n'
        '<label>head <select id="of-head"></select></label>\n'
        '<label>token <select id="of-token"></select></label>\n</div>\n'
    )


def text(found: Findings, is_live: bool) -> str:
    """The tokens, one beside the other."""
    tag = 'button type="button"' if is_live else 'span class="token"'
    end = tag.split()[0]
    tokens = "".join(
        f'<{tag} title="token {t}, id {i}">{escape(shown)}</{end}>'
        for t, (shown, i) in enumerate(zip(found.labels, found.text.token_ids, strict=True))
    )
    cut = ""
    if found.text.cut is not None:
        read, given = found.text.cut
        cut = f"Of the prompt's {given:,} tokens it read the last {read}. "
    return (
        f"<h2>What it read: {len(found.labels)} tokens</h2>\n"
        f'<p class="facts">{cut}A space shows as ␣, the end of a line as ↵.</p>\n'
        f'<div class="text">{tokens}</div>\n'
    )


def answers(found: Findings) -> str:
    """Question, answer and right answer, where the model answers."""
    given, right, question = found.text.answer, found.text.right, found.text.question
    if given is None or question is None:
        return ""
    rows = [
        ("input", [f'<span class="token">{escape(x)}</span>' for x in found.labels[:question]]),
        (
            "answer",
            [
                f'<span class="token {mark}">{escape(found.show(token))}</span>'
                for mark, token in zip(found.text.marks, given, strict=True)
            ],
        ),
    ]
    if right is not None:
        rows.append(
            ("right answer", [f'<span class="token">{escape(found.show(i))}</span>' for i in right])
        )
    cells = "".join(f"<tr><th>{name}</th><td>{' '.join(row)}</td></tr>\n" for name, row in rows)
    return f"<table>\n{cells}</table>\n"


def scripts(found: Findings) -> str:
    """Plotly's, the numbers, and ours, none of which can end its own tag early."""
    from plotly.offline import get_plotlyjs

    numbers = json.dumps(found.numbers(), allow_nan=False).replace("<", "\\u003c")
    ours = (HERE / "page.js").read_text("utf-8")
    return (
        f"<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="numbers">{numbers}</script>\n'
        f"<script>\n{ours}</script>\n"
    )
