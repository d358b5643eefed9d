import gzip
import json

import pyarrow
import pytest

from gpt2lab.config import PairsConfig, PairsSource
from gpt2lab.data.pair_files import Pair, load_pairs, read_pairs, sample, split
from gpt2lab.errors import DataError

LINES = b'{"source": "ab", "target": "c"}\n\n{"target": "\\u00e9", "source": "d", "x": 1}\r\n'
PAIRS = [Pair("ab", "c", 1), Pair("d", "é", 3)]
NUMBERED = [Pair(f"source {i}", f"target {i}", i + 1) for i in range(2000)]


def write(path, pairs):
    lines = (json.dumps({"source": source, "target": target}) for source, target, *_ in pairs)
    path.write_text("\n".join(lines))
    return str(path)


def compressed(data, name):
    if not name.endswith(".zst"):
        return gzip.compress(data) if name.endswith(".gz") else data
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_one_object_a_line_plain_or_compressed(tmp_path, name):
    (tmp_path / name).write_bytes(compressed(LINES, name))
    assert read_pairs(tmp_path / name) == (str(tmp_path / name), PAIRS)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_truncated_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(compressed(LINES * 999, name)[:-9])
    with pytest.raises(DataError, match=rf"{name}: cannot be read \(.*\); make or fetch it anew"):
        read_pairs(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"a.jsonl: is empty; write one \{"),
        (b"\n \n", r"a.jsonl: is empty"),
        (LINES + b"nonsense", r"a.jsonl:4: is not JSON \(.*\); write one \{"),
        (LINES + b"[" * 100_000, r"a.jsonl:4: is not JSON \(.*\); write one \{"),
        (b'["source", "target"]', r"a.jsonl:1: is no JSON object; write one \{"),
        (b'{"source": "a"}', r"a.jsonl:1: has no field target \(its fields: source\); add it"),
        (b"{}", r"a.jsonl:1: has no field source \(its fields: none\); add it"),
        (b'{"source": "a", "target": 3}', r"a.jsonl:1: target is int, not text; write it in"),
        (b'{"source": null, "target": ""}', r"a.jsonl:1: source is NoneType, not text"),
        (b'{"source": "\\ud83d", "target": ""}', r"a.jsonl:1: source holds U\+D83D, half of a"),
        (b'{"x":"\xc3\xa9"}\xff', r"a.jsonl:1: byte 10 \(0xff\) is not UTF-8; save the file as"),
        # the third line starts at byte 33 and is broken 12 bytes later
        (LINES[:33] + b'{"source": "\xe9"}', r"a.jsonl:3: byte 45 \(0xe9\) is not UTF-8"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, content, problem):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_pairs(tmp_path / "a.jsonl")


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.jsonl: there is no such file; check data\.path"):
        read_pairs(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r": is a directory; name a \.jsonl file in it"):
        read_pairs(tmp_path)
    with pytest.raises(DataError, match=r"data\.path: is null; give a \.jsonl file"):
        load_pairs(PairsConfig())


def test_a_hash_of_the_pair_holds_out_a_share():
    train, held_out = split(NUMBERED, 0.25)
    assert sorted(train + held_out) == sorted(NUMBERED)
    # four standard deviations of 2,000 throws
    assert len(held_out) / 2000 == pytest.approx(0.25, abs=0.04)
    assert [pair.line for pair in held_out[:5]] == [3, 5, 10, 19, 22]


def test_equal_pairs_stay_together_and_new_ones_move_none():
    train, held_out = split(NUMBERED, 0.25)
    more = [pair._replace(line=pair.line + 2000) for pair in NUMBERED]
    train_of_both, held_out_of_both = split(more[::-1] + NUMBERED, 0.25)
    assert {pair[:2] for pair in train_of_both} == {pair[:2] for pair in train}
    assert {pair[:2] for pair in held_out_of_both} == {pair[:2] for pair in held_out}


def test_a_sample_is_the_same_for_any_order_of_the_pairs():
    assert sample(NUMBERED, 2000) == NUMBERED
    chosen = sample(NUMBERED, 100)
    assert len(chosen) == 100
    assert chosen == sorted(chosen, key=lambda pair: pair.line)
    assert sample(NUMBERED[::-1], 100) == chosen[::-1]


def test_pairs_of_a_file_of_its_own_are_evaluated(tmp_path):
    path, val_path = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    config = PairsConfig(path=write(path, NUMBERED[:9]), val_path=write(val_path, NUMBERED[9:20]))
    train, val = load_pairs(config)
    assert (train.origin, len(train.pairs)) == (str(path), 9)
    assert (val.origin, len(val.pairs)) == (str(val_path), 11)
    config.eval_examples = 4
    assert len(load_pairs(config)[1].pairs) == 4


def test_nothing_to_train_on_or_to_evaluate_is_refused(tmp_path):
    config = PairsConfig(path=write(tmp_path / "a.jsonl", PAIRS), val_share=1e-9)
    with pytest.raises(DataError, match=r"val_share=1e-09 leaves 2 pairs to train on and 0 to ev"):
        load_pairs(config)
    config.val_share = 1 - 1e-9
    with pytest.raises(DataError, match=r"leaves 0 pairs to train on and 2 to evaluate; choose"):
        load_pairs(config)


def test_generated_dates_need_no_file():
    train, val = load_pairs(PairsConfig(source=PairsSource.dates))
    assert len(val.pairs) == 4096
    # a tenth of 73,049 is held out, give or take four standard deviations
    assert len(train.pairs) == pytest.approx(0.9 * 73_049, abs=330)
    assert not {pair[:2] for pair in train.pairs} & {pair[:2] for pair in val.pairs}
