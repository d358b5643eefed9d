"""What each part of the page is called, what one sees in it, and which PNG shows it."""

CAPTIONS = {
    "answer": (
        "Where each token of the answer looked",
        "Above, what was read: the question, then the answer as far as it was said. Below, "
        "what was said{marks}. A line goes from a token to what the model looked at when it said "
        "it; the thicker, the more.",
    ),
    "next": (
        "The next token",
        "What the model would say next, and how likely each is, of all tokens that it knows. "
        "In green the {wanted}. Choose a token of the text to see what it would say there.",
    ),
    "arcs": (
        "What one token looks at",
        "From the chosen token to those before it, the thicker the more. It may look at "
        "itself and at all before it, never ahead.",
    ),
    "head": (
        "One head",
        "A row for each token, which shows how it shares out its attention over itself and "
        "the tokens before it: a row adds up to 1. The square root of a weight is its colour, so "
        "that small ones can be told apart.{border} The head that is shown first is the one "
        "whose removal costs most, unless another one was asked for.",
    ),
    "heads": (
        "All heads of all layers",
        "A square for each head, as above. A dark diagonal looks at itself, one below it at "
        "the token before; a dark first column is where heads look that have nothing to do. "
        "Choose a square to see it large.",
    ),
    "last_block": (
        "The last layer",
        "The mean over the heads of the last layer. It hides what single heads do, and shows "
        "what all of them agree on.",
    ),
    "lens": (
        "What each layer would say: the logit lens",
        "The stream behind each layer, as if it were the last: through the final norm and the "
        "head. The darker, the surer; in bold where it is the {wanted}. Early layers often repeat "
        "the token that they have just read, later ones settle on the next.",
    ),
    "loss": (
        "Loss and rank",
        "The loss of each {wanted}, in nats: 0 for one that was certain. Above each, its rank "
        "among all tokens, 1 for the likeliest.",
    ),
    "previous": (
        "Heads that look at the token before",
        "The mean weight on the token before, over this text.",
    ),
    "induction": (
        "Induction heads",
        "Over random tokens that come twice: the mean weight on the token behind the place "
        "where the same token stood before. A head that scores high can repeat what it has "
        "read.",
    ),
    "cost": (
        "What each head is worth",
        "By how much the loss rises, in nats per token of this text, when {ablation} stands "
        "in the place of a head's output. Below 0, the text is better predicted without it.",
    ),
}
"""Title and caption of each part, in the order of the page."""
MARKS = ": ✓ and green where it is right, ✗ and red where it is wrong"
BORDER = " Lines part the question from the answer."
IN_SCORES = ("previous", "induction", "cost")
"""Parts that share one PNG."""


def png_of(part: str) -> str:
    return "scores.png" if part in IN_SCORES else f"{part}.png"
