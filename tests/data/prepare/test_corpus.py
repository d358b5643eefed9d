"""Documents become token files: the right ids, split by content, whole or not at all."""

import json
import os

import numpy as np
import pytest

from gpt2lab.config import TextConfig, TextErrors, TextSource, Vocabulary
from gpt2lab.data.prepare import batches, corpus_folder, files, prepare
from gpt2lab.data.prepare.batches import is_val
from gpt2lab.data.tokens import open_corpus
from tests.data.prepare.corpora import (
    DOCUMENTS,
    WORDS,
    config,
    contents,
    decoded,
    refused,
    write_jsonl,
)


@pytest.mark.parametrize("tokenizer", list(Vocabulary))
def test_documents_are_joined_by_end_of_text_and_split_by_content(tmp_path, tokenizer):
    path = write_jsonl(tmp_path / "a.jsonl")
    folder = prepare(config(path, tokenizer=tokenizer, val_share=0.3), tmp_path)
    train, val = decoded(folder)
    assert val == [d for d in DOCUMENTS if is_val(d.encode(), 0.3)]
    assert train == [d for d in DOCUMENTS if not is_val(d.encode(), 0.3)]
    assert 0.2 < len(val) / len(DOCUMENTS) < 0.4


def test_the_hash_of_a_document_never_changes():
    # A change here would move documents between the splits of corpora that are prepared already.
    assert [is_val(d.encode(), 0.5) for d in WORDS] == [False, True, True, False, True, False, True]
    assert not is_val(b"", 0.0)


