"""Mutated checkpoints, manifests and token files: a clean error, or the same content."""

import json
import random
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.lab import SORT, Lab, row
from tests.faults.same import content, first_difference, last_checkpoint

SMALL = [*SORT, "model.n_layer=1", "max_steps=4", "callbacks.samples=null"]

COUNTS = {"checkpoint": 1000, "repacked": 200, "manifest": 200, "tokens": 300, "foreign": 300}
"""Mutants of each kind, 2,000 together."""


def flips(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.choice([rng.randrange(len(data)), len(data) - 1 - rng.randrange(200)]) :]


def remove(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice([1, 2, 64, 4096])]


def repeat(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.choice([1, 64, 4096])]


def insert(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.choice([1, 8, 4096]))


def zeros(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([1, 64, 512, 4096, 65536]))
    data[start:end] = bytes(end - start)


def swap(rng: random.Random, data: bytearray) -> None:
    size = rng.choice([1, 64, 512, 4096])
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    if a + size <= b and b + size <= len(data):
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    else:
        data[a : a + 2] = data[a : a + 2][::-1]


def header(rng: random.Random, data: bytearray) -> None:
    """A field of one of a zip's own records; anywhere in the first bytes of another file."""
    places = []
    for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x07\x08"):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            places.append(start)
    start = rng.choice(places or [0])
    for _ in range(rng.choice([1, 1, 4])):
        place = min(len(data) - 1, start + rng.randrange(46))
        data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])


MUTATIONS: list[Callable[[random.Random, bytearray], None]] = [
    flips,
    cut,
    remove,
    repeat,
    insert,
    zeros,
    swap,
    header,
]


