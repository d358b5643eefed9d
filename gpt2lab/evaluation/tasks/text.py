"""Whole texts, every token of which is scored once, in windows."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.config import EvaluateConfig
from gpt2lab.data.prepare import builtin
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation.detokenize import ONE_BILLION_WORDS, WIKITEXT, detokenized
from gpt2lab.evaluation.detokenize import PTB as PTB_RULES
from gpt2lab.evaluation.files import (
    content_of,
    decoded,
    field,
    files_of,
    one_file,
    rows_of,
    text_of,
)
from gpt2lab.evaluation.hub import PARQUET, HubDataset, rows_of_hub
from gpt2lab.evaluation.items import Item, Scores
from gpt2lab.evaluation.reading import encoded, speech_of_text
from gpt2lab.evaluation.statistics import mean_interval, perplexity
from gpt2lab.evaluation.task import BaseTask, Metric, Record
from gpt2lab.evaluation.windows import started, windows

if TYPE_CHECKING:
    from gpt2lab.model import GPT2

MANY_DOCUMENTS = 30
"""From so many on, intervals are taken over documents: windows of one resemble each other."""
WHOLE_BYTES, TEST_BYTES = 100_000_000, 5_000_000
"""Of enwik8 and text8, the last 5 of 100 million bytes are the test part (Mahoney's data as
split by Graves 2013 and all since)."""


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
    def cut_in_words(cls, place: str, text: str, rules: tuple[tuple[str, str], ...]) -> "Document":
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
        """Scored ones, of each document."""

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
        context = model.config.block_size
        stride = self.config.stride or context
        if stride > context:
            raise ConfigError(
                f"stride: {stride} is more than the model's context of {context}, so that tokens "
                f"would be left out; choose 1 to {context}"
            )
        speech = speech_of_text(model, self.config.task.name)
        start = None if self.config.add_start_token is False else speech.start
        items = []
        for number, document in enumerate(self.documents):
            stream = started(encoded(speech, document.text, document.place), start)
            own = list(windows(stream, context, stride))
            self.document_of += [number] * len(own)
            self.tokens.append(len(stream) - 1)
            items += own
        if not items:
            raise DataError(
                f"{self.documents[0].place}: holds one token, and nothing before it to predict it "
                "by; give a longer text"
            )
        return items

    def record(self, number: int, scores: Sequence[Scores]) -> Record:
        (only,) = scores
        return {"nll": math.fsum(only.nll), "tokens": len(only.nll)}

    def metrics(self, records: Sequence[Record], model: "GPT2") -> list[Metric]:
        """Words and bytes are those of the documents that were begun; where a limit cuts one off,
        it counts as having as many a token there as all in all."""
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
        groups, over = list(by_document.values()), "documents"
        if len(groups) < MANY_DOCUMENTS:
            groups, over = [[record] for record in records], "windows"
        nll = [math.fsum(r["nll"] for r in group) for group in groups]
        return nll, [sum(r["tokens"] for r in group) for group in groups], over


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


class WikiText2(TextTask):
    """One text of articles, cut in words, rare ones of which are `<unk>`."""

    protocol = (
        "GPT-2 paper, section 3.1: the whole test set as one text, de-tokenized by rules of ours; "
        "perplexity per original token, line ends counted"
    )
    hub = HubDataset("Salesforce/wikitext", "wikitext-2-v1")
    local = "wiki.test.tokens"

    def read_documents(self) -> list[Document]:
        if self.config.data is not None:
            return [Document.cut_in_words(self.config.data, self.one_text(), WIKITEXT)]
        rows = rows_of_hub(self.hub, self.local)
        # The hub's empty lines have lost their end.
        text = "".join(field(row, "text") or " \n" for row in rows)
        return [Document.cut_in_words(self.hub.name, text, WIKITEXT)]


class WikiText103(WikiText2):
    """The same articles with a larger vocabulary."""

    hub = HubDataset("Salesforce/wikitext", "wikitext-103-v1")


class PTB(TextTask):
    """The Penn Treebank's Wall Street Journal."""

    protocol = WikiText2.protocol
    hub = HubDataset("ptb-text-only/ptb_text_only", "penn_treebank", revision=PARQUET)
    local = "ptb.test.txt"

    def read_documents(self) -> list[Document]:
        if self.config.data is not None:
            return [Document.cut_in_words(self.config.data, self.one_text(), PTB_RULES)]
        rows = rows_of_hub(self.hub, self.local)
        text = "".join(f"{field(row, 'sentence')}\n" for row in rows)
        return [Document.cut_in_words(self.hub.name, text, PTB_RULES)]


class OneBillionWords(TextTask):
    """Sentences of news, shuffled, so that none helps with the next."""

    protocol = (
        "each sentence by itself with its line end, behind a start token, de-tokenized by rules of "
        "ours; perplexity per original token, line ends counted; how the GPT-2 paper put sentences "
        "together is not known"
    )
    hub = HubDataset("billion-word-benchmark/lm1b", "plain_text", revision=PARQUET)
    local = "news.en.heldout-00000-of-00050"

    def read_documents(self) -> list[Document]:
        if self.config.data is not None:
            lines = self.one_text().split("\n")
        else:
            lines = [field(row, "text") for row in rows_of_hub(self.hub, self.local)]
        place = self.config.data or self.hub.name
        return [
            Document.cut_in_words(f"{place}:{number}", f"{line}\n", ONE_BILLION_WORDS)
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]


class Enwik8(TextTask):
    """Wikipedia with its markup."""

    protocol = "the last 5,000,000 bytes of enwik8 as one text, as they are"
    hub = HubDataset("LTCB/enwik8", "enwik8-raw", "train", PARQUET)
    local = "enwik8"
    metric_names = ("bits_per_byte",)

    def read_documents(self) -> list[Document]:
        if self.config.data is not None:
            place, content = self.config.data, content_of(one_file(self.config.data, self.local))
        else:
            place = self.hub.name
            rows = rows_of_hub(self.hub, self.local)
            content = "".join(field(row, "text") for row in rows).encode()
        if len(content) >= WHOLE_BYTES:
            content = whole_characters(content[WHOLE_BYTES - TEST_BYTES : WHOLE_BYTES])
        return [Document.plain(place, decoded(content, place))]


class Text8(Enwik8):
    """Wikipedia in nothing but lower-case letters and blanks."""

    protocol = "the last 5,000,000 characters of text8 as one text, as they are"
    hub = HubDataset("afmck/text8")
    local = "text8"
    metric_names = ("bits_per_character",)


def whole_characters(content: bytes) -> bytes:
    """UTF-8 without the halves of characters that a cut may have left at both ends."""
    start = next((i for i, byte in enumerate(content) if byte & 0xC0 != 0x80), len(content))
    tail = content[-3:]
    # A byte that begins a character says by its leading ones how many there are to be.
    for back, byte in enumerate(reversed(tail), 1):
        if byte & 0xC0 != 0x80:
            size = next(n for n, top in ((1, 0x80), (2, 0xE0), (3, 0xF0), (4, 0x100)) if byte < top)
            return content[start : len(content) - (back if size > back else 0)]
    return content[start:]
