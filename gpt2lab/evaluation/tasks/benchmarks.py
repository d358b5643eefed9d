"""Texts that models are compared at: the language modelling part of the GPT-2 paper's table 3."""

from gpt2lab.data.jsonl import decoded, field
from gpt2lab.evaluation.detokenize import ONE_BILLION_WORDS, WIKITEXT
from gpt2lab.evaluation.detokenize import PTB as PTB_RULES
from gpt2lab.evaluation.files import content_of, one_file
from gpt2lab.evaluation.hub import PARQUET, HubDataset, rows_of_hub
from gpt2lab.evaluation.tasks.text import Document, TextTask

WHOLE_BYTES, TEST_BYTES = 100_000_000, 5_000_000
"""Of enwik8 and text8, the last 5 of 100 million bytes are the test part (Mahoney's data as
split by Graves 2013 and all since)."""


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
