"""What the page shows of a model and a text, as HTML; every number is the model's own, rounded."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape

from gpt2lab.explorer.session import Side, Text
from gpt2lab.insight import Inside, label, logit_lens, next_tokens
from gpt2lab.insight.labels import labels, visible
from gpt2lab.tokenizer.stages import Piece, explained, pieces_of

DIGITS = 4
"""Behind the point, of every number."""
NUM_LIKELIEST = 10
MOST_IN_STRIP = 200
"""Tokens of the text that are shown; the last ones."""
MOST_LOOKED_INTO = 64
"""Tokens whose attention is shown."""
MOST_IN_LENS = 16
"""Tokens whose predictions by each layer are shown; the last ones."""
MOST_PIECES = 40
"""Pieces of the text that are shown; the first ones."""
MOST_IN_PIECE = 64
"""Bytes of a piece whose merges are shown: they take room with the square of it."""
MEAN = "mean"
"""Stands for all heads of a layer."""


def number(value: float) -> str:
    return f"{value:.{DIGITS}f}"


def note(text: str, is_problem: bool = False) -> str:
    return f'<p class="{"problem" if is_problem else "note"}">{escape(text)}</p>'


def now(side: Side, text: Text, index: int) -> str:
    """What the model reads, and what it would say next; to be chosen by a click.

    Args:
        index: of the side.
    """
    reading = text.readings[index]
    if reading.problem is not None:
        return note(reading.problem, is_problem=True)
    ids = reading.token_ids
    parts = [beyond(side, ids), strip(side, ids)]
    if side.speech.has_answers:
        parts.append(answer(side, text, ids))
    if not side.is_over(text, ids):
        parts.append(next_list(side, ids))
    return "".join(parts)


def beyond(side: Side, ids: Sequence[int]) -> str:
    context = side.model.config.block_size
    if len(ids) <= context or side.speech.has_answers:
        return ""
    return note(
        f"The text has {len(ids):,} tokens, the model's context is {context:,}; its last "
        f"{len(side.window(ids)):,} are read."
    )


def strip(side: Side, ids: Sequence[int]) -> str:
    """The tokens, one beside the other."""
    shown = ids[-MOST_IN_STRIP:]
    before = len(ids) - len(shown)
    tokens = "".join(
        f'<span class="token" title="id {i}">{escape(text)}</span>'
        for i, text in zip(shown, labels(side.speech, shown), strict=True)
    )
    more = f'<span class="more">{before:,} more before them</span>' if before else ""
    tokens_are = "1 token" if len(ids) == 1 else f"{len(ids):,} tokens"
    return f'<h3>It reads {tokens_are}</h3><div class="strip">{more}{tokens}</div>'


def answer(side: Side, text: Text, ids: Sequence[int]) -> str:
    """What the model answers by itself, and whether that is right, where it is known."""
    question = tuple(ids[: side.question_length(text.text)])
    given = side.answer(question)
    right = side.speech.right_answer(question)
    mark = "" if right is None else "right" if list(given) == right else "wrong"
    tokens = "".join(
        f'<span class="token {mark}">{escape(text)}</span>' for text in labels(side.speech, given)
    )
    verdict = f'<span class="verdict {mark}">{mark}</span>' if mark else ""
    return f'<h3>Its answer</h3><div class="strip answer">{tokens}{verdict}</div>'


def next_list(side: Side, ids: Sequence[int]) -> str:
    likeliest = next_tokens(side.logits(ids), NUM_LIKELIEST)
    probabilities = likeliest.probabilities.tolist()
    rows = "".join(
        f'<li><button type="button" data-token="{i}" title="id {i}" '
        f'aria-label="{escape(text)}, probability {number(p)}: put it behind the text">'
        f'<span class="token">{escape(text)}</span>'
        f'<span class="bar"><span style="width:{100 * p:.2f}%"></span></span>'
        f'<span class="p">{number(p)}</span></button></li>'
        for i, text, p in zip(
            likeliest.token_ids.tolist(),
            labels(side.speech, likeliest.token_ids.tolist()),
            probabilities,
            strict=True,
        )
    )
    others = side.model.vocab_size - len(probabilities)
    rest = (
        f'<p class="rest">{others:,} other tokens together: '
        f"{number(max(0.0, 1 - sum(probabilities)))}</p>"
        if others
        else ""
    )
    return f'<h3>What it would say next</h3><ol class="next">{rows}</ol>{rest}'


def looked_into(side: Side, text: Text, index: int) -> tuple[Inside, str] | str:
    """What is computed of the last tokens, and a note where they are not all; or why nothing."""
    reading = text.readings[index]
    if reading.problem is not None:
        return note(reading.problem, is_problem=True)
    ids = side.window(reading.token_ids, MOST_LOOKED_INTO)
    cut = len(reading.token_ids) - len(ids)
    which = "first" if side.speech.has_answers else "last"
    said = f"Here it reads the {which} {len(ids)} of {len(reading.token_ids):,} tokens alone."
    return side.reader.inside(ids), note(said) if cut else ""


def attention_view(side: Side, text: Text, index: int, layer: int, head: int | str) -> str:
    """How much each token looks at each, of one head or of the mean over a layer's."""
    found = looked_into(side, text, index)
    if isinstance(found, str):
        return found
    inside, said = found
    heads = inside.weights[layer]
    weights = (heads.mean(0) if head == MEAN else heads[int(head)]).cpu()
    T = len(weights)
    texts = labels(side.speech, inside.token_ids.tolist())
    rows = [[round(w, DIGITS) for w in row[: t + 1]] for t, row in enumerate(weights.tolist())]
    chips = "".join(
        f'<button type="button" class="token" data-t="{t}" '
        f'style="--w:{strength(rows[-1][t])}">{escape(name)}<small>{number(rows[-1][t])}</small></button>'
        for t, name in enumerate(texts)
    )
    squares = "".join(
        f'<rect x="{s}" y="{t}" width="1" height="1" fill-opacity="{strength(w)}"/>'
        for t, row in enumerate(rows)
        for s, w in enumerate(row)
        if w >= 0.0005
    )
    which = "the mean over the heads" if head == MEAN else f"head {head}"
    cell, height = (30, 0.5) if T <= 16 else (12, 0.75)  # pixels; of a label, in cells
    beside = 0.6 * height * max(map(len, map(short, texts))) + 0.6
    width = T + beside
    return (
        f'{said}<div class="attention" data-rows="{escape(json.dumps(rows))}" '
        f'data-names="{escape(json.dumps(texts))}">'
        f'<p class="caption">Layer {layer}, {which}. Point at a token, or step to it by Tab: below '
        f"each one stands how much it looks at that.</p>"
        f'<p class="says" aria-live="polite"></p><div class="strip chips">{chips}</div>'
        f'<p class="caption">A row for each token that looks, a column for each that it looks at; '
        f"the darker the more. A row adds up to 1.</p>{SCALE}"
        f'<svg viewBox="{-beside:.1f} {-beside:.1f} {width:.1f} {width:.1f}" '
        f'style="width:min(100%,{width * cell:.0f}px);--label:{height}px" '
        f'class="{"many" if T > 24 else ""}" role="img" '
        f'aria-label="attention of layer {layer}, {which}">{token_labels(texts)}'
        f'<rect class="ground" width="{T}" height="{T}"/>{squares}'
        f'<rect class="row" x="0" y="{T - 1}" width="{T}" height="1"/></svg></div>'
    )


