"""Trainings of a few steps on text and on pairs, in this process."""

import json
import re

import pytest

from gpt2lab import generate, load
from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
from gpt2lab.config import SampleConfig
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.experiment import fit
from gpt2lab.generation import samples
from gpt2lab.metrics import read_metrics

SHORT = [
    "model=nano",
    "model.block_size=16",
    "model.dropout=0",
    "batch_size=8",
    "max_steps=4",
    "eval_every=2",
    "checkpoint_every=2",
    "trainer.log_every_n_steps=1",
]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "rhyme.txt"
    path.write_text("one two three four five, once I caught a fish alive. " * 60)
    return path


@pytest.fixture
def train(tmp_path, text):
    """Train a few steps on the rhyme, with overrides on top."""

    def run(*overrides):
        folders = [f"runs_dir={tmp_path / 'runs'}", f"data_dir={tmp_path / 'data'}"]
        data = ["data=text", f"data.path={text}", "data.tokenizer=char"]
        return fit([*SHORT, *data, *folders, *overrides])

    return run


def test_text_is_prepared_trained_on_and_gone_on_from(train, capsys):
    result = train("name=a", "max_steps=60", "optim.lr=1e-2", "eval_every=30")
    last = result.summary["last"]
    assert last["val/loss"] < 2.2  # 20 characters: a guess has 3.0
    assert last["val/bits_per_byte"] == pytest.approx(last["val/loss"] / 0.693147, rel=1e-5)
    assert "val/exact_match" not in last
    assert "prepares" in capsys.readouterr().err
    samples = (result.folder / "samples.md").read_text()
    assert samples.count("## step") == 2
    assert samples.count("GPT-2 goes on:") == 6


def test_the_same_seed_gives_the_same_losses_with_workers_and_micro_batches(train):
    def losses(result):
        rows = read_metrics(result.folder / "metrics.csv")
        return [float(row["val/loss"]) for row in rows if row["val/loss"]]

    straight = losses(train("name=a"))
    assert losses(train("name=b", "data.num_workers=2")) == straight
    # fp32: the parts of a sum come in another order
    split = losses(train("name=c", "micro_batch_size=2", "precision=fp32"))
    assert split == pytest.approx(losses(train("name=d", "precision=fp32")), abs=1e-4)


def test_a_checkpoint_knows_its_data_and_its_vocabulary(train):
    result = train("name=a")
    content = load_checkpoint(find_checkpoint(result.folder, "last"))
    assert content["tokenizer"]["kind"] == "char"
    assert content["settings"]["model"]["vocab_size"] == len(content["tokenizer"]["characters"])
    assert content["data"] == json.loads((result.folder / "receipt.json").read_text())["data"]


def test_a_resume_on_other_text_is_refused_until_it_is_named(train, text, tmp_path):
    result = train("name=a")
    other = tmp_path / "other.txt"
    other.write_text(text.read_text().replace("fish", "shif"))
    go_on = ["name=a", "resume=last", "max_steps=6", f"data.path={other}"]
    config = (result.folder / "config.yaml").read_text()
    with pytest.raises(DataError, match=r"was trained on text-\w+-16, the data now is") as error:
        train(*go_on)
    assert (result.folder / "config.yaml").read_text() == config
    fingerprint = str(error.value).rpartition("data.fingerprint=")[2]
    assert train(*go_on, f"data.fingerprint={fingerprint}").summary["steps"] == 6


def test_a_resume_with_another_tokenizer_is_refused(train):
    train("name=a")
    with pytest.raises(DataError, match=r"its tokenizer is char-\w+, the data's is gpt2-"):
        train("name=a", "resume=last", "max_steps=6", "data.tokenizer=gpt2")


def test_a_tokenizer_of_another_size_is_named_too(train, text, tmp_path):
    train("name=a")
    where = [f"runs_dir={tmp_path / 'runs'}", f"data_dir={tmp_path / 'data'}", "name=a"]
    with pytest.raises(DataError, match=r"its tokenizer is char-\w+, the data's is gpt2-"):
        fit([*where, "resume=last", "max_steps=6", "data.tokenizer=gpt2"])


