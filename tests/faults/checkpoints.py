"""Checkpoints that are missing, damaged, of another model, or dangerous."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.faults.lab import SORT, Lab, refused, row
from tests.faults.places import STEP
from tests.faults.same import (
    assert_same_end,
    assert_whole,
    content,
    last_checkpoint,
    recorded,
)

MORE = ("name=a", "max_steps=26")


def flipped(data: bytes, where: int) -> bytes:
    changed = bytearray(data)
    changed[where] ^= 0x10
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut to nothing": lambda data: b"",
    "cut at 1 byte": lambda data: data[:1],
    "cut at 8 bytes": lambda data: data[:8],
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by its last byte": lambda data: data[:-1],
    "a byte longer": lambda data: data + b"\0",
    "zeros": lambda data: bytes(len(data)),
    "a page of zeros": lambda data: (
        data[: len(data) // 2 & ~4095] + bytes(4096) + data[(len(data) // 2 & ~4095) + 4096 :]
    ),
    "garbage": lambda data: random.Random(0).randbytes(len(data)),
    "a bit of the first byte": lambda data: flipped(data, 0),
    "a bit of the pickle": lambda data: flipped(data, 200),
    "a bit of a weight": lambda data: flipped(data, len(data) // 2),
    "a bit of the zip's directory": lambda data: flipped(data, len(data) - 100),
    "a bit of the last byte": lambda data: flipped(data, len(data) - 1),
}
"""Every way in which a file of the right name can be wrong."""


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> Any:
    """Save a checkpoint's changed content in its place, under no checksum; what `change` gives."""
    checkpoint = content(path)
    result = change(checkpoint)
    torch.save(checkpoint, path)
    (path.parent / "manifest.json").unlink()
    return result


def snapshot(run: Path) -> dict[str, bytes]:
    """Every checkpoint file of a run and its bytes."""
    return {p.name: p.read_bytes() for p in (run / "checkpoints").glob("step-*.ckpt")}


@row("checkpoint missing, cut, zeros, garbage, a flipped bit; named by hand")
def named_by_hand(lab: Lab) -> None:
    """Refused with the file's name, before the first step, and nothing is touched."""
    straight = lab.straight(SORT)
    for what, damage in DAMAGES.items():
        with lab.case(what):
            cwd = lab.copy_of(straight)
            path = last_checkpoint(cwd / "runs" / "a")
            path.write_bytes(damage(path.read_bytes()))
            before = snapshot(cwd / "runs" / "a")
            done = lab.train(cwd, f"resume={path}", "max_steps=26")
            refused(done, path.name)
            assert snapshot(cwd / "runs" / "a") == before
    for what, name in {
        "no such file": "runs/a/checkpoints/step-000099.ckpt",
        "a directory": "runs/a/checkpoints",
        "another file": "runs/a/receipt.json",
    }.items():
        with lab.case(what):
            refused(lab.train(lab.copy_of(straight), f"resume={name}", "max_steps=26"), name)


@row("newest checkpoint damaged on a resume")
def newest_damaged(lab: Lab) -> None:
    """A warning names it, and the previous good one is taken, to the same end."""
    straight = lab.straight(SORT)
    damages: dict[str, Callable[[bytes], bytes] | None] = {**DAMAGES, "gone": None}
    cases = [(what, resume) for what in damages for resume in ("last", "auto")]
    for what, resume in lab.part(cases, 3):
        with lab.case(f"{what}, resume={resume}"):
            cwd = lab.copy_of(straight)
            path = last_checkpoint(cwd / "runs" / "a")
            if (damage := damages[what]) is None:
                path.unlink()
            else:
                path.write_bytes(damage(path.read_bytes()))
            done = lab.train(cwd, "name=a", f"resume={resume}", "trainer.log_every_n_steps=1")
            assert done.code == 0, done.err
            assert path.name in done.err, f"no warning names {path.name}: {done.err}"
            assert_same_end(cwd / "runs" / "a", straight)
            assert_whole(cwd / "runs" / "a")


@row("every checkpoint damaged; the best one damaged")
def all_damaged(lab: Lab) -> None:
    """An error, never a silent fresh start, and no file is touched."""
    straight = lab.straight(SORT)
    for what in ("cut to nothing", "cut in half", "a bit of a weight", "garbage"):
        for resume in ("last", "auto", "best"):
            with lab.case(f"all: {what}, resume={resume}"):
                cwd = lab.copy_of(straight)
                run = cwd / "runs" / "a"
                for path in (run / "checkpoints").glob("step-*.ckpt"):
                    path.write_bytes(DAMAGES[what](path.read_bytes()))
                before = snapshot(run)
                refused(lab.train(cwd, *MORE, f"resume={resume}"), "step-0000")
                assert snapshot(run) == before
        with lab.case(f"the best: {what}"):
            cwd = lab.copy_of(straight)
            folder = cwd / "runs" / "a" / "checkpoints"
            best = json.loads((folder / "manifest.json").read_text())["best"]
            path = folder / (best if isinstance(best, str) else best["file"])
            path.write_bytes(DAMAGES[what](path.read_bytes()))
            refused(lab.train(cwd, *MORE, "resume=best"), path.name, "resume=last")