def token_labels(texts: Sequence[str]) -> str:
    """Of the rows, and of the columns, where long ones are turned."""
    rows = "".join(
        f'<text x="-.3" y="{t + 0.7:.1f}" text-anchor="end">{escape(short(name))}</text>'
        for t, name in enumerate(texts)
    )
    columns = "".join(
        f'<text transform="translate({t + 0.7:.1f} -.3) rotate(-90)">{escape(short(name))}</text>'
        if len(short(name)) > 1
        else f'<text x="{t + 0.5}" y="-.3" text-anchor="middle">{escape(name)}</text>'
        for t, name in enumerate(texts)
    )
    return f'<g aria-hidden="true">{rows}{columns}</g>'


def short(name: str, longest: int = 8) -> str:
    if name == "<|endoftext|>":
        return "⟨end⟩"
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def strength(weight: float) -> float:
    """Of a weight's colour: its square root, so that small ones can be told apart."""
    return round(math.sqrt(weight), DIGITS)


SCALE = '<div class="scale" aria-hidden="true">{}</div>'.format(
    "".join(
        f'<span style="left:{100 * strength(w):.1f}%">{w:g}</span>' for w in (0, 0.1, 0.25, 0.5, 1)
    )
)
"""Colours of the square, each weight where its colour is."""


