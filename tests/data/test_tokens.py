import hashlib
import json
import os
import pickle

import numpy as np
import pytest

from gpt2lab.data import verify
from gpt2lab.data.tokens import MANIFEST, fingerprint_of, is_prepared, open_corpus
from gpt2lab.errors import DataError
from gpt2lab.tokenizer import CharTokenizer, gpt2_tokenizer

TRAIN, VAL = [2, 0, 1, 1, 2, 0, 2], [1, 2, 0]


def prepared(folder, tokenizer=None, dtype="uint16", **changes):
    """A corpus as `prepare` leaves it."""
    tokenizer = tokenizer or CharTokenizer("abc")
    folder.mkdir(exist_ok=True)
    splits = {}
    for name, ids in (("train", TRAIN), ("val", VAL)):
        content = np.array(ids, f"<{dtype[0]}{int(dtype[4:]) // 8}").tobytes()
        (folder / f"{name}.bin").write_bytes(content)
        splits[name] = {
            "file": f"{name}.bin",
            "tokens": len(ids),
            "documents": 1,
            "bytes": len(ids),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    manifest = {
        "format": 1,
        "tokenizer": tokenizer.plain(),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "dtype": dtype,
        "splits": splits,
        "source": {},
        "fingerprint": fingerprint_of(tokenizer, [split["sha256"] for split in splits.values()]),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))
    return folder


def nanogpt(folder, train=TRAIN, val=VAL, meta=None):
    folder.mkdir(exist_ok=True)
    np.array(train, "<u2").tofile(folder / "train.bin")
    np.array(val, "<u2").tofile(folder / "val.bin")
    if meta is not None:
        (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return folder


CHAR_META = {"vocab_size": 3, "itos": dict(enumerate("abc")), "stoi": {"a": 0, "b": 1, "c": 2}}


def shard(path, ids, magic=20240520, version=1, tokens=None):
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids) if tokens is None else tokens
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(header.tobytes() + np.array(ids, "<u2").tobytes())


def shards(folder):
    shard(folder / "fineweb_val_000000.bin", VAL)
    shard(folder / "fineweb_train_000001.bin", TRAIN)
    shard(folder / "fineweb_train_000002.bin", [50256, 5])
    return folder


def contents(files):
    return [file.tolist() for file in files]


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_a_prepared_folder_is_read(tmp_path, dtype):
    corpus = open_corpus(prepared(tmp_path / "c", dtype=dtype))
    assert (contents(corpus.train), contents(corpus.val)) == ([TRAIN], [VAL])
    assert corpus.train[0].dtype == dtype
    assert corpus.tokenizer.fingerprint == CharTokenizer("abc").fingerprint
    sums = [
        hashlib.sha256((tmp_path / "c" / f"{n}.bin").read_bytes()).hexdigest()
        for n in ("train", "val")
    ]
    assert corpus.fingerprint == fingerprint_of(corpus.tokenizer, sums)


def test_files_are_mapped_and_cannot_be_written_to(tmp_path):
    corpus = open_corpus(prepared(tmp_path / "c"))
    for file in (*corpus.train, *corpus.val):
        assert isinstance(file, np.memmap)
        assert not file.flags.writeable


def test_a_folder_without_a_manifest_is_no_corpus_of_ours(tmp_path):
    folder = prepared(tmp_path / "c")
    assert is_prepared(folder)
    (folder / MANIFEST).unlink()
    assert not is_prepared(folder)


def test_nanogpt_ids_are_gpt2_ids_or_characters(tmp_path):
    corpus = open_corpus(nanogpt(tmp_path / "bpe"))
    assert (contents(corpus.train), contents(corpus.val)) == ([TRAIN], [VAL])
    assert corpus.tokenizer.fingerprint == gpt2_tokenizer().fingerprint
    corpus = open_corpus(nanogpt(tmp_path / "char", meta=CHAR_META))
    assert corpus.tokenizer.fingerprint == CharTokenizer("abc").fingerprint
    assert corpus.tokenizer.decode(TRAIN) == "cabbcac"


def test_shards_are_read_from_a_folder_or_a_glob(tmp_path):
    corpus = open_corpus(shards(tmp_path / "s"))
    assert contents(corpus.train) == [TRAIN, [50256, 5]]
    assert contents(corpus.val) == [VAL]
    some = open_corpus(tmp_path / "s" / "fineweb_*_00000[01].bin")
    assert contents(some.train) == [TRAIN]
    assert some.fingerprint != corpus.fingerprint


def test_shards_named_without_a_number_are_read(tmp_path):
    shard(tmp_path / "tiny_shakespeare_train.bin", TRAIN)
    shard(tmp_path / "tiny_shakespeare_val.bin", VAL)
    assert contents(open_corpus(tmp_path).train) == [TRAIN]


