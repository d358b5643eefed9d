"""What was written is read again, by our reader and by transformers, and compared with the model.

Each comparison says in a few words what was equal, or raises.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpt2lab.config import StoredPrecision
from gpt2lab.errors import RunError
from gpt2lab.generation import generate
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import END_OF_TEXT, CharTokenizer, DigitTokenizer, Tokenizer
from gpt2lab.weights.pretrained import PREFIX, read_pretrained
from gpt2lab.weights.stored import DTYPES, shapes_of, stored
from gpt2lab.weights.tensors import count_nonfinite

TOLERANCE = 1e-4
"""Largest difference of two logits, as a share of the largest of all, or of 1 if none is larger.

Both compute in fp32, which keeps 7 digits, and sum in other orders: with random weights of GPT-2
small that made 1e-6 in transformers, 4e-6 in onnxruntime, and it grows with the number of layers.
"""
NUM_ROWS = 3
LONGEST_ROW = 64
NEW_TOKENS = 16

TEXTS = (
    "Hello!! I'm here. It's 2022. w00t :D 🤗",
    "  two  spaces,\ttabs\r\n\r\nand   line ends \n",
    "Ünïcödé: naïve café, 東京, Привет, שלום, 👩‍👩‍👧 e\u0301 \u00a0\u2003.",
    f"One document.{END_OF_TEXT}Another.",
    "don't 1,000,000 != x_1 + {y}[0] // \\n",
    "",
)


@torch.no_grad()
def compare_ours(model: GPT2, folder: Path, precision: StoredPrecision) -> tuple[GPT2, list[str]]:
    """
    Returns:
        The model that was read, and what was equal.
    Raises:
        RunError: if anything differs.
    """
    dtype, shapes, allowed = DTYPES[precision], shapes_of(model), None
    for name, shape in shapes.items():
        if count_nonfinite(stored(model, name, shape, dtype)):
            allowed = name.removeprefix(PREFIX)
    read = read_pretrained(folder, allow_nonfinite=allowed).eval()
    for name, shape in shapes.items():
        ours, theirs = (stored(m, name, shape, dtype) for m in (model, read))
        if not same_bits(ours, theirs):
            raise differs(folder, f"{name} is not what was written")
    if (read.speech is None) != (model.speech is None):
        raise differs(folder, "the tokenizer is not what was written")
    said = [f"{len(shapes)} tensors bit for bit"]
    if allowed is None and precision is StoredPrecision.fp32:
        rows = random_rows(model)
        check_close(folder, "logits", model(rows), read(rows))
        said.append(f"logits of {describe(rows)}")
    return read, said


def same_bits(a: Tensor, b: Tensor) -> bool:
    whole = {2: torch.int16, 4: torch.int32}[a.element_size()]  # NaN is not equal to itself
    return a.shape == b.shape and torch.equal(a.view(whole), b.view(whole))


@torch.inference_mode()
def compare_transformers(model: GPT2, folder: Path) -> Iterator[str]:
    """
    Args:
        model: as our reader has read it from the folder.
    Raises:
        RunError: if transformers cannot read the folder, or makes something else of it.
    """
    with quiet_transformers() as transformers:
        try:
            theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            rows = random_rows(model)
            found = theirs.eval()(rows).logits
        except Exception as error:
            raise unreadable(folder, "AutoModelForCausalLM", error) from error
        difference = check_close(folder, "transformers' logits", model(rows), found)
        yield f"logits of {describe(rows)} ({difference})"
        if count := compare_greedy(model, theirs, folder):
            yield f"greedy text of {count} tokens"
        if model.speech is not None:
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            except Exception as error:
                raise unreadable(folder, "AutoTokenizer", error) from error
            yield f"ids of {compare_ids(model.speech.tokenizer, tokenizer, folder)} texts"


def compare_greedy(model: GPT2, theirs: Any, folder: Path) -> int:
    """Tokens that both go on with, after the beginning of a random row; 0 where none has room."""
    prompt = random_rows(model)[:1, : max(1, model.config.block_size // 2)]
    count = min(NEW_TOKENS, model.config.block_size - prompt.shape[1])
    if count < 1:
        return 0
    ours = generate(model, prompt[0], max_new_tokens=count, temperature=0, strip_prompt=True)
    mask = torch.ones_like(prompt)
    given = {"attention_mask": mask, "max_new_tokens": count, "do_sample": False}
    found = theirs.generate(prompt, **given)[0, prompt.shape[1] :]
    end = theirs.generation_config.eos_token_id
    found = found[found != end] if end is not None else found
    same = min(len(ours), len(found))
    places = (ours[:same] != found[:same]).nonzero()
    if len(places) or len(ours) != len(found):
        place = int(places[0]) if len(places) else same
        if not is_tie(model, torch.cat([prompt[0], ours[:place]])):
            raise differs(folder, f"transformers' greedy text differs at token {place + 1}")
        return place
    return same


def is_tie(model: GPT2, row: Tensor) -> bool:
    """Whether the two likeliest tokens behind a row are as near as rounding."""
    logits = model(row[None])[0, -1]
    best = logits.topk(min(2, len(logits))).values
    return bool(best[0] - best[-1] <= 2 * allowed_difference(logits))


def compare_ids(ours: Tokenizer, theirs: Any, folder: Path) -> int:
    """How many texts had the same ids, and came back from them the same."""
    texts = known_texts(ours)
    for text in texts:
        ids = ours.encode(text, allow_special=True)
        if theirs.encode(text, add_special_tokens=False) != ids:
            raise differs(folder, f"transformers' ids of {text!r} are other ones")
        if ids and theirs.decode(ids) != ours.decode(ids):
            raise differs(folder, f"transformers' text of {ids[:20]} is another one")
    return len(texts)


def known_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts that a tokenizer has ids for, all of its vocabulary among them if that is small."""
    if isinstance(tokenizer, CharTokenizer):
        known = {*tokenizer.characters}
        texts = ["".join(c for c in text if c in known) for text in TEXTS]
        if tokenizer.end_of_text is not None:
            texts.append(f"{texts[0]}{END_OF_TEXT}{texts[1]}{END_OF_TEXT}")
        return [*texts, tokenizer.characters, tokenizer.characters[::-1]]
    if isinstance(tokenizer, DigitTokenizer):
        digits = [str(digit) for digit in range(tokenizer.vocab_size)]
        return [" ".join(digits), ",".join(digits[::-1]), f" {digits[-1]}\n{digits[0]}, 0 "]
    return [*TEXTS]