def lens_view(side: Side, text: Text, index: int) -> str:
    """What each layer would say, were it the last: rows are tokens, columns layers."""
    found = looked_into(side, text, index)
    if isinstance(found, str):
        return found
    inside, said = found
    first = max(0, len(inside.token_ids) - MOST_IN_LENS)
    last = replace(
        inside,
        token_ids=inside.token_ids[first:],
        streams=inside.streams[:, first:],
        logits=inside.logits[first:],
    )
    likeliest, _ = logit_lens(side.model, last, 5)
    ids, p = likeliest.token_ids.tolist(), likeliest.probabilities.tolist()
    follows = actual(side, text, inside.token_ids.tolist())[first:]
    which = f" of the last {MOST_IN_LENS} of these {len(inside.token_ids)} tokens" if first else ""
    head = "".join(
        f"<th>{name}</th>" for name in ("embedding", *map(str, range(side.model.config.n_layer)))
    )
    body = "".join(
        f'<tr><th class="token">{escape(label(side.speech, int(i)))}</th>'
        + "".join(
            lens_cell(side, ids[layer][t], p[layer][t], follows[t]) for layer in range(len(ids))
        )
        + "</tr>"
        for t, i in enumerate(last.token_ids)
    )
    own = "what the model says of these tokens" if said else "the model's own"
    return (
        f'{said}<div class="lens"><p class="caption">After each{which or " token"}, what each '
        f"layer would say next, if the model ended there: its stream through the final norm and "
        f"the head; in bold where it is the token that follows. The last column is {own}. Point "
        f"at a cell, or step to it by Tab, for the five likeliest.</p>"
        f'<p class="says" aria-live="polite"></p>'
        f'<div class="wide"><table><thead><tr><th>after</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def actual(side: Side, text: Text, ids: Sequence[int]) -> list[int | None]:
    """The token that follows each; None within a question, which no model goes on with, and behind
    the last."""
    asked = side.question_length(text.text) - 1 if side.speech.has_answers else 0
    return [None if t < asked else token for t, token in enumerate([*ids[1:], None])]


def lens_cell(
    side: Side, ids: Sequence[int], probabilities: Sequence[float], follows: int | None
) -> str:
    texts = labels(side.speech, ids)
    says = ", ".join(f"{name} {number(p)}" for name, p in zip(texts, probabilities, strict=True))
    return (
        f'<td tabindex="0" data-says="{escape(says)}" style="--w:{probabilities[0]:.4f}">'
        f'<span class="token{" actual" if ids[0] == follows else ""}">{escape(texts[0])}</span>'
        f"<small>{number(probabilities[0])}</small></td>"
    )


def tokenizer_view(side: Side, text: Text, index: int) -> str:
    """How the text becomes ids."""
    reading = text.readings[index]
    if reading.problem is not None:
        return note(reading.problem, is_problem=True)
    plain = side.read(text.text).token_ids
    said = (
        ""
        if side.speech.has_answers or plain == reading.token_ids
        else note(
            "Tokens were chosen one by one: the tokenizer would make others of the same text, "
            "which are shown here."
        )
    )
    if side.speech.tokenizer.kind != "gpt2":
        return said + one_by_one(side, plain)
    pieces = pieces_of(text.text)
    more = len(pieces) - MOST_PIECES
    cards = "".join(card(side, piece) for piece in pieces[:MOST_PIECES])
    rest = note(f"{more:,} more pieces follow.") if more > 0 else ""
    start = (
        f"<li>Before all of them stands {escape(label(side.speech, side.speech.start))}, behind "
        f"which documents begin: id {side.speech.start}.</li>"
        if side.speech.start is not None
        else ""
    )
    return (
        f'{said}<ol class="stages"><li>The text is cut into pieces: words with the space before '
        "them, numbers, signs, blanks.</li><li>Each piece becomes bytes, and each byte a character "
        "that can be seen: Ġ is a space.</li><li>Pairs are joined, the one that was learned first "
        "before the others, until no pair is known.</li><li>What is left are tokens; each has a "
        f'number, its id.</li>{start}</ol><div class="pieces">{cards}</div>{rest}'
    )


def card(side: Side, piece: str) -> str:
    """A piece, its merges unless it is too long for them, and its ids."""
    size = len(piece.encode())
    if size <= MOST_IN_PIECE:
        whole = explained(piece)
        title, told, ids = piece, steps(whole), whole.ids
    else:
        title = f"{piece[:MOST_IN_PIECE]}…"
        told = note(f"It has {size:,} bytes; merges are shown of {MOST_IN_PIECE} at most.")
        ids = tuple(side.speech.tokenizer.encode(piece))
    cells = "".join(f'<span class="token">{i}</span>' for i in ids[:MOST_IN_STRIP])
    more = len(ids) - MOST_IN_STRIP
    rest = f'<span class="more">{more:,} more</span>' if more > 0 else ""
    return (
        f'<section class="piece"><h4 class="token">{escape(visible(title))}</h4>{told}'
        f"<table><tr><th>ids</th><td>{cells}{rest}</td></tr></table></section>"
    )


def steps(piece: Piece) -> str:
    """The bytes of a piece, then what is left after each merge."""
    bytes_, *merged = piece.steps()
    rows = [step_row("bytes", bytes_)]
    rows += [
        step_row("+".join(pair), step, "".join(pair))
        for pair, step in zip(piece.merges, merged, strict=True)
    ]
    return f"<table>{''.join(rows)}</table>"


def step_row(name: str, tokens: Iterable[str], new: str | None = None) -> str:
    cells = "".join(
        f'<span class="token{" new" if token == new else ""}">{escape(token)}</span>'
        for token in tokens
    )
    return f"<tr><th>{escape(name)}</th><td>{cells}</td></tr>"


def one_by_one(side: Side, ids: Sequence[int]) -> str:
    """Where each token is a character or a digit, there is nothing to join."""
    shown = ids[:MOST_IN_STRIP]
    rows = "".join(
        f'<span class="token">{escape(text)}<small>{i}</small></span>'
        for i, text in zip(shown, labels(side.speech, shown), strict=True)
    )
    more = len(ids) - len(shown)
    rest = note(f"{more:,} more follow.") if more > 0 else ""
    what = "digit" if side.speech.tokenizer.kind == "digits" else "character"
    return (
        f'<p class="caption">This model reads one {what} at a time, of '
        f"{side.speech.tokenizer.vocab_size:,} that it knows: nothing is joined. Below each stands "
        f'its id.</p><div class="strip">{rows}</div>{rest}'
    )
