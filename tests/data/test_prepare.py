"""Documents become token files: the right ids, split by content, whole or not at all."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2lab.config import TextConfig, TextErrors, TextSource, Vocabulary
from gpt2lab.data import batches, files, partial
from gpt2lab.data.batches import between, is_val, pieces
from gpt2lab.data.partial import locked, partial_of
from gpt2lab.data.prepare import corpus_folder, prepare
from gpt2lab.data.progress import Progress
from gpt2lab.data.tokens import open_corpus
from gpt2lab.errors import DataError
from gpt2lab.tokenizer import gpt2_tokenizer

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


@pytest.fixture
def tiny_batches(monkeypatch):
    """Many batches, and a journal after each of them."""
    monkeypatch.setattr(batches, "BATCH_CHARS", 100)
    monkeypatch.setattr(partial, "SAVE_EVERY_S", 0.0)


# --- ids


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(" \n\t\r\x1c\x85\u3000a1'sé🤗.<|>", max_size=40) | st.text(" \na") | st.text(),
    width=st.integers(1, 9),
    size=st.integers(1, 9),
)
@example(text="a\n\n\n b", width=3, size=1)
def test_a_text_in_pieces_has_the_ids_of_the_whole(text, width, size):
    chunks = [text[i : i + width] for i in range(0, len(text), width)]
    found = list(pieces(chunks, size))
    assert "".join(found) == text
    encode = gpt2_tokenizer().encode
    assert [i for piece in found for i in encode(piece)] == encode(text)


def test_a_long_text_is_cut_as_soon_as_it_can_be():
    words = "word " * 100
    assert max(map(len, pieces([words[i : i + 10] for i in range(0, 500, 10)], 20))) <= 30
    assert list(pieces(["ab", "cd", "ef gh", " ij"], 2)) == ["abcdef", " gh", " ij"]


@given(st.text(max_size=20), st.integers(0, 22), st.integers(0, 22), st.integers(1, 5))
def test_between_is_a_slice(text, start, stop, width):
    chunks = [text[i : i + width] for i in range(0, len(text), width)]
    assert "".join(between(chunks, start, stop)) == text[start:stop]


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


# --- refusals


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


# --- prepared already


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


# --- kills, interrupts, full disks


def run(code, *arguments, **options):
    """A process of its own that prepares in tiny batches, after `code` has run."""
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from gpt2lab.config import TextConfig
        from gpt2lab.data import batches, partial
        from gpt2lab.data.prepare import prepare
        def main():
            batches.BATCH_CHARS, partial.SAVE_EVERY_S = 100, 0.0
            {code}
            path, data_dir, processes = sys.argv[1:]
            prepare(TextConfig(path=path, num_processes=int(processes)), Path(data_dir))
        if __name__ == "__main__":
            main()
    """).replace("{code}", textwrap.indent(textwrap.dedent(code), " " * 4).strip())
    file = Path(arguments[1]).parent / "program.py"
    file.write_text(program)
    return subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


KILL = """
left, add = {number}, partial.SplitFile.add
def dies(self, part):
    nonlocal left
    left -= 1
    add(self, part)
    if left == 0:
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
partial.SplitFile.add = dies
"""


@pytest.mark.parametrize(("number", "processes"), [(1, 1), (17, 1), (20, 2)])
@pytest.mark.usefixtures("tiny_batches")
def test_a_killed_preparation_goes_on_to_the_same_bytes(tmp_path, capsys, number, processes):
    path = write_jsonl(tmp_path / "a.jsonl")
    straight = contents(prepare(config(path), tmp_path / "straight"))
    # With two processes this returns only once the orphans have closed their end of stderr.
    killed = run(KILL.format(number=number), path, tmp_path / "data", processes)
    assert killed.returncode == -9, killed.stderr
    folder = corpus_folder(config(path), tmp_path / "data")
    assert not folder.exists()
    journal = json.loads((partial_of(folder) / "journal.json").read_text())
    assert journal["batches"] < number
    capsys.readouterr()
    assert prepare(config(path), tmp_path / "data") == folder
    assert ("goes on behind batch" in capsys.readouterr().err) == (journal["batches"] > 0)
    assert contents(folder) == straight
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("tiny_batches")
def test_a_kill_before_the_corpus_gets_its_name_costs_nothing(tmp_path, monkeypatch, capsys):
    def killed(*_):
        raise SystemExit

    path = write_jsonl(tmp_path / "a.jsonl")
    straight = contents(prepare(config(path), tmp_path / "straight"))
    with monkeypatch.context() as patch:
        patch.setattr("gpt2lab.data.prepare.publish", killed)
        with pytest.raises(SystemExit):
            prepare(config(path), tmp_path / "data")
    capsys.readouterr()
    assert contents(prepare(config(path), tmp_path / "data")) == straight
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["source", "journal", "file"])
@pytest.mark.usefixtures("tiny_batches")
def test_a_journal_that_no_longer_fits_is_not_gone_on_from(tmp_path, monkeypatch, capsys, change):
    path = write_jsonl(tmp_path / "a.jsonl")
    interrupt(monkeypatch, config(path), tmp_path / "data", 9)
    folder = corpus_folder(config(path), tmp_path / "data")
    if change == "source":
        write_jsonl(path, DOCUMENTS[::-1])
    elif change == "journal":
        (partial_of(folder) / "journal.json").write_text("{")
    else:
        (partial_of(folder) / "train.bin").write_bytes(b"")
    capsys.readouterr()
    prepare(config(path), tmp_path / "data")
    assert "goes on" not in capsys.readouterr().err
    assert contents(folder) == contents(prepare(config(path), tmp_path / "straight"))