@row("manifest of the checkpoints missing or damaged")
def manifest(lab: Lab) -> None:
    """The files speak for themselves."""
    straight = lab.straight(SORT)
    reference = lab.copy_of(straight)
    done = lab.train(reference, *MORE, "resume=last")
    assert done.code == 0, done.err
    texts = {
        "gone": None,
        "empty": b"",
        "no JSON": b"{",
        "a list": b"[]",
        "a number": b"7",
        "null": b"null",
        "nested": b"[" * 100_000,
        "not UTF-8": b"\xff\xfe{}",
        "an empty mapping": b"{}",
        "other keys": b'{"last": 7, "best": {"file": "../../x"}, "checkpoints": [1, {}, null]}',
        "zeros": bytes(200),
    }
    for what, text in texts.items():
        with lab.case(what):
            cwd = lab.copy_of(straight)
            path = cwd / "runs" / "a" / "checkpoints" / "manifest.json"
            path.unlink() if text is None else path.write_bytes(text)
            done = lab.train(cwd, *MORE, "resume=last")
            assert done.code == 0, done.err
            assert_same_end(cwd / "runs" / "a", reference / "runs" / "a")
    with lab.case("its own text with a digit changed"):
        cwd = lab.copy_of(straight)
        path = cwd / "runs" / "a" / "checkpoints" / "manifest.json"
        path.write_text(path.read_text().replace("step-000024", "step-000022"))
        done = lab.train(cwd, *MORE, "resume=last")
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "a", reference / "runs" / "a")


@row("checkpoint of another model")
def another_model(lab: Lab) -> None:
    """Before the first step: the file, the first tensor that differs, both shapes."""
    straight = lab.straight(SORT)

    def reshaped(checkpoint: dict[str, Any]) -> str:
        name = list(checkpoint["state_dict"])[1]
        checkpoint["state_dict"][name] = torch.zeros(3, 5)
        return name

    def without(checkpoint: dict[str, Any]) -> str:
        name = list(checkpoint["state_dict"])[1]
        del checkpoint["state_dict"][name]
        return name

    def with_more(checkpoint: dict[str, Any]) -> str:
        checkpoint["state_dict"]["model.extra"] = torch.zeros(2)
        return "model.extra"

    for change, words in ((reshaped, ["(3, 5)"]), (without, ["missing"]), (with_more, ["(2,)"])):
        with lab.case(change.__name__):
            cwd = lab.copy_of(straight)
            path = last_checkpoint(cwd / "runs" / "a")
            name = rewritten(path, change)
            refused(lab.train(cwd, f"resume={path}", "max_steps=26"), path.name, name, *words)
    for what, change in {
        "no optimizer state": lambda c: c.__setitem__("optimizer_states", []),
        "an optimizer state of no parameter": lambda c: c["optimizer_states"][0]["state"].clear(),
        "a step that is a text": lambda c: c.__setitem__("global_step", "24"),
        "a step below 0": lambda c: c.__setitem__("global_step", -1),
        "settings that are a list": lambda c: c.__setitem__("settings", []),
        "settings without a model": lambda c: c["settings"].pop("model"),
        "settings of another type": lambda c: c["settings"].__setitem__("seed", "x"),
        "an unknown setting": lambda c: c["settings"].__setitem__("colour", "red"),
        "weights that are no tensors": lambda c: c["state_dict"].update(
            dict.fromkeys(c["state_dict"], 1)
        ),
        "nothing but a tensor": lambda c: [c.clear(), c.update(a=torch.zeros(1))],
        "no fingerprint of the data": lambda c: c.pop("data", None),
    }.items():
        with lab.case(what):
            cwd = lab.copy_of(straight)
            path = last_checkpoint(cwd / "runs" / "a")
            rewritten(path, change)
            refused(lab.train(cwd, f"resume={path}", "max_steps=26"))


