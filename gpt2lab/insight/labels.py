"""Tokens as they are shown: each on its own, with what is easily overlooked made visible."""

from collections.abc import Sequence

from gpt2lab.generation.speech import Speech

MARKS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
"""Space and line ends, which would show as nothing."""


def label(speech: Speech | None, token_id: int) -> str:
    """A token as text in one line.

    " low" is ␣low; a token that ends within a character shows its bytes, \\xf0\\x9f; the end of
    text is <|endoftext|>, an id beyond the tokenizer <|50257|>, and any id a number where nothing
    says what it stands for.
    """
    if speech is None:
        return str(token_id)
    piece = speech.tokenizer.decode_bytes([token_id])
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in piece)
    return visible(text)


def visible(text: str) -> str:
    """A text in one line, nothing of which is overlooked: "a b\\0" is a␣b\\x00."""
    return "".join(MARKS.get(c, c if c.isprintable() else repr(c)[1:-1]) for c in text)


def labels(speech: Speech | None, token_ids: Sequence[int]) -> list[str]:
    return [label(speech, token_id) for token_id in token_ids]