def test_a_fingerprint_follows_the_content(tmp_path):
    first = open_corpus(nanogpt(tmp_path / "a")).fingerprint
    assert open_corpus(nanogpt(tmp_path / "b")).fingerprint == first
    assert open_corpus(nanogpt(tmp_path / "c", train=[*TRAIN, 1])).fingerprint != first
    assert open_corpus(nanogpt(tmp_path / "d", meta=CHAR_META)).fingerprint != first


def flip(path, at=2):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path, to):
    path.write_bytes(path.read_bytes()[:to])


DAMAGES = {
    "gone": (lambda f: (f / "train.bin").unlink(), "train.bin: No such file or directory"),
    "a folder": (
        lambda f: ((f / "train.bin").unlink(), (f / "train.bin").mkdir()),
        "train.bin: is no ordinary file",
    ),
    "empty": (lambda f: cut(f / "val.bin", 0), "val.bin: is empty"),
    "truncated": (
        lambda f: cut(f / "train.bin", 10),
        "train.bin: has 10 bytes, its manifest says 14",
    ),
    "longer": (
        lambda f: (f / "val.bin").write_bytes(bytes(8)),
        "val.bin: has 8 bytes, its manifest says 6",
    ),
    "flipped": (lambda f: flip(f / "train.bin"), "train.bin: has sha256 .*, its manifest says"),
    "flipped in val": (lambda f: flip(f / "val.bin"), "val.bin: has sha256"),
    "no JSON": (lambda f: (f / MANIFEST).write_text("{"), "manifest.json: is not JSON"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "manifest.json: has format None, 1 is"),
    "binary": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe\x00"), "manifest.json: is not JSON"),
    "another format": (lambda f: prepared(f, format=2), "manifest.json: has format 2, 1 is read"),
    "no splits": (lambda f: prepared(f, splits=[]), "manifest.json: is not a whole manifest"),
    "no val": (lambda f: prepared(f, splits={}), "manifest.json: is not a whole manifest"),
    "another dtype": (lambda f: prepared(f, dtype="uint16", splits={}), "not a whole manifest"),
    "another tokenizer": (
        lambda f: prepared(f, tokenizer_fingerprint="char-0"),
        "manifest.json: its ids are of tokenizer char-0, this one is char-",
    ),
    "too large an id": (
        lambda f: prepared(f, tokenizer=CharTokenizer("ab")),
        "train.bin: holds id 2, char has ids below 2",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_corpus_is_refused(tmp_path, damage):
    folder = prepared(tmp_path / "c")
    open_corpus(folder)
    make, message = DAMAGES[damage]
    make(folder)
    with pytest.raises(DataError, match=message):
        open_corpus(folder)


def test_a_path_without_token_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere: does not exist; give a folder"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no training file among 0 token files"):
        open_corpus(tmp_path)
    with pytest.raises(DataError, match="has no training file among 0 token files"):
        open_corpus(tmp_path / "*_train_*.bin")
    nanogpt(tmp_path)
    with pytest.raises(DataError, match=r"train.bin: is one file; give a folder"):
        open_corpus(tmp_path / "train.bin")


def test_a_corpus_without_validation_is_refused(tmp_path):
    folder = nanogpt(tmp_path / "n")
    (folder / "val.bin").unlink()
    with pytest.raises(DataError, match=r"val.bin: does not exist; add a file of validation ids"):
        open_corpus(folder)
    shard(tmp_path / "s" / "fineweb_train_000001.bin", TRAIN)
    with pytest.raises(DataError, match="has no validation file among 1 token files"):
        open_corpus(tmp_path / "s")


def test_half_an_id_is_refused(tmp_path):
    folder = nanogpt(tmp_path)
    cut(folder / "train.bin", 13)
    with pytest.raises(DataError, match=r"train.bin: has 13 bytes, .* an even number"):
        open_corpus(folder)


def test_ids_beyond_gpt2s_vocabulary_are_refused(tmp_path):
    folder = nanogpt(tmp_path, val=[50256, 50257])
    with pytest.raises(DataError, match=r"val.bin: holds id 50257, gpt2 has ids below 50257"):
        open_corpus(folder)


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize(
    "meta",
    [
        Canary(),
        {"itos": Canary()},
        {"itos": {0: "b", 1: "a", 2: "c"}},  # not in code-point order
        {"itos": {0: "a", 1: "a", 2: "c"}},
        {"itos": {0: "a", 2: "c"}},
        {"itos": {0: "ab", 1: "c"}},
        {"itos": 3},
        {},
        [1],
    ],
)
def test_a_meta_file_is_a_character_vocabulary_or_refused(tmp_path, monkeypatch, meta):
    monkeypatch.chdir(tmp_path)
    folder = nanogpt(tmp_path / "n", meta=meta)
    with pytest.raises(DataError, match=r"meta.pkl: is not a character vocabulary"):
        open_corpus(folder)
    assert not (tmp_path / "canary").exists()


def test_a_damaged_meta_file_is_refused(tmp_path):
    folder = nanogpt(tmp_path, meta=CHAR_META)
    whole = (folder / "meta.pkl").read_bytes()
    for content in (b"", b"garbage", whole[:-5], bytes(100)):
        (folder / "meta.pkl").write_bytes(content)
        with pytest.raises(DataError, match=r"meta\.pkl"):
            open_corpus(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": 20240801, "version": 7}, "magic 20240801, version 7 .llama-3"),
        ({"magic": 1}, "magic 1, version 1; shards of GPT-2 ids with magic 20240520, version 1"),
        ({"version": 2}, "magic 20240520, version 2;"),
        ({"tokens": 9}, "has 1,038 bytes, the 9 ids of its header need 1,042"),
        ({"tokens": 3}, "has 1,038 bytes, the 3 ids of its header need 1,030"),
        ({"tokens": -1}, "has 1,038 bytes, the -1 ids"),
    ],
)
def test_a_shard_of_another_kind_or_size_is_refused(tmp_path, changes, message):
    folder = shards(tmp_path / "s")
    shard(folder / "fineweb_train_000001.bin", TRAIN, **changes)
    with pytest.raises(DataError, match=f"fineweb_train_000001.bin: .*{message}"):
        open_corpus(folder)


