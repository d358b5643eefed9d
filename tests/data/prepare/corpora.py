"""Tiny corpora for the tests of their preparation."""

import json

import numpy as np
import pytest

from gpt2lab.config import TextConfig
from gpt2lab.data.tokens import open_corpus
from gpt2lab.errors import DataError

WORDS = ["one fish", "two fish", "red\nfish", "blue fish", "é 🤗", "<|endoftext|>", "x" * 30]
DOCUMENTS = [f"{word} {number}" for number in range(30) for word in WORDS]


def write_jsonl(path, documents=DOCUMENTS):
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    return path


def config(path, **options):
    return TextConfig(path=str(path), **{"num_processes": 1, **options})


def decoded(folder):
    """The documents of both splits, as a reader of the token files sees them."""
    corpus = open_corpus(folder)
    end = corpus.tokenizer.end_of_text
    found = []
    for (ids,) in (corpus.train, corpus.val):
        assert ids[-1] == end
        parts = np.split(ids, np.flatnonzero(ids == end) + 1)[:-1]
        found.append([corpus.tokenizer.decode(part[:-1]) for part in parts])
    return found


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def refused(call, *arguments):
    with pytest.raises(DataError) as caught:
        call(*arguments)
    (problem,) = caught.value.problems
    return problem
