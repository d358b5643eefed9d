"""README.md of an export: what the model is, how it was made, and how it is asked."""

from collections.abc import Mapping

from gpt2lab.config import GPT2Config
from gpt2lab.errors import one_line
from gpt2lab.generation.speech import Speech
from gpt2lab.tokenizer import END_OF_TEXT, CharTokenizer, DigitTokenizer

Facts = Mapping[str, Mapping[str, object]]
"""Tables by their titles, each of names and values."""

HEADER = """\
---
library_name: {library}
pipeline_tag: text-generation
tags:
- gpt2
---
"""


def model_card(
    title: str, config: GPT2Config, speech: Speech | None, facts: Facts, use: str
) -> str:
    """
    Args:
        facts: of the training, as far as they are known; no secrets and no paths.
        use: a section that shows how the files are used.
    """
    library = "onnx" if "onnxruntime" in use else "transformers"
    parts = [
        HEADER.format(library=library),
        f"# {safe(title)}\n",
        f"{described(config)}\n",
        "## How to ask\n",
        f"{asking(speech)}\n",
        use,
        *(table(name, rows) for name, rows in facts.items() if rows),
        "## License\n",
        "None is stated here: it is for the owner of these weights, and of the data that they\n"
        "were trained on, to choose one and to add it above.\n",
    ]
    return "\n".join(parts)


def described(config: GPT2Config) -> str:
    return (
        f"A GPT-2 of {config.n_layer} layers, {config.n_head} heads and width {config.n_embd}, "
        f"with {config.vocab_size:,} ids\nand a context of {config.block_size:,} tokens, "
        "exported by gpt2lab."
    )


def asking(speech: Speech | None) -> str:
    """What stands for what, and what must stand around a prompt."""
    if speech is None:
        return "What its ids stand for was not known to the export: there is no tokenizer here."
    first = vocabulary(speech)
    if speech.question_tokens is not None:
        return (
            f"{first} A question is {speech.question_tokens} of them with spaces between;\n"
            f"the answer is the {speech.answer_tokens} tokens behind it, the likeliest each time."
        )
    if speech.has_answers:
        return (
            f"{first}\nA question is followed by {code(speech.separator)}; the answer is what the "
            f"model goes on with,\nthe likeliest each time, up to {code(END_OF_TEXT)}."
        )
    if speech.start is not None:
        return (
            f"{first}\nA document begins behind {code(END_OF_TEXT)} and ends with it: "
            "put it before a prompt."
        )
    return f"{first}\nA prompt stands by itself."


def vocabulary(speech: Speech) -> str:
    tokenizer = speech.tokenizer
    if isinstance(tokenizer, CharTokenizer):
        return (
            f"Its tokens are {len(tokenizer.characters)} characters; a text with any other "
            "character is refused."
        )
    if isinstance(tokenizer, DigitTokenizer):
        return f"Its tokens are the digits 0 to {tokenizer.vocab_size - 1}."
    return "Its tokens are those of GPT-2."


def example(speech: Speech | None) -> str:
    """A prompt as it is asked."""
    if speech is None:
        return ""
    tokenizer = speech.tokenizer
    if isinstance(tokenizer, DigitTokenizer):
        count = speech.question_tokens or 1
        return tokenizer.decode(i % tokenizer.vocab_size for i in range(count, 0, -1))
    text = "The"
    if isinstance(tokenizer, CharTokenizer):
        text = "".join(c for c in text if c in tokenizer.characters) or tokenizer.characters[-1]
    start = END_OF_TEXT if speech.start is not None else ""
    return f"{start}{text}{speech.separator}"


def with_transformers(speech: Speech | None) -> str:
    """How the folder is used from transformers."""
    if speech is None:
        return """\
```python
import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(".")  # this folder
print(model(torch.tensor([[0]])).logits)
```
"""
    # A question's answer ends by itself, as generation_config.json says.
    more = "" if speech.answer_tokens is not None else ", max_new_tokens=20"
    more += "" if speech.has_answers else ", do_sample=True, top_k=40"
    return f"""\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer({example(speech)!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs{more})[0]))
```
"""


def with_onnxruntime(speech: Speech | None) -> str:
    """How model.onnx is used."""
    if speech is None:
        ids = "[[0]]"
        first = "import onnxruntime\n"
    else:
        first = "import onnxruntime\nfrom tokenizers import Tokenizer\n"
        ids = f'[Tokenizer.from_file("tokenizer.json").encode({example(speech)!r}).ids]'
    return f"""\
```python
import numpy
{first}
ids = {ids}
session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(None, {{"input_ids": numpy.array(ids)}})  # (rows, tokens, ids)
print(logits[0, -1].argmax())
```
"""


def table(title: str, rows: Mapping[str, object]) -> str:
    lines = [f"## {title}\n", "| | |", "|---|---|"]
    lines += [f"| {safe(name)} | {safe(value)} |" for name, value in rows.items()]
    return "\n".join([*lines, ""])


def code(text: str) -> str:
    """A text as Markdown shows it literally."""
    return "`{}`".format(one_line(text).replace("`", "'"))


def safe(value: object) -> str:
    """A value in a cell or a title: on one line, without signs that Markdown or HTML would take."""
    text = f"{value:.6g}" if isinstance(value, float) else one_line(str(value))
    return "".join(f"\\{sign}" if sign in "\\|`*_<>[]#" else sign for sign in text)