def mutated(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """A name for what was done, and data that is not the same."""
    changed = bytearray(data)
    done = []
    while bytes(changed) == data:
        for _ in range(rng.choice([1, 1, 1, 2])):
            mutation = rng.choice(MUTATIONS)
            if changed:
                mutation(rng, changed)
                done.append(mutation.__name__)
    return " and ".join(done), bytes(changed)


@row("2,000 mutated checkpoint and token files")
def mutants(lab: Lab) -> None:
    """Loaded in children, so that a crash, a hang and an exhausted memory are seen too."""
    run = lab.straight(SMALL)
    folders = {
        "checkpoint": run,
        "repacked": run,
        "manifest": run,
        "tokens": lab.tokens,
        "foreign": foreign(lab.fresh()),
    }
    for kind, whole in COUNTS.items():
        count, begin = whole // (10 if lab.is_share else 1), 0
        seed = lab.random.randrange(2**32)
        lab.outcome.tried += count
        while begin < count:
            cwd = lab.fresh()
            arguments = [kind, str(folders[kind]), str(seed), str(begin), str(count)]
            process = lab.server.fork(cwd, arguments, call="tests.faults.mutations:load_many")
            try:
                done = process.wait(300)
                end = f"ended with {done.code}: {done.err[-200:]}"
                code = done.code
            except AssertionError as error:
                end, code = str(error)[:200], None
            told = [json.loads(line) for line in (cwd / "told").read_text().splitlines()]
            lab.outcome.failures += [line["failure"] for line in told if "failure" in line]
            if code == 0:
                break
            last = told[-1]
            lab.outcome.failures.append(f"{kind} {last['number']}, {last['what']}: {end}")
            begin = last["number"] + 1


def foreign(folder: Path) -> Path:
    """Token files as others write them: nanoGPT's with characters, and llm.c's shards."""
    import pickle

    rng = np.random.default_rng(0)
    nano, shards = folder / "nano", folder / "shards"
    for each in (nano, shards):
        each.mkdir()
    characters = sorted(set("abcdefgh \n"))
    itos = dict(enumerate(characters))
    meta = {"vocab_size": len(itos), "itos": itos, "stoi": {c: i for i, c in itos.items()}}
    (nano / "meta.pkl").write_bytes(pickle.dumps(meta))
    for name in ("train", "val"):
        rng.integers(len(itos), size=600).astype("<u2").tofile(nano / f"{name}.bin")
        header = np.zeros(256, "<i4")
        header[:3] = 20240520, 1, 600
        ids = rng.integers(50257, size=600).astype("<u2")
        (shards / f"x_{name}_0.bin").write_bytes(header.tobytes() + ids.tobytes())
    return folder


def load_many() -> int:
    """In a child: mutate and load, and say of each what came of it."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    seed, begin, count = map(int, sys.argv[3:])
    warnings.simplefilter("ignore")
    limit_memory()
    load = {
        "checkpoint": a_checkpoint,
        "repacked": a_repacked_checkpoint,
        "manifest": a_manifest,
        "tokens": our_tokens,
        "foreign": foreign_tokens,
    }[kind]
    with Path("told").open("w", buffering=1) as told:
        for number in range(begin, count):
            rng = random.Random(f"{seed} {number}")
            place = Path(f"{number}")
            try:
                load(rng, folder, place, lambda what, n=number: say(told, n, what))
            except Exception as error:
                line = f"{kind} {number} of seed {seed}: {type(error).__name__} {error}"
                told.write(json.dumps({"failure": line, "number": number, "what": ""}) + "\n")
            shutil.rmtree(place, ignore_errors=True)
    return 0


def say(told: Any, number: int, what: str) -> None:
    told.write(json.dumps({"number": number, "what": what}) + "\n")


def limit_memory() -> None:
    """A header that asks for the memory of the whole machine is answered, not obeyed."""
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**31, now + 2**31))


Say = Callable[[str], None]


def a_checkpoint(rng: random.Random, run: Path, place: Path, say: Say) -> None:
    """With its manifest, found by hand or by itself; and without one."""
    from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
    from gpt2lab.errors import CheckpointError

    shutil.copytree(run, place)
    path = last_checkpoint(place)
    wanted = {p.name: content(p) for p in (place / "checkpoints").glob("step-*.ckpt")}
    what, data = mutated(rng, path.read_bytes())
    path.write_bytes(data)
    if rng.random() < 0.3:
        (path.parent / "manifest.json").unlink()
        what += ", no manifest"
    say(what)
    for find in (lambda: path, lambda: find_checkpoint(place, "last")):
        try:
            found = find()
            assert found is not None, f"{what}: not found"
            loaded = load_checkpoint(found)
        except CheckpointError:
            continue
        for name in ("state_dict", "optimizer_states", "global_step", "settings"):
            difference = first_difference(loaded[name], wanted[found.name][name], name)
            assert difference is None, f"{what}: loaded as {difference}"


def a_repacked_checkpoint(rng: random.Random, run: Path, place: Path, say: Say) -> None:
    """Another pickle in a whole zip: no checksum can tell, so only the manner counts."""
    from gpt2lab.checkpoint import load_checkpoint
    from gpt2lab.errors import CheckpointError

    shutil.copytree(run, place)
    path = last_checkpoint(place)
    (path.parent / "manifest.json").unlink()
    with zipfile.ZipFile(path) as old:
        parts = {info.filename: old.read(info) for info in old.infolist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    what, parts[name] = mutated(rng, parts[name])
    with zipfile.ZipFile(path, "w") as new:
        for part, data in parts.items():
            new.writestr(part, data)
    say(what)
    with suppress(CheckpointError):
        load_checkpoint(path)


def a_manifest(rng: random.Random, run: Path, place: Path, say: Say) -> None:
    """The files are whole, so one of them is found."""
    from gpt2lab.checkpoint import find_checkpoint, load_checkpoint

    shutil.copytree(run, place)
    folder = place / "checkpoints"
    wanted = {p.name: content(p) for p in folder.glob("step-*.ckpt")}
    what, data = mutated(rng, (folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(data)
    say(what)
    found = find_checkpoint(place, "last")
    assert found == last_checkpoint(place), f"{what}: found {found}"
    loaded = load_checkpoint(found)
    for name in ("state_dict", "optimizer_states", "global_step"):
        difference = first_difference(loaded[name], wanted[found.name][name], name)
        assert difference is None, f"{what}: loaded as {difference}"


def our_tokens(rng: random.Random, corpus: Path, place: Path, say: Say) -> None:
    from gpt2lab.data.tokens import open_corpus
    from gpt2lab.errors import DataError

    shutil.copytree(corpus, place)
    path = place / rng.choice(["train.bin", "val.bin", "manifest.json"])
    what, data = mutated(rng, path.read_bytes())
    path.write_bytes(data)
    say(f"{path.name}: {what}")
    wanted = open_corpus(corpus)
    try:
        found = open_corpus(place)
    except DataError:
        return
    for split in ("train", "val"):
        for a, b in zip(getattr(found, split), getattr(wanted, split), strict=True):
            assert np.array_equal(a, b), f"{path.name} {what}: other ids"
    assert found.tokenizer.plain() == wanted.tokenizer.plain(), f"{what}: another tokenizer"


def foreign_tokens(rng: random.Random, corpora: Path, place: Path, say: Say) -> None:
    """Files without checksums: refused, or ids that the tokenizer knows."""
    from gpt2lab.data.tokens import open_corpus
    from gpt2lab.errors import DataError

    shutil.copytree(corpora / rng.choice(["nano", "shards"]), place)
    path = rng.choice(sorted(place.iterdir()))
    what, data = mutated(rng, path.read_bytes())
    path.write_bytes(data)
    say(f"{path.name}: {what}")
    try:
        found = open_corpus(place)
    except DataError:
        return
    for array in (*found.train, *found.val):
        assert int(array.max(initial=0)) < found.tokenizer.vocab_size, f"{what}: unknown ids"
        found.tokenizer.decode(array.tolist())
