"""What is trained on."""

from dataclasses import dataclass
from enum import Enum

from gpt2lab.config.settings.fields import path_or_name, ranged


@dataclass
class DataConfig:
    """What every kind of data has."""

    kind: str = "none"
    num_workers: int = ranged(0, ge=0, le=256)
    """Loader processes; 0 makes batches in the training process, right where that is cheap."""
    fingerprint: str | None = None
    """What the data must be, as receipt.json names it; null: anything, on resume what it was."""


@dataclass
class SortConfig(DataConfig):
    """Digits, then the same digits sorted, as in minGPT's demo."""

    kind: str = "sort"
    length: int = ranged(6, ge=1, le=4096)
    """Digits to sort; the model sees 2 * length - 1 tokens."""
    num_digits: int = ranged(3, ge=2, le=65_536)
    """Digits are 0 .. num_digits - 1."""
    eval_examples: int = ranged(4096, ge=1, le=1_000_000)
    """Held-out inputs that are evaluated: all there are, or a fixed sample of this many."""


class Vocabulary(Enum):
    """What the ids of a text stand for."""

    gpt2 = "gpt2"
    char = "char"


class TextSource(Enum):
    """Where documents come from."""

    files = "files"
    hub = "hub"
    builtin = "builtin"


class TextErrors(Enum):
    """What bytes that are not UTF-8 get."""

    strict = "strict"
    replace = "replace"


@dataclass
class TextConfig(DataConfig):
    """Text as a stream of tokens, prepared once in data_dir."""

    kind: str = "text"
    source: TextSource = TextSource.files
    """files (data.path or data.url), hub (a Hugging Face dataset), or builtin (Python's docs)."""
    path: str | None = path_or_name()
    """A .txt, .jsonl or .parquet file, also .gz or .zst, a folder or glob; or token files."""
    url: str | None = None
    """The text file that is downloaded when path is null."""
    dataset: str | None = None
    """Name of a Hugging Face dataset, or a folder that `datasets` can load."""
    dataset_config: str | None = None
    """Configuration of the dataset, such as sample-10BT."""
    dataset_split: str = "train"
    """Split of the dataset to train on."""
    val_split: str | None = None
    """Split of the dataset to evaluate on; null takes val_share of dataset_split."""
    streaming: bool = False
    """Read the dataset as it is downloaded, without keeping a copy."""
    text_field: str = "text"
    """Field of .jsonl, .parquet and datasets that holds the text."""
    tokenizer: Vocabulary = Vocabulary.gpt2
    """gpt2 (byte-pair encoding, 50,257 ids) or char (the characters of the corpus)."""
    val_share: float = ranged(0.1, gt=0, lt=1)
    """Share of the documents that is evaluated; of the characters, where there is one document."""
    errors: TextErrors = TextErrors.strict
    """Bytes that are not UTF-8: strict refuses them, replace counts them and warns."""
    num_processes: int | None = ranged(None, ge=1, le=1024)
    """Processes that tokenize; null for one a processor."""
    eval_tokens: int | None = ranged(None, ge=1)
    """Tokens evaluated, from the start of the validation set; null for all of them."""
    document_mask: bool = False
    """Attention stays within a document, and positions start anew in each."""


class PairsSource(Enum):
    """Where pairs come from."""

    file = "file"
    dates = "dates"


@dataclass
class PairsConfig(DataConfig):
    """Pairs of source and target text; the target alone is trained on."""

    kind: str = "pairs"
    source: PairsSource = PairsSource.file
    """file (data.path), or dates (generated: dates in words to ISO form)."""
    path: str | None = path_or_name()
    """A .jsonl file, one {"source": ..., "target": ...} a line; .gz or .zst too."""
    val_path: str | None = path_or_name()
    """Pairs to evaluate on; null takes val_share of path."""
    separator: str = "\n"
    """Stands between source and target."""
    tokenizer: Vocabulary = Vocabulary.gpt2
    """gpt2 (byte-pair encoding, 50,257 ids) or char (the characters of the pairs)."""
    context: int = ranged(256, ge=2, le=65_536)
    """Tokens of a row; a longer pair is refused."""
    packed: bool = False
    """Several pairs a row, without attention between them; otherwise one, padded."""
    val_share: float = ranged(0.1, gt=0, lt=1)
    """Share of the pairs that is evaluated."""
    eval_examples: int = ranged(4096, ge=1, le=1_000_000)
    """Held-out pairs that are evaluated: all there are, or this many."""
