"""Corpora that are missing, damaged, too short, or not what they were."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.lab import SORT, TEXT, VERSES, Lab, refused, row
from tests.faults.places import STEP
from tests.faults.same import assert_same_end, last_checkpoint

WORDS = " ".join(f"word{n}" for n in range(400))


def prepared(lab: Lab) -> tuple[Path, Path]:
    """A copy of a run on text and of its token files, to be damaged."""
    cwd = lab.copy_of(lab.straight(lab.text))
    shutil.copytree(lab.tokens, cwd / "tokens")
    return cwd, cwd / "tokens"


@row("corpus missing, a directory, empty, too short, without validation")
def unusable(lab: Lab) -> None:
    """Before the first step: the path, what is there and what is needed; no run folder."""
    makers: dict[str, tuple[Callable[[Path], object], list[str]]] = {
        "missing": (lambda path: None, ["corpus.txt"]),
        "an empty directory": (Path.mkdir, ["corpus.txt"]),
        "empty": (Path.touch, ["corpus.txt"]),
        "only blanks": (lambda path: path.write_text(" \n\n "), []),
        "shorter than one window": (lambda path: path.write_text("short text."), ["17"]),
    }
    for what, (make, words) in makers.items():
        with lab.case(what):
            cwd = lab.fresh()
            make(cwd / "corpus.txt")
            settings = [*TEXT, "name=a", "data.path=corpus.txt"]
            refused(lab.train(cwd, *settings), *words)
            assert not (cwd / "runs").exists()
    with lab.case("an empty validation split"):
        cwd = lab.fresh()
        (cwd / "corpus.txt").write_text("ab" * 30)
        done = lab.train(cwd, *TEXT, "name=a", "data.path=corpus.txt", "data.val_share=0.001")
        refused(done)
        assert not (cwd / "runs").exists()
    with lab.case("a folder of files of other kinds"):
        cwd = lab.fresh()
        (cwd / "corpus").mkdir()
        (cwd / "corpus" / "picture.png").write_bytes(b"\x89PNG")
        refused(lab.train(cwd, *TEXT, "name=a", "data.path=corpus"), "corpus")
        assert not (cwd / "runs").exists()


@row("invalid UTF-8")
def invalid(lab: Lab) -> None:
    """Strict names the file and the byte's place; replace counts and warns."""
    text = VERSES.encode() * 8
    places = {"the first byte": 0, "the middle": len(text) // 2, "the last byte": len(text) - 1}
    # readers work in chunks of powers of two, at whose edge a character may be cut
    places |= {f"an edge at {edge}": edge - 1 for edge in (4096, 2**16, 2**20) if edge < len(text)}
    for what, place in places.items():
        with lab.case(what):
            cwd = lab.fresh()
            broken = bytearray(text)
            broken[place] = 0xFF
            (cwd / "corpus.txt").write_bytes(broken)
            settings = [*TEXT, "name=a", "data.path=corpus.txt", "max_steps=2"]
            refused(lab.train(cwd, *settings), "corpus.txt", f"{place:,}")
            assert not (cwd / "runs").exists()
            done = lab.train(cwd, *settings, "data.errors=replace")
            assert done.code == 0, done.err
            assert "corpus.txt: 1 times" in done.out + done.err, f"no warning: {done.err}"
    with lab.case("a character that the end cuts"):
        cwd = lab.fresh()
        (cwd / "corpus.txt").write_bytes(text + "€".encode()[:2])
        done = lab.train(cwd, *TEXT, "name=a", "data.path=corpus.txt")
        refused(done, "corpus.txt", f"{len(text):,}")
    for edge in (4096, 2**16):
        with lab.case(f"a whole character across {edge} is none of these"):
            cwd = lab.fresh()
            whole = text[: edge - 1] + "€".encode() + text[edge:]
            (cwd / "corpus.txt").write_bytes(whole)
            done = lab.train(cwd, *TEXT, "name=a", "data.path=corpus.txt", "max_steps=2")
            assert done.code == 0, done.err


@row("truncated token file, a flipped bit")
def damaged(lab: Lab) -> None:
    """The file, and the expected and found size or checksum; before the first step."""
    for name in ("train.bin", "val.bin"):
        for what, damage in {
            "cut to nothing": lambda data: b"",
            "cut by a byte": lambda data: data[:-1],
            "cut by a token": lambda data: data[:-2],
            "cut in half": lambda data: data[: len(data) // 2],
            "longer": lambda data: data + b"\0\0",
            "a flipped bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
            "zeros": lambda data: bytes(len(data)),
            "gone": None,
        }.items():
            with lab.case(f"{name}: {what}"):
                cwd, tokens = prepared(lab)
                path = tokens / name
                if damage is None:
                    path.unlink()
                else:
                    path.write_bytes(damage(path.read_bytes()))
                shutil.rmtree(cwd / "runs")
                done = lab.train(cwd, *lab.text, "name=b", f"data.path={tokens}")
                refused(done, name)
                assert not (cwd / "runs").exists()


@row("ids beyond the vocabulary; tokenizers that differ; a context beyond the model's")
def at_odds(lab: Lab) -> None:
    """Both numbers, or both names."""
    with lab.case("ids beyond the model's vocabulary"):
        cwd, tokens = prepared(lab)
        done = lab.train(cwd, *lab.text, "name=b", f"data.path={tokens}", "model.vocab_size=5")
        refused(done, "model.vocab_size", "5")
    with lab.case("ids beyond GPT-2's"):
        cwd = lab.fresh()
        (cwd / "foreign").mkdir()
        for name in ("train.bin", "val.bin"):
            np.full(500, 60000, np.uint16).tofile(cwd / "foreign" / name)
        settings = [o for o in TEXT if "tokenizer" not in o]
        refused(lab.train(cwd, *settings, "name=a", "data.path=foreign"), "60000", "50257")
    with lab.case("digits beyond the model's vocabulary"):
        done = lab.train(lab.fresh(), *SORT, "model.vocab_size=2")
        refused(done, "model.vocab_size: 2", "data.num_digits=3")
    with lab.case("a context beyond the model's"):
        refused(lab.train(lab.fresh(), *SORT, "model.block_size=5"), "model.block_size: 5", "11")
    with lab.case("another tokenizer"):
        cwd, _ = prepared(lab)
        (cwd / "corpus.txt").write_text(WORDS)
        more = ["data.path=corpus.txt", "data.tokenizer=gpt2", "max_steps=26"]
        done = lab.train(cwd, "name=a", "resume=last", *more)
        refused(done, last_checkpoint(cwd / "runs" / "a").name, "char", "gpt2")


@row("corpus changed between save and resume")
def changed(lab: Lab) -> None:
    """Refused with both fingerprints and the override that goes on nevertheless."""
    straight = lab.straight(lab.text)
    for what, text in {
        "a token appended": VERSES + "a",
        "a token changed": VERSES.replace("12", "13", 1),
        "a line less": VERSES.partition("\n")[2],
    }.items():
        with lab.case(what):
            cwd = lab.copy_of(straight)
            (cwd / "corpus.txt").write_text(text)
            more = ["name=a", "resume=last", "max_steps=26", "data.path=corpus.txt"]
            done = lab.train(cwd, *more)
            refused(done)
            if "data.fingerprint=" in done.last_line:
                override = done.last_line.rpartition(" ")[2]
                assert override.startswith("data.fingerprint=text-"), done.last_line
                done = lab.train(cwd, *more, override)
                assert done.code == 0, done.err
            else:
                assert "tokenizer" in done.last_line, done.last_line


@row("corpus taken away while training")
def gone(lab: Lab) -> None:
    """What is mapped stays: the run ends as it would have."""
    straight = lab.straight(lab.text)
    with lab.case("its folder is deleted"):
        cwd, tokens = prepared(lab)
        shutil.rmtree(cwd / "runs")
        hook = ("wait_in", {"path": STEP, "number": 8, "folder": str(cwd)})
        process = lab.begin(cwd, *lab.text, "name=b", f"data.path={tokens}", hooks=[hook])
        process.until(cwd / "waits")
        shutil.rmtree(tokens)
        (cwd / "go").touch()
        done = process.wait()
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "b", straight)