def test_data_that_is_not_what_it_must_be_is_refused(train, tmp_path):
    with pytest.raises(DataError, match=r"data\.fingerprint: the data is text-.*, not text-nope"):
        train("data.fingerprint=text-nope")
    assert not (tmp_path / "runs").exists()


def test_a_smaller_vocabulary_is_refused_with_both_numbers(train, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.vocab_size: is 10, .* has 20 ids"):
        train("model.vocab_size=10")
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "data").exists()


def test_a_larger_vocabulary_has_room_for_tokens_of_ones_own(train, tmp_path):
    # So many that an untrained model's samples hold some: its samples.md, its text, its likeliest.
    result = train("name=a", "model.vocab_size=4000")
    content = load_checkpoint(find_checkpoint(result.folder, "last"))
    assert content["state_dict"]["model.transformer.wte.weight"].shape == (4000, 48)
    assert re.search(r"<\|\d+\|>", (result.folder / "samples.md").read_text())
    model = load(result.folder, device="cpu")
    assert re.search(r"<\|\d+\|>", generate(model, "one", max_new_tokens=9, temperature=1.0))
    settings = SampleConfig(max_new_tokens=9, logprobs=True)
    ((sample,),) = samples(model, ["one"], settings)
    pieces = [piece for likeliest in sample.alternatives for piece, *_ in likeliest]
    assert any(piece.startswith("<|") for piece in pieces)
    where = [f"runs_dir={tmp_path / 'runs'}", f"data_dir={tmp_path / 'data'}", "name=a"]
    assert fit([*where, "resume=last", "max_steps=6"]).summary["steps"] == 6


def test_a_resume_takes_settings_of_the_shapes_that_the_run_has(train, tmp_path):
    result = train("name=a", "optim=muon", "schedule=wsd")
    where = [f"runs_dir={tmp_path / 'runs'}", f"data_dir={tmp_path / 'data'}", "name=a"]
    own = ["data.eval_tokens=50", "optim.momentum=0.9", "schedule.decay_ratio=0.5"]
    gone_on = fit([*where, "resume=last", "max_steps=6", *own])
    assert gone_on.summary["steps"] == 6
    assert gone_on.folder == result.folder


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.block_size=4096"], r"rhyme\.txt: gives 2862 train tokens, 4097 are needed"),
        (["data.document_mask=true"], r"the char tokenizer of .*rhyme\.txt has no end of text"),
    ],
)
def test_a_corpus_that_will_not_do_is_not_written(train, tmp_path, overrides, message):
    with pytest.raises(DataError, match=message):
        train(*overrides)
    assert [path.name for path in tmp_path.iterdir()] == ["rhyme.txt"]


def test_changed_text_is_refused_by_name(train, text):
    train("name=a")
    text.write_text(text.read_text() + "more")
    with pytest.raises(DataError, match=r"rhyme\.txt: has changed since"):
        train("name=b")


def test_documents_are_masked_from_each_other_where_wanted(train, tmp_path):
    documents = tmp_path / "documents.jsonl"
    lines = [json.dumps({"text": f"{i} green bottles on the wall"}) for i in range(200)]
    documents.write_text("\n".join(lines))
    result = train("name=a", f"data.path={documents}", "data.document_mask=true")
    assert result.summary["steps"] == 4


def test_dates_are_learned_as_pairs(tmp_path):
    result = fit(
        [
            *["model=nano", "data=dates", "max_steps=2", "schedule.warmup_steps=0", "eval_every=1"],
            *[f"runs_dir={tmp_path}", "batch_size=4", "data.eval_examples=8", "name=a"],
        ]
    )
    assert 0 <= result.summary["last"]["val/exact_match"] <= 1
    assert "| right answer |" in (result.folder / "samples.md").read_text()