def interrupt(monkeypatch, settings, data_dir, number):
    """Ctrl-C in the middle of a batch: one split is written, the other is not."""
    add, left = partial.SplitFile.add, [number]

    def interrupted(self, part):
        left[0] -= 1
        add(self, part)
        if left[0] == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(partial.SplitFile, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings, data_dir)


@pytest.mark.usefixtures("tiny_batches")
def test_an_interrupt_leaves_what_stands_and_says_so(tmp_path, monkeypatch, capsys):
    path = write_jsonl(tmp_path / "a.jsonl")
    monkeypatch.setattr(partial, "SAVE_EVERY_S", 1e9)  # the interrupt alone writes the journal
    for number in (9, 10):
        interrupt(monkeypatch, config(path), tmp_path / "data", number)
        folder = corpus_folder(config(path), tmp_path / "data")
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"{partial_of(folder)}: is not whole yet; the same command goes on from there"
        )
    prepare(config(path), tmp_path / "data")
    assert "goes on behind batch" in capsys.readouterr().err
    assert contents(folder) == contents(prepare(config(path), tmp_path / "straight"))


def test_a_full_disk_is_named_and_gone_on_from(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    # A file size limit stands for a full disk: the same place fails, with another number.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))"
    full = run(limit, path, tmp_path / "data", 1)
    folder = corpus_folder(config(path), tmp_path / "data")
    assert "DiskError" in full.stderr.splitlines()[-1]
    assert f"{partial_of(folder)}/" in full.stderr.splitlines()[-1]
    assert " bytes stand, " in full.stderr.splitlines()[-1]
    assert not list(partial_of(folder).glob(".*"))
    assert not folder.exists()
    done = run("", path, tmp_path / "data", 1)
    assert "goes on behind batch" in done.stderr
    straight = run("", path, tmp_path / "straight", 1)
    assert straight.returncode == done.returncode == 0
    (other,) = (tmp_path / "straight").iterdir()
    assert contents(folder) == contents(other)


@pytest.mark.parametrize("leaves", ["its partial folder", "nothing"])
@pytest.mark.usefixtures("tiny_batches")
def test_a_second_preparation_waits_for_the_first(tmp_path, capsys, leaves):
    path = write_jsonl(tmp_path / "a.jsonl")
    folder = corpus_folder(config(path), tmp_path)
    with locked(folder) as held:
        second = threading.Thread(target=prepare, args=(config(path), tmp_path))
        second.start()
        while "waiting" not in (told := capsys.readouterr().err):
            time.sleep(0.01)
        assert f"{held}: is written by process {os.getpid()} on " in told
        assert second.is_alive()
        assert not folder.exists()
        if leaves == "nothing":
            shutil.rmtree(held)
    second.join(10)
    assert len(decoded(folder)[0]) > 0


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl")
    lock = partial_of(corpus_folder(config(path), tmp_path)) / "lock"
    lock.parent.mkdir()
    lock.write_text("process 999999 on elsewhere")
    assert prepare(config(path), tmp_path).is_dir()


# --- progress


def test_a_line_tells_speed_share_and_time_left():
    progress = Progress(total=1000, start=200)
    progress.began = 50.0
    progress.tokens = 12_000
    assert progress.line(400, 54.0) == "12,000 tokens, 3,000 tokens/s, 40%, 12 s left"
    progress.total = None
    assert progress.line(400, 54.0) == "12,000 tokens, 3,000 tokens/s"


@pytest.mark.usefixtures("tiny_batches")
def test_without_a_terminal_progress_is_plain_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gpt2lab.data.progress.LINE_EVERY_S", 0.0)
    prepare(config(write_jsonl(tmp_path / "a.jsonl")), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"[\d,]+ tokens, [\d,]+ tokens/s, 100%, 0 s left", lines[-2])
    assert not any("\x1b" in line for line in lines)
