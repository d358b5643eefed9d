"""Whole texts, every token of which is scored once, in windows."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.config import EvaluateConfig
from gpt2lab.data.jsonl import field
from gpt2lab.data.prepare import builtin
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation.detokenize import Rule, detokenized
from gpt2lab.evaluation.files import files_of, one_file, rows_of, text_of
from gpt2lab.evaluation.hub import HubDataset
from gpt2lab.evaluation.items import Item, Scores
from gpt2lab.evaluation.reading import encoded, speech_of_text
from gpt2lab.evaluation.task import BaseTask, Metric, Record
from gpt2lab.evaluation.windows import started, windows
from gpt2lab.statistics import joined_sums, mean_interval, perplexity

if TYPE_CHECKING:
    from gpt2lab.generation.speech import Speech
    from gpt2lab.model import GPT2

MANY_DOCUMENTS = 30
"""From so many on, intervals are taken over documents, else over stretches of windows."""


@dataclass
class Document:
    """A text that stands for itself: nothing of another one is read before it."""

    place: str
    text: str
    """What the model reads."""
    words: int
    num_bytes: int
    """Both of the text as it was published."""

    @classmethod
    def plain(cls, place: str, text: str) -> "Document":
        return cls(place, text, len(text.split()), len(text.encode()))

    @classmethod
    def cut_in_words(cls, place: str, text: str, rules: tuple[Rule, ...]) -> "Document":
        """One of a benchmark that counts the ends of lines as words, as WikiText's authors do."""
        words = len(text.split()) + text.count("\n")
        return cls(place, detokenized(text, rules), words, len(text.encode()))


class TextTask(BaseTask):
    """Perplexity and its relatives."""

    hub: HubDataset
    local: str
    """What a local file of the data is called."""
    metric_names: tuple[str, ...] = ("word_perplexity", "token_perplexity", "bits_per_byte")

    def __init__(self, config: EvaluateConfig) -> None:
        super().__init__(config)
        self.documents: list[Document] = []
        self.document_of: list[int] = []
        self.tokens: list[int] = []
        """Of each document, its first too, which without a start token is not scored."""

    @abstractmethod
    def read_documents(self) -> list[Document]: ...

    def read(self) -> None:
        self.documents = [d for d in self.read_documents() if d.text]
        if not any(d.words for d in self.documents):
            raise DataError(f"data: {self.config.data or self.hub} holds no words; give a text")

    def one_text(self) -> str:
        """The data of a benchmark that is one file."""
        assert self.config.data is not None
        return text_of(one_file(self.config.data, self.local))

    def items(self, model: "GPT2") -> list[Item]:
        assert self.config.task is not None
        context = self.context_of(model)
        stride = self.config.stride or context
        if stride > context:
            raise ConfigError(
                f"stride: {stride} is more than the model's context of {context}, so that tokens "
                f"would be left out; choose 1 to {context}"
            )
        speech = speech_of_text(model, self.config.task.name)
        start = self.start_of(speech)
        items = []
        for number, document in enumerate(self.documents):
            ids = encoded(speech, document.text, document.place)
            own = list(windows(started(ids, start), context, stride))
            self.document_of += [number] * len(own)
            self.tokens.append(len(ids))
            items += own
        if not items:
            raise DataError(
                f"{self.documents[0].place}: holds one token, and nothing before it to predict it "
                "by; give a longer text"
            )
        return items

    def context_of(self, model: "GPT2") -> int:
        """Tokens that a window has at most."""
        return model.config.block_size

    def start_of(self, speech: "Speech") -> int | None:
        """What stands before each document."""
        return None if self.config.add_start_token is False else speech.start

    def record(self, number: int, scores: Sequence[Scores]) -> Record:
        (only,) = scores
        return {"nll": math.fsum(only.nll), "tokens": len(only.nll)}

    def metrics(self, records: Sequence[Record], model: "GPT2") -> list[Metric]:
        """Words and bytes a token are those of the documents that were begun, whole: what a limit
        cuts off, and a first token that nothing precedes, count as if they were scored alike."""
        seen = self.documents[: self.document_of[len(records) - 1] + 1]
        tokens = sum(self.tokens[: len(seen)])
        nll, counts, over = self.sums(records)
        mean = mean_interval(nll, counts)  # nats per token
        per_word = tokens / max(1, sum(d.words for d in seen))
        per_byte = tokens / sum(d.num_bytes for d in seen)
        found = {
            "token_perplexity": mean.map(perplexity),
            "word_perplexity": mean.map(lambda nats: perplexity(nats * per_word)),
            "bits_per_byte": mean.map(lambda nats: nats * per_byte / math.log(2)),
        }
        found["bits_per_character"] = found["bits_per_byte"]  # where each is a byte
        return [Metric(name, found[name], over) for name in self.metric_names]

    def sums(self, records: Sequence[Record]) -> tuple[list[float], list[float], str]:
        """Nats and tokens of what intervals are taken over, and what that is."""
        by_document: dict[int, list[Record]] = {}
        for number, record in enumerate(records):
            by_document.setdefault(self.document_of[number], []).append(record)
        if len(by_document) >= MANY_DOCUMENTS:
            groups = by_document.values()
            nll = [math.fsum(r["nll"] for r in group) for group in groups]
            return nll, [sum(r["tokens"] for r in group) for group in groups], "documents"
        nll, tokens = (joined_sums([r[key] for r in records]).tolist() for key in ("nll", "tokens"))
        return nll, tokens, "windows" if len(nll) == len(records) else "stretches of windows"


class Perplexity(TextTask):
    """Of any text: a file, each line of .jsonl, or a document of Python's own."""

    protocol = (
        "each document by itself behind a start token, windows of the model's context; words are "
        "those between white space; bytes of UTF-8"
    )
    metric_names = ("token_perplexity", "word_perplexity", "bits_per_byte")

    def read_documents(self) -> list[Document]:
        data = self.config.data
        assert data is not None
        if data == "builtin":
            texts = enumerate(builtin.documents(), 1)
            return [Document.plain(f"builtin document {n}", text) for n, text in texts]
        found = []
        for path in files_of(data):
            if ".jsonl" in path.suffixes:
                found += [Document.plain(r.place, field(r, "text")) for r in rows_of(path)]
            else:
                found.append(Document.plain(str(path), text_of(path)))
        return found