@row("resume with other model settings; other schedule settings")
def changed_settings(lab: Lab) -> None:
    """A model's key is refused; another is said with its old and its new value."""
    straight = lab.straight(SORT)
    for key, value in {"n_layer": 4, "n_head": 6, "n_embd": 96, "bias": "false"}.items():
        with lab.case(f"model.{key}={value}"):
            cwd = lab.copy_of(straight)
            before = snapshot(cwd / "runs" / "a")
            refused(lab.train(cwd, *MORE, "resume=last", f"model.{key}={value}"), f"model.{key}")
            assert snapshot(cwd / "runs" / "a") == before
    for key, old, value in (
        ("schedule.warmup_steps", "0", "3"),
        ("optim.lr", "0.005", "0.001"),
        ("seed", "0", "7"),
        ("max_steps", "24", "30"),
    ):
        with lab.case(f"{key}={value}"):
            cwd = lab.copy_of(straight)
            done = lab.train(cwd, "name=a", "max_steps=26", "resume=last", f"{key}={value}")
            assert done.code == 0, done.err
            told = done.err + done.out
            line = next((one for one in told.splitlines() if key in one and "->" in one), "")
            assert f"{old} -> {value}" in line, f"{key} is not told as {old} -> {value}: {told}"


class Runs:
    """A pickle that makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.canary,)


@row("pickle that runs code")
def code(lab: Lab) -> None:
    """Refused, wherever it stands; what it would have done has not happened."""
    straight = lab.straight(SORT)
    writers: dict[str, Callable[[Path, Runs], Any]] = {
        "a bare pickle": lambda path, evil: path.write_bytes(pickle.dumps(evil)),
        "torch's old format": lambda path, evil: torch.save(
            evil, path, _use_new_zipfile_serialization=False
        ),
        "torch's format": lambda path, evil: torch.save(evil, path),
        "within a checkpoint": lambda path, evil: torch.save({**content(path), "more": evil}, path),
        "among the settings": lambda path, evil: torch.save(
            {**content(path), "settings": {"seed": evil}}, path
        ),
        "as a step": lambda path, evil: torch.save({**content(path), "global_step": evil}, path),
    }
    for what, write in writers.items():
        for resume in ("by name", "last", "auto"):
            with lab.case(f"{what}, resume {resume}"):
                cwd = lab.copy_of(straight)
                path = last_checkpoint(cwd / "runs" / "a")
                canary = cwd / "canary"
                write(path, Runs(canary))
                (path.parent / "manifest.json").unlink()
                for other in set(path.parent.glob("step-*.ckpt")) - {path}:
                    other.unlink()
                where = f"resume={path}" if resume == "by name" else f"resume={resume}"
                name = [] if resume == "by name" else ["name=a"]
                refused(lab.train(cwd, *name, where, "max_steps=26"), path.name)
                assert not canary.exists(), "the pickle's code ran"
    with lab.case("nanoGPT's meta.pkl"):
        cwd = lab.fresh()
        corpus = cwd / "corpus"
        corpus.mkdir()
        for name in ("train.bin", "val.bin"):
            (corpus / name).write_bytes(bytes(range(1, 101)))
        (corpus / "meta.pkl").write_bytes(pickle.dumps({"itos": Runs(cwd / "canary")}))
        refused(lab.train(cwd, *SORT[:2], "data=text", f"data.path={corpus}"), "meta.pkl")
        assert not (cwd / "canary").exists(), "the pickle's code ran"


@row("_target_ among the settings of a checkpoint")
def targets_of_a_checkpoint(lab: Lab) -> None:
    """What a checkpoint says of trainer, loggers and callbacks is never built."""
    straight = lab.straight(SORT)
    for node in ("trainer", "logger", "callbacks", "model"):
        with lab.case(node):
            cwd = lab.copy_of(straight)
            path = last_checkpoint(cwd / "runs" / "a")
            evil = {"_target_": "os.system", "command": f"touch {cwd}/canary"}
            rewritten(path, lambda c, n=node, e=evil: c["settings"].__setitem__(n, {**e, "x": e}))
            done = lab.train(cwd, f"resume={path}", "max_steps=26")
            assert not (cwd / "canary").exists(), "the target ran"
            assert done.code in (0, 2), done.err
            assert "Traceback" not in done.err, done.err


@row("resume with another worker count, accumulation")
def other_hardware(lab: Lab) -> None:
    """The same global batches: the same bits where the sums are the same, else nearly."""
    without_dropout = [*SORT, "model.dropout=0"]  # whose numbers a micro-batch draws in its turn
    for more, settings in (("data.num_workers=2", SORT), ("micro_batch_size=4", without_dropout)):
        with lab.case(more):
            cwd, straight = lab.fresh(), lab.straight(settings)
            run = cwd / "runs" / "a"
            kill = ("signal_in", {"path": STEP, "number": 11, "signals": [9]})
            assert lab.train(cwd, *settings, "name=a", hooks=[kill]).code == -9
            done = lab.train(cwd, "name=a", "resume=last", more, "trainer.log_every_n_steps=1")
            assert done.code == 0, done.err
            if settings is SORT:
                assert_same_end(run, straight)
            found, wanted = (
                [float(one["train/loss"]) for one in recorded(folder) if one["train/loss"]]
                for folder in (run, straight)
            )
            assert len(found) == len(wanted) == 24
            # sums in another order: the last bits of fp32, through 14 steps of Adam
            assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 1e-3, found
