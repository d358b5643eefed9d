"""Sampling: settings out of range, prompts that are empty, too long, or hold special text."""

import json
from pathlib import Path
from typing import Any

from tests.faults.lab import TEXT, VERSES, Lab, nothing_written, refused, row
from tests.faults.server import Finished

BLOCK_SIZE = 16
"""Of the runs on text."""


def sample(lab: Lab, *overrides: str) -> Finished:
    return lab.train(lab.fresh(), *overrides, call="gpt2lab.sample:main")


def said(lab: Lab, run: Path, *overrides: str) -> tuple[list[Any], str]:
    """The likeliest tokens that follow, with their log-probabilities, and what was told of it."""
    given = ["sampling=greedy", "json_lines=true", "logprobs=true", "max_new_tokens=4"]
    done = sample(lab, f"checkpoint={run}", "precision=fp32", *given, *overrides)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return [found["token_ids"], found["alternatives"]], done.err


@row("temperature, top_k, top_p, max_new_tokens out of range")
def out_of_range(lab: Lab) -> None:
    """Key and range, before there is even a checkpoint; what only looks wrong is taken."""
    for key, values in {
        "sampling.temperature": ("-1", "-0.001", "nan", "inf", "-inf", "hot", "true"),
        "sampling.top_k": ("0", "-1", "1.5", "nan", "all"),
        "sampling.top_p": ("0", "-0.1", "1.1", "nan", "inf"),
        "sampling.min_p": ("-0.1", "1.1", "nan"),
        "sampling.repetition_penalty": ("0", "-1", "nan", "null"),
        "sampling.num_beams": ("0", "-1", "1000000"),
        "sampling.length_penalty": ("nan", "inf"),
        "max_new_tokens": ("0", "-1", "1000000000", "1e3", "null", "nan"),
        "max_length": ("0", "-1"),
        "num_samples": ("0", "-1", "1000000000"),
        "batch_size": ("0",),
        "seed": ("-1", str(2**64)),
    }.items():
        for value in values:
            with lab.case(f"{key}={value}"):
                cwd = lab.fresh()
                given = ["checkpoint=nowhere", f"{key}={value}"]
                refused(lab.train(cwd, *given, call="gpt2lab.sample:main"), f"error: {key}: ")
                nothing_written(cwd)
    with lab.case("all at once"):
        wrong = ["sampling.temperature=-1", "sampling.top_k=0", "sampling.top_p=2", "seed=-1"]
        done = sample(lab, *wrong, "max_new_tokens=0")
        refused(done, *(text.partition("=")[0] for text in wrong), "max_new_tokens", "checkpoint")
        assert len(done.err.splitlines()) == 6, done.err
    run = lab.straight(lab.text)
    greedy, _ = said(lab, run, "prompt=on the ")
    for given in ("sampling=temperature sampling.temperature=0", "sampling=top_k sampling.top_k=1"):
        with lab.case(f"greedy by {given}"):
            assert said(lab, run, "prompt=on the ", *given.split())[0] == greedy
    with lab.case("top_k beyond the vocabulary means all"):
        both = [["sampling.top_k=1000000"], ["sampling.top_k=null"]]
        one, other = (said(lab, run, "prompt=on the ", "sampling=top_k", *more) for more in both)
        assert one == other


@row("empty prompt, prompt beyond the context, special text in a prompt")
def prompts(lab: Lab) -> None:
    """By the ids and log-probabilities of what follows."""
    by_char = lab.straight(lab.text)
    verses = by_char.parents[1] / "verses.txt"
    verses.write_text(VERSES)
    words = [text for text in TEXT if "tokenizer" not in text]
    by_token = lab.straight([*words, f"data.path={verses}", "model.block_size=8", "batch_size=2"])
    digits = lab.straight(
        ["model=nano", "data=sort", "max_steps=2", "batch_size=8", "stop_at=null"]
    )
    with lab.case("characters: nothing is a newline"):
        assert said(lab, by_char)[0] == said(lab, by_char, "prompt=\n")[0]
        assert said(lab, by_char)[0] == said(lab, by_char, "prompt=")[0]
        assert said(lab, by_char)[0] != said(lab, by_char, "prompt=e")[0]
    with lab.case("GPT-2's tokens: nothing is the end of text"):
        special = ["prompt=<|endoftext|>", "allow_special=true", "add_start_token=false"]
        assert said(lab, by_token)[0] == said(lab, by_token, *special)[0]
        assert said(lab, by_token)[0] == said(lab, by_token, "add_start_token=false")[0]
    with lab.case("special text is plain text unless it is allowed"):
        bare = ["prompt=<|endoftext|>", "add_start_token=false"]
        assert said(lab, by_token, *bare)[0] != said(lab, by_token, *bare, "allow_special=true")[0]
    for what, given in {
        "none": [],
        "an empty one": ["prompt="],
        "too short": ["prompt=1 2"],
    }.items():
        with lab.case(f"digits need a question: {what}"):
            refused(sample(lab, f"checkpoint={digits}", *given), "error: prompt: ", "6")
    long = (VERSES * 2)[: 5 * BLOCK_SIZE + 3]
    with lab.case("beyond the context the last ones are kept, with a warning"):
        found, told = said(lab, by_char, f"prompt={long}")
        expected, quiet = said(lab, by_char, f"prompt={long[-BLOCK_SIZE:]}")
        assert found == expected
        assert f"warning: prompt: has {len(long)} tokens" in told, told
        assert "prompt" not in quiet, quiet
    with lab.case("a character that the model does not know"):
        refused(sample(lab, f"checkpoint={by_char}", "prompt=ü"), "error: prompt: ", "U+00FC")
    for text in ("a, b: {c} [d", "x=${y}", "007", "null and void", "it's", '"', "\\n", " on "):
        with lab.case(f"text as it is typed: {text!r}"):
            given = [f"prompt={text}", "max_new_tokens=1", "json_lines=true"]
            done = sample(lab, f"checkpoint={by_token}", *given)
            assert done.code == 0, done.err
            assert json.loads(done.out)["prompt"] == text
    for what, content in {"empty": b"", "no UTF-8": b"a\xff", "a folder": None}.items():
        with lab.case(f"a file of prompts that is {what}"):
            cwd = lab.fresh()
            path = cwd / "prompts.txt"
            path.mkdir() if content is None else path.write_bytes(content)
            given = [f"checkpoint={by_char}", "prompts=prompts.txt"]
            refused(lab.train(cwd, *given, call="gpt2lab.sample:main"), "error: prompts.txt")