def random_rows(model: GPT2, length: int = LONGEST_ROW) -> Tensor:
    """The same for the same shape, no longer than the context: (rows, T)."""
    length = min(length, model.config.block_size)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.vocab_size, (NUM_ROWS, length), generator=generator)


def describe(rows: Tensor) -> str:
    return f"{len(rows)} rows of {rows.shape[1]}"


class Difference(NamedTuple):
    """Of two tensors, number by number."""

    largest: float
    allowed: float

    def __str__(self) -> str:
        return f"largest difference {self.largest:.1e}, allowed {self.allowed:.1e}"


@torch.no_grad()
def check_close(folder: Path, what: str, ours: Tensor, found: Tensor) -> Difference:
    """
    Raises:
        RunError: if it is more than rounding makes.
    """
    if ours.shape != found.shape:
        raise differs(folder, f"{what} are {tuple(found.shape)}, not {tuple(ours.shape)}")
    difference = Difference(float((ours - found).abs().max()), allowed_difference(ours))
    if not difference.largest <= difference.allowed:  # NaN is none
        raise differs(folder, f"{what} differ by more than rounding: {difference}")
    return difference


def allowed_difference(logits: Tensor) -> float:
    return TOLERANCE * max(1.0, float(logits.abs().max()))


def differs(folder: Path, what: str) -> RunError:
    return RunError(f"{folder}: {what}; nothing is left of it, please report this")


def unreadable(folder: Path, name: str, error: Exception) -> RunError:
    what = " ".join(str(error).split())
    return differs(folder, f"{name} does not read it ({type(error).__name__}: {what})")


def has_transformers() -> bool:
    return find_spec("transformers") is not None


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """The library, without its progress and advice; its own errors are told by ours."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        import transformers

        logging = transformers.utils.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.CRITICAL)
        had_bar = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(before)
        if had_bar:
            logging.enable_progress_bar()