@pytest.mark.parametrize(
    ("size", "message"), [(0, "is empty"), (1000, "its header needs"), (1024, "of its header need")]
)
def test_a_shard_without_ids_is_refused(tmp_path, size, message):
    folder = shards(tmp_path / "s")
    cut(folder / "fineweb_val_000000.bin", size)
    with pytest.raises(DataError, match=f"fineweb_val_000000.bin: .*{message}"):
        open_corpus(folder)
    shard(folder / "fineweb_val_000000.bin", [])
    with pytest.raises(DataError, match="is empty, its header says 0 ids"):
        open_corpus(folder)


def count_readings(monkeypatch):
    read = []
    original = verify._read_through
    monkeypatch.setattr(
        verify, "_read_through", lambda file: (read.append(file.path.name), original(file))[1]
    )
    return read


def test_a_small_corpus_is_read_through_at_every_start(tmp_path, monkeypatch):
    folder = prepared(tmp_path / "c")
    read = count_readings(monkeypatch)
    for _ in range(2):
        open_corpus(folder)
    assert read == ["train.bin", "val.bin"] * 2
    assert not (folder / "verified.json").exists()


def test_a_large_file_is_read_through_when_it_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "ALWAYS_READ_BYTES", 10)  # train.bin has 14 bytes, val.bin 6
    folder = prepared(tmp_path / "c")
    read = count_readings(monkeypatch)
    for _ in range(2):
        open_corpus(folder)
    assert read == ["train.bin", "val.bin", "val.bin"]
    read.clear()
    flip(folder / "train.bin")
    os.utime(folder / "train.bin", ns=(1, 1))
    with pytest.raises(DataError, match=r"train.bin: has sha256"):
        open_corpus(folder)
    with pytest.raises(DataError, match=r"train.bin: has sha256"):
        open_corpus(folder)  # a failed check is not recorded
    assert read == ["train.bin", "train.bin"]


def test_large_shards_are_read_through_once(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "ALWAYS_READ_BYTES", 0)
    folder = shards(tmp_path / "s")
    read = count_readings(monkeypatch)
    first = open_corpus(folder)
    assert sorted(read) == sorted(path.name for path in folder.glob("*.bin"))
    assert open_corpus(folder).fingerprint == first.fingerprint
    assert len(read) == 3


@pytest.mark.parametrize("record", ["{", "[]", '{"train.bin": 3}', '{"train.bin": {}}'])
def test_a_damaged_record_of_readings_costs_a_reading(tmp_path, monkeypatch, record):
    monkeypatch.setattr(verify, "ALWAYS_READ_BYTES", 0)
    folder = prepared(tmp_path / "c")
    (folder / "verified.json").write_text(record)
    read = count_readings(monkeypatch)
    open_corpus(folder)
    assert read == ["train.bin", "val.bin"]


def test_a_record_that_cannot_be_written_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "ALWAYS_READ_BYTES", 0)
    folder = prepared(tmp_path / "c")
    (folder / "verified.json").mkdir()
    assert contents(open_corpus(folder).train) == [TRAIN]
    assert not list(folder.glob(".*"))


def test_chunks_leave_out_no_id(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "CHUNK_IDS", 2)
    open_corpus(prepared(tmp_path / "c"))
    with pytest.raises(DataError, match="holds id 2"):
        open_corpus(prepared(tmp_path / "d", tokenizer=CharTokenizer("ab")))
    with pytest.raises(DataError, match="holds id 60000"):
        open_corpus(nanogpt(tmp_path / "e", val=[0, 0, 0, 60_000]))
