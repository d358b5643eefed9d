"""Every setting of ours: its type, default, range and reason. No values of experiments live here.

Lightning's own arguments (`trainer`, `strategy`, `logger`, `callbacks`) are plain mappings with a
`_target_`.
A dataclass whose group has several shapes (`data`, `optim`, `schedule`) names its shape in `kind`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Range:
    """Bounds of one number; None leaves that side open."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def holds(self, value: float) -> bool:
        # Written so that NaN, for which every comparison is false, never holds.
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and abs(value) < float("inf")
        )

    def __str__(self) -> str:
        low = (
            f"{self.ge} <= "
            if self.ge is not None
            else f"{self.gt} < "
            if self.gt is not None
            else ""
        )
        high = (
            f" <= {self.le}"
            if self.le is not None
            else f" < {self.lt}"
            if self.lt is not None
            else ""
        )
        return f"{low}value{high}"


def ranged(
    default: float | None,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with bounds, checked by `parse`; None, where allowed, is in every range."""
    return field(default=default, metadata={"range": Range(ge, gt, le, lt)})


class Precision(Enum):
    """The number format of the matrix products; weights and optimizer state stay fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def verbatim() -> Any:
    """A field of text that is taken as it is typed, whatever signs it holds; null by default."""
    return field(default=None, metadata={"verbatim": True})


@dataclass
class GPT2Config:
    """The shape of a GPT-2; the defaults are the released 124M model."""

    n_layer: int = ranged(12, ge=1, le=1024)
    """Transformer blocks."""
    n_head: int = ranged(12, ge=1)
    """Attention heads a block; must divide n_embd."""
    n_embd: int = ranged(768, ge=1, le=65_536)
    """Width of the residual stream."""
    block_size: int = ranged(1024, ge=1)
    """Longest context in tokens: rows of the position embedding. Sort and pairs set their own."""
    vocab_size: int | None = ranged(50257, ge=2)
    """Token ids the model knows; null for as many as the data's tokenizer has."""
    dropout: float = ranged(0.1, ge=0, lt=1)
    """Probability of zeroing an activation. Released GPT-2 configs: 0.1; pretraining recipes: 0."""
    bias: bool = True
    """Biases in linear layers and layer norms, as released."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass: a third more time, far less memory."""


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
    path: str | None = None
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
    path: str | None = None
    """A .jsonl file, one {"source": ..., "target": ...} a line; .gz or .zst too."""
    val_path: str | None = None
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


@dataclass
class OptimConfig:
    """What every optimizer has."""

    kind: str = "none"
    lr: float = ranged(3e-4, gt=0)
    """Highest learning rate, reached after warm-up."""
    beta1: float = ranged(0.9, ge=0, lt=1)
    """AdamW's decay of the gradient average."""
    beta2: float = ranged(0.95, ge=0, lt=1)
    """AdamW's decay of the squared-gradient average."""
    weight_decay: float = ranged(0.1, ge=0)
    """Decoupled decay of matrices and embeddings; never of biases and norms."""
    grad_clip: float | None = ranged(1.0, gt=0)
    """Largest 2-norm of all gradients together; null for no clipping."""


@dataclass
class AdamWConfig(OptimConfig):
    """AdamW for every parameter."""

    kind: str = "adamw"


@dataclass
class MuonConfig(OptimConfig):
    """Muon for the hidden matrices, AdamW for embeddings, norms and biases."""

    kind: str = "muon"
    momentum: float = ranged(0.95, ge=0, lt=1)
    """Muon's momentum, with Nesterov's look-ahead."""


@dataclass
class ScheduleConfig:
    """What every schedule of the learning rate has."""

    kind: str = "none"
    warmup_steps: int = ranged(0, ge=0)
    """Steps of linear increase from near zero to optim.lr."""


@dataclass
class CosineConfig(ScheduleConfig):
    """Half a cosine from the highest rate to the final one."""

    kind: str = "cosine"
    decay_steps: int | None = ranged(None, ge=1)
    """Step at which the final rate is reached; null for max_steps."""
    final_lr_ratio: float = ranged(0.1, ge=0, le=1)
    """Final rate as a share of the highest."""


@dataclass
class WSDConfig(ScheduleConfig):
    """Warm-up, a stable stretch, then a linear decay that ends with the training."""

    kind: str = "wsd"
    decay_ratio: float = ranged(0.2, gt=0, le=1)
    """Share of max_steps, at the end, over which the rate falls."""
    final_lr_ratio: float = ranged(0.0, ge=0, le=1)
    """Final rate as a share of the highest."""


@dataclass
class ConstantConfig(ScheduleConfig):
    """The highest rate from the end of the warm-up on."""

    kind: str = "constant"


@dataclass
class SamplingConfig:
    """From logits to a token: each that is set changes the distribution, in the order given here.

    The order and the meaning of each are transformers'.
    """

    repetition_penalty: float = ranged(1.0, gt=0)
    """Positive logits of tokens that are there already are divided by it, negative multiplied."""
    temperature: float | None = ranged(None, ge=0)
    """Divides the logits; 0 takes the likeliest. Null: 1, and 0 where a question has one answer."""
    top_k: int | None = ranged(None, ge=1)
    """So many likeliest tokens are left; null for all."""
    top_p: float | None = ranged(None, gt=0, le=1)
    """The fewest likeliest tokens are left whose probability reaches this; null for all."""
    min_p: float | None = ranged(None, ge=0, le=1)
    """Tokens are left that are at least so likely, as a share of the likeliest; null for all."""
    num_beams: int = ranged(1, ge=1, le=1024)
    """Beams of a beam search, which takes the likeliest whole text; 1 for none."""
    length_penalty: float = ranged(1.0, ge=-10, le=10)
    """Beams are ranked by log-probability / new tokens ** length_penalty."""


class BeyondContext(Enum):
    """What happens when a text is as long as the model's context."""

    slide = "slide"
    stop = "stop"


class Quantize(Enum):
    """Number formats below bf16 for the weights of generation."""

    int8 = "int8"


class Device(Enum):
    """Where a model computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass
class SampleConfig:
    """All settings of `python -m gpt2lab.sample`."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    checkpoint: str | None = verbatim()
    """A run folder (its best checkpoint, else its last), a checkpoint file, or a folder in the
    Hugging Face layout."""
    prompt: str | None = verbatim()
    """What is continued, as it is typed; null begins with nothing, "null" is the word."""
    prompts: str | None = verbatim()
    """A file of prompts, one a line, or .jsonl of {"prompt": ...}, which may hold line ends."""
    num_samples: int = ranged(1, ge=1, le=100_000)
    """Samples of each prompt."""
    max_new_tokens: int = ranged(128, ge=1, le=1_000_000)
    """Longest continuation."""
    max_length: int | None = ranged(None, ge=1, le=1_000_000)
    """Longest sample, start token and what the context holds of its prompt counted; null: none."""
    seed: int = ranged(0, ge=0, lt=2**63)
    """Decides the draws: a sample's depend on it and the sample's number alone."""
    batch_size: int = ranged(8, ge=1, le=65_536)
    """Samples that are decoded at once."""
    beyond_context: BeyondContext = BeyondContext.slide
    """Beyond the model's context: slide drops the oldest tokens, stop ends the sample."""
    add_start_token: bool = True
    """Begin each prompt with the end of text, after which documents begin; where there is one."""
    allow_special: bool = False
    """The text <|endoftext|> in a prompt stands for the token; else it is plain text."""
    stop_at_end: bool = True
    """A sample ends with its document."""
    strip_prompt: bool | None = None
    """Leave the prompt out of the result; null: only where a question has one answer."""
    stream: bool | None = None
    """Show text as it is made; null: on a terminal, for one sample."""
    logprobs: bool = False
    """With json or json_lines: each token's log-probability (nats), and the ten likeliest."""
    json_lines: bool = False
    """Each sample as a JSON object on a line."""
    json: bool = False
    """The last line is one JSON object with all samples."""
    interactive: bool = False
    """Ask for prompts in a terminal; :help there tells more."""
    precision: Precision = Precision.auto
    """Of the weights; auto takes bf16 where the processor or GPU has it, else fp32."""
    quantize: Quantize | None = None
    """int8 for the weights and products of the linear layers: faster, at a small cost in loss."""
    device: Device = Device.auto
    """auto takes a GPU where there is one."""
    compile: bool | None = None
    """On a GPU, compile the step into a CUDA graph; null: where so much is made that it pays."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""


SHAPES: dict[str, dict[str, type]] = {
    "data": {"sort": SortConfig, "text": TextConfig, "pairs": PairsConfig},
    "optim": {"adamw": AdamWConfig, "muon": MuonConfig},
    "schedule": {"cosine": CosineConfig, "wsd": WSDConfig, "constant": ConstantConfig},
}
"""The dataclass of each kind of a group whose options differ in their fields."""


@dataclass
class TrainConfig:
    """All settings of `python -m gpt2lab.train`."""

    model: GPT2Config = field(default_factory=GPT2Config)
    data: DataConfig = field(default_factory=SortConfig)
    optim: OptimConfig = field(default_factory=AdamWConfig)
    schedule: ScheduleConfig = field(default_factory=CosineConfig)
    trainer: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "lightning.pytorch.Trainer"}
    )
    strategy: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)

    name: str | None = None
    """Name of the run and of its folder; null makes one from the date, the time and a short id."""
    runs_dir: str = "runs"
    """Folder that holds the run folders."""
    data_dir: str = "data"
    """Folder that holds prepared corpora."""
    seed: int = ranged(0, ge=0, lt=2**63)
    """Decides the initial weights, the data order and the dropout."""
    resume: str | None = None
    """last or best (of `name`), auto (last, or a fresh start), or a checkpoint file."""
    max_steps: int = ranged(1000, ge=1)
    """Optimizer steps to train."""
    max_minutes: float | None = ranged(None, gt=0)
    """Wall-clock minutes after which training ends, evaluated and saved; null for no limit."""
    eval_every: int = ranged(100, ge=1)
    """Steps between evaluations; the last step is always evaluated."""
    checkpoint_every: int = ranged(500, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    checkpoint_keep: int = ranged(2, ge=1)
    """Newest checkpoints kept, besides the best: 2, so that a damaged one has a predecessor."""
    checkpoint_keep_every: int | None = ranged(None, ge=1)
    """Steps between checkpoints that are kept for good, a multiple of checkpoint_every."""
    batch_size: int = ranged(64, ge=1, le=2**24)
    """Sequences in one optimizer step, over all micro-batches of all devices."""
    micro_batch_size: int | None = ranged(None, ge=1)
    """Sequences a device holds at once; must divide its share of batch_size. Null for all of it."""
    devices: int = ranged(1, ge=1)
    """GPUs, or processes on a CPU (at most one a core), that share each step."""
    precision: Precision = Precision.auto
    """auto takes bf16 where the processor or GPU has it, else fp32."""
    skip_nonfinite: int = ranged(0, ge=0)
    """Steps whose loss or gradient is NaN or infinite that are left out before training ends."""
    allow_nonfinite: str | None = None
    """The tensor of a checkpoint that may hold NaN or infinity, as the refusal names it."""
    stop_at: str | None = None
    """A target at which training ends, such as val/loss:1.5; null for none."""
    profile: bool = False
    """Write a trace and a table of torch's profiler into the run folder."""
    debug: bool = False
    """Show where a fault happened, with a traceback; counts on the command line only."""
