"""Weights to begin with that are missing, damaged, of another model, or dangerous."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gpt2lab.config import GPT2Config
from gpt2lab.model import GPT2
from gpt2lab.weights.pretrained import theirs
from tests.faults.checkpoints import DAMAGES, Runs
from tests.faults.lab import SORT, Lab, nothing_written, refused, row
from tests.faults.same import content, last_checkpoint

BEGIN = [*SORT, "model.n_layer=1", "model.n_head=1", "model.n_embd=4"]
WEIGHTS = "model.safetensors"
# The format has no checksum: what is flipped in a number is another number.
UNNOTICED = ("a page of zeros", "a bit of a weight", "a bit of the zip's directory")


def published(folder: Path) -> Path:
    """A folder in the Hugging Face layout."""
    folder.mkdir()
    config = GPT2Config(n_layer=1, n_head=1, n_embd=4, block_size=16, vocab_size=50257)
    names = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 16, "vocab_size": 50257}
    (folder / "config.json").write_text(json.dumps(names))
    state = GPT2(config).state_dict()
    save_file({k: theirs(k, v, 50257).contiguous() for k, v in state.items()}, folder / WEIGHTS)
    return folder


def refuses(lab: Lab, weights: Path, *words: str) -> None:
    """Before the first step, in one line, with nothing written."""
    cwd = lab.fresh()
    done = lab.train(cwd, *BEGIN, "name=a", f"init_from={weights}")
    refused(done, *words)
    assert len(done.err.splitlines()) == 1, done.err
    nothing_written(cwd)


@row("init_from missing, cut, zeros, garbage, of another size, NaN")
def of_another_make(lab: Lab) -> None:
    """A folder of published weights, and a run."""
    whole, run = (
        published(lab.fresh() / "whole"),
        lab.straight([o for o in BEGIN if "name" not in o]),
    )
    for what, damage in DAMAGES.items():
        if what not in (*UNNOTICED, "a bit of the last byte"):
            with lab.case(f"published weights: {what}"):
                weights = Path(shutil.copytree(whole, lab.fresh() / "weights"))
                path = weights / WEIGHTS
                path.write_bytes(damage(path.read_bytes()))
                refuses(lab, weights, str(weights))
        with lab.case(f"a checkpoint: {what}"):
            path = last_checkpoint(lab.copy_of(run) / "runs" / run.name)
            path.write_bytes(damage(path.read_bytes()))
            refuses(lab, path, path.name)
    changes: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
        "a tensor of another size": (
            lambda t: t.update({"transformer.wpe.weight": torch.zeros(15, 4)}),
            "wpe.weight is (15, 4) there and (16, 4) in the model",
        ),
        "a tensor too few": (
            lambda t: t.pop("transformer.ln_f.bias"),
            "ln_f.bias is missing there",
        ),
        "a tensor too many": (lambda t: t.update(more=torch.zeros(2)), "more is (2,) there"),
        "NaN": (lambda t: t["transformer.wpe.weight"].fill_(torch.nan), "64 of 64 numbers NaN"),
    }
    for what, (change, words) in changes.items():
        with lab.case(what):
            weights = Path(shutil.copytree(whole, lab.fresh() / "weights"))
            tensors = load_file(weights / WEIGHTS)
            change(tensors)
            save_file(tensors, weights / WEIGHTS)
            refuses(lab, weights, words)
    with lab.case("NaN in a checkpoint"):
        path = last_checkpoint(lab.copy_of(run) / "runs" / run.name)
        damaged = content(path)
        damaged["state_dict"]["model.transformer.wpe.weight"].fill_(torch.nan)
        torch.save(damaged, path)
        (path.parent / "manifest.json").unlink()
        refuses(lab, path, "wpe.weight has ", "NaN")
    for what in ("config.json", WEIGHTS):
        with lab.case(f"{what} is missing"):
            weights = Path(shutil.copytree(whole, lab.fresh() / "weights"))
            (weights / what).unlink()
            refuses(lab, weights, str(weights))
    with lab.case("no such folder"):
        refuses(lab, whole.parent / "nowhere", "nowhere: there is no such file or folder")
    with lab.case("all is well"):
        done = lab.train(lab.fresh(), *BEGIN, "name=a", f"init_from={run}", "seed=3")
        assert done.code == 0, done.err


@row("init_from a pickle that runs code")
def dangerous(lab: Lab) -> None:
    """Refused; what it would have done has not happened."""
    whole = published(lab.fresh() / "whole")
    writers: dict[str, Callable[[Path, Runs], Any]] = {
        "a bare pickle": lambda path, evil: path.write_bytes(pickle.dumps(evil)),
        "torch's old format": lambda path, evil: torch.save(
            {"wte.weight": evil}, path, _use_new_zipfile_serialization=False
        ),
        "torch's format": lambda path, evil: torch.save({"wte.weight": evil}, path),
    }
    for what, write in writers.items():
        for name in ("pytorch_model.bin", "step-000001.ckpt"):
            with lab.case(f"{what} as {name}"):
                weights = Path(shutil.copytree(whole, lab.fresh() / "weights"))
                (weights / WEIGHTS).unlink()
                canary = weights / "canary"
                write(weights / name, Runs(canary))
                is_folder = name.endswith(".bin")
                refuses(lab, weights if is_folder else weights / name, name)
                assert not canary.exists(), "the pickle's code ran"