def test_the_manifest_says_what_is_there(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    folder = prepare(config(path), tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dtype"] == "uint16"
    assert sum(s["documents"] for s in manifest["splits"].values()) == len(DOCUMENTS)
    assert sum(s["bytes"] for s in manifest["splits"].values()) == sum(
        len(d.encode()) for d in DOCUMENTS
    )
    assert manifest["source"]["files"][0]["path"] == str(path)
    assert sorted(contents(folder)) == ["manifest.json", "train.bin", "val.bin"]
    assert folder.name.startswith("a-gpt2-")
    assert [p.name for p in tmp_path.iterdir() if p != path] == [folder.name]


def test_a_vocabulary_beyond_16_bits_takes_32(tmp_path):
    characters = "".join(map(chr, [*range(0x20, 0xD800), *range(0x10000, 0x14000)]))
    path = tmp_path / "a.txt"
    path.write_text(characters)
    corpus = open_corpus(prepare(config(path, tokenizer=Vocabulary.char), tmp_path))
    assert corpus.train[0].dtype == np.uint32
    assert corpus.tokenizer.decode(corpus.train[0]) == characters[: int(len(characters) * 0.9)]


@pytest.mark.parametrize("size", [2**22, 7])
@pytest.mark.parametrize("tokenizer", list(Vocabulary))
def test_one_document_is_split_by_position(tmp_path, monkeypatch, size, tokenizer):
    monkeypatch.setattr(files, "CHUNK_BYTES", size)
    monkeypatch.setattr(batches, "BATCH_CHARS", size)
    text = "To be, or not to be: ünd 🤗 that is the question.\n" * 3
    path = tmp_path / "a.txt"
    path.write_text(text)
    corpus = open_corpus(prepare(config(path, tokenizer=tokenizer), tmp_path))
    border = int(len(text) * 0.9)
    encode = corpus.tokenizer.encode
    assert corpus.train[0].tolist() == encode(text[:border])
    assert corpus.val[0].tolist() == encode(text[border:])  # no end of text in either
    if tokenizer is Vocabulary.char:
        assert corpus.tokenizer.vocab_size == len(set(text))


def test_long_documents_are_split_like_short_ones(tmp_path, monkeypatch):
    for number, document in enumerate(DOCUMENTS):
        (tmp_path / f"{number:03}.txt").write_text(document)
    whole = prepare(config(tmp_path / "*.txt"), tmp_path / "a")
    monkeypatch.setattr(files, "CHUNK_BYTES", 5)
    monkeypatch.setattr(batches, "BATCH_CHARS", 6)
    pieced = prepare(config(tmp_path / "*.txt"), tmp_path / "b")
    for name in ("train.bin", "val.bin"):
        assert (whole / name).read_bytes() == (pieced / name).read_bytes()


@pytest.mark.usefixtures("tiny_batches")
def test_several_processes_write_the_same_bytes(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    one = prepare(config(path), tmp_path / "one")
    two = prepare(config(path, num_processes=2), tmp_path / "two")
    assert contents(one) == contents(two)


def test_a_dataset_may_bring_its_own_split(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    (tmp_path / "books").mkdir()
    write_jsonl(tmp_path / "books" / "train.jsonl", DOCUMENTS)
    write_jsonl(tmp_path / "books" / "validation.jsonl", ["last", "words"])
    named = TextConfig(
        source=TextSource.hub, dataset=str(tmp_path / "books"), val_split="validation"
    )
    assert decoded(prepare(named, tmp_path)) == [DOCUMENTS, ["last", "words"]]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty; "),
        (b"\n\n", "holds no text; "),
        (b'{"text": ""}\n', "holds no text; "),
        (b'{"text": "x"}\n', "its 1 characters are too few for data.val_share=0.1 to leave some"),
        (b'{"text": "xy"}\n' * 2, "no document of 2 is left for the validation split by data.val"),
        (b'{"text": "' + b"x" * 200 + b'"}\n{"text": \n', "2: is not JSON"),
        (b'{"text": "' + b"x" * 200 + b'"}\n\xff\n', "byte 213 is not UTF-8"),
    ],
)
@pytest.mark.usefixtures("tiny_batches")
def test_what_is_no_corpus_is_refused_and_nothing_is_left(tmp_path, content, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    problem = refused(prepare, config(path), tmp_path / "new" / "data")
    assert problem.startswith(f"{path}:")
    assert what in problem
    assert "; " in problem
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("share", "split"), [(1e-9, "validation"), (1 - 1e-9, "training")])
def test_an_empty_split_is_named(tmp_path, share, split):
    path = write_jsonl(tmp_path / "a.jsonl", ["ab"] * 9)
    problem = refused(prepare, config(path, val_share=share), tmp_path)
    assert f"no document of 9 is left for the {split} split by data.val_share={share}" in problem


def test_replaced_bytes_are_told_once(tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_bytes(b"some \xff words and \xff more of them")
    folder = prepare(config(path, errors=TextErrors.replace), tmp_path)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("warning: ")] == [
        f"warning: {path}: 2 times bytes were not UTF-8, replaced"
    ]
    assert "\ufffd" in open_corpus(folder).tokenizer.decode(open_corpus(folder).train[0])


def test_a_folder_that_is_no_corpus_is_left_alone(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    folder = corpus_folder(config(path), tmp_path)
    folder.mkdir()
    (folder / "mine").touch()
    assert refused(prepare, config(path), tmp_path).startswith(f"{folder}: is there, but is no")
    assert [p.name for p in folder.iterdir()] == ["mine"]


def test_a_data_dir_that_is_a_file_is_named(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    assert str(path) in refused(prepare, config(path), path)


def test_what_is_prepared_is_not_prepared_again(tmp_path, capsys):
    path = write_jsonl(tmp_path / "a.jsonl")
    folder = prepare(config(path), tmp_path)
    before = contents(folder)
    assert capsys.readouterr().err
    os.utime(path, (1, 1))  # touched, the content is the same
    assert prepare(config(path), tmp_path) == folder
    path.unlink()
    assert prepare(config(path), tmp_path) == folder
    assert contents(folder) == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["longer", "as long", "added"])
def test_text_that_has_changed_since_is_refused(tmp_path, change):
    text = tmp_path / "text"
    text.mkdir()
    path = write_jsonl(text / "a.jsonl")
    folder = prepare(config(text), tmp_path)
    before = contents(folder)
    if change == "added":
        path = write_jsonl(text / "b.jsonl")
    else:
        content = path.read_text()
        path.write_text(content + "\n" if change == "longer" else content.replace("red", "tan"))
        os.utime(path, (1, 1))
    what = "was added" if change == "added" else "has changed"
    assert refused(prepare, config(text), tmp_path) == (
        f"{path}: {what} since {folder} was prepared; remove that folder to prepare it anew"
    )
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["manifest.json", "train.bin", "fineweb_val_000000.bin"])
def test_token_files_are_taken_as_they_are(tmp_path, name):
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / name).touch()
    paths = [tmp_path / "tokens"] + ([tmp_path / "tokens" / "*.bin"] if ".bin" in name else [])
    for path in paths:
        assert prepare(config(path), tmp_path / "data") == path
    assert not (tmp_path / "data").exists()
