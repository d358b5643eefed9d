"""From a path to a model: which file it means, what is believed of it, how it is spoken to."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers

import gpt2lab.generation
import gpt2lab.loading
from gpt2lab.checkpoint import AtomicCheckpointIO, find_checkpoint, load_checkpoint
from gpt2lab.checkpoint.manifest import Entry, Manifest, name_of, write_manifest
from gpt2lab.checkpoint.verify import sha256
from gpt2lab.config import (
    Device,
    GPT2Config,
    PairsConfig,
    Precision,
    Quantize,
    SortConfig,
    TextConfig,
    plain,
)
from gpt2lab.errors import CheckpointError, ConfigError
from gpt2lab.experiment import fit
from gpt2lab.loading import check_checkpoint, load
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import CharTokenizer, DigitTokenizer, gpt2_tokenizer
from tests.damage import CUTS
from tests.test_experiment import SHORT

SORT = GPT2Config(2, 2, 16, block_size=11, vocab_size=3)
TOKENS = torch.tensor([[2, 0, 1, 1, 0]])


def content(config=SORT, data=None, tokenizer=None, step=5):
    """A checkpoint of an untrained model, with as much of a training as must be there."""
    weights = GPT2(config).state_dict()
    return {
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
        "settings": {"model": plain(config), "data": plain(data or SortConfig())},
        "tokenizer": tokenizer and tokenizer.plain(),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(100, 100)}}}],
        "global_step": step,
    }


def save(content, path):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


@pytest.fixture
def saved(tmp_path):
    """A checkpoint file by itself."""
    return save(content(), tmp_path / "step-000005.ckpt")


@pytest.fixture
def run(tmp_path):
    """A run folder with checkpoints at steps 5, 6 and 7, of which 6 is the best."""
    folder, entries = tmp_path / "runs" / "first", []
    for step, metric in ((7, None), (6, 1.0), (5, 2.0)):
        path = save(content(step=step), folder / "checkpoints" / name_of(step))
        size = path.stat().st_size
        entries.append(Entry(path.name, step, size, sha256(path), metric))
    write_manifest(folder / "checkpoints", Manifest({"id": "a"}, "val/loss", entries))
    return folder


def plainly(path, **options):
    """The model as it is in the file: nothing rounded."""
    return load(path, precision="fp32", device="cpu", **options)


def logits_of(path):
    """By the way of a training, which assigns every tensor to a model of its own."""
    stored = load_checkpoint(path)
    model = GPT2(GPT2Config(**stored["settings"]["model"])).eval()
    weights = {name.removeprefix("model."): t for name, t in stored["state_dict"].items()}
    model.load_state_dict(weights)
    return model(TOKENS)


def same(model, path):
    """Whether a model is the one in a checkpoint file."""
    # packed matrices sum in another order
    return torch.allclose(model(TOKENS), logits_of(path), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_trained_run_becomes_the_model_that_was_trained(tmp_path):
    run = fit([*SHORT, f"runs_dir={tmp_path}", "name=a"]).folder
    model = plainly(run)
    assert same(model, find_checkpoint(run, "best"))
    assert not model.training
    assert model.speech.question_tokens == model.speech.answer_tokens == 6
    assert model.speech.tokenizer.encode("2 0 1") == [2, 0, 1]


def test_a_run_means_its_best_checkpoint_else_its_last(run):
    checkpoints = run / "checkpoints"
    assert same(plainly(run), checkpoints / name_of(6))
    assert not same(plainly(run), checkpoints / name_of(7))
    (checkpoints / "manifest.json").unlink()
    assert same(plainly(str(run)), checkpoints / name_of(7))


def test_a_checkpoint_file_is_taken_as_it_is(run):
    path = run / "checkpoints" / name_of(5)
    assert same(plainly(path), path)


def test_a_folder_of_published_weights_is_a_model_too(tmp_path):
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=12, vocab_size=11, eos_token_id=None
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    model = plainly(tmp_path)
    torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, rtol=1e-5, atol=1e-5)
    assert model.speech is None  # nothing says what eleven ids stand for
    assert not model.training


def test_published_weights_with_gpt2s_vocabulary_have_its_tokenizer(tmp_path):
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=4, n_positions=4)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert plainly(tmp_path).speech.tokenizer is gpt2_tokenizer()


def test_how_a_model_is_spoken_to_follows_from_its_data(tmp_path):
    characters = CharTokenizer("\nab", end_of_text=True)
    config = GPT2Config(1, 1, 8, block_size=4, vocab_size=4)
    path = save(content(config, TextConfig(path="a.txt"), characters), tmp_path / "text.ckpt")
    speech = plainly(path).speech
    assert speech.tokenizer.fingerprint == characters.fingerprint
    assert not speech.has_answers
    data = PairsConfig(path="a.jsonl", separator="ab\n", context=4)
    speech = plainly(save(content(config, data, characters), tmp_path / "pairs.ckpt")).speech
    assert (speech.separator, speech.has_answers) == ("ab\n", True)
    config = GPT2Config(1, 1, 8, block_size=19, vocab_size=50)
    data = SortConfig(length=10, num_digits=40)
    speech = plainly(save(content(config, data), tmp_path / "sort.ckpt")).speech
    assert speech.tokenizer.fingerprint == DigitTokenizer(40).fingerprint
    assert speech.question_tokens == 10


def test_settings_that_were_masked_do_not_matter_where_they_are_not_needed(tmp_path):
    altered = content()
    altered["settings"]["data"] |= {"num_workers": "${oc.env:WORKERS}"}
    altered["settings"]["trainer"] = {"_target_": "os.system"}
    plainly(save(altered, tmp_path / "a.ckpt"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_number_format_are_read(tmp_path, dtype):
    altered = content()
    altered["state_dict"] = {name: t.to(dtype) for name, t in altered["state_dict"].items()}
    path = save(altered, tmp_path / "a.ckpt")
    assert same(plainly(path), path)


def test_a_vocabulary_with_surplus_rows_comes_back(tmp_path):
    config = GPT2Config(1, 1, 8, block_size=11, vocab_size=5000)
    path = save(content(config, SortConfig(num_digits=5000)), tmp_path / "a.ckpt")
    assert same(plainly(path), path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of maps")
@pytest.mark.parametrize("quantize", [None, Quantize.int8])
@pytest.mark.parametrize("precision", [Precision.auto, Precision.fp32, Precision.bf16])
def test_nothing_of_a_loaded_model_is_in_its_file(saved, precision, quantize):
    model = load(saved, precision=precision, quantize=quantize, device="cpu")
    assert str(saved) not in Path("/proc/self/maps").read_text()
    before = model(TOKENS)
    saved.write_bytes(bytes(saved.stat().st_size))
    assert torch.equal(model(TOKENS), before)


def test_the_optimizers_state_is_neither_needed_nor_judged(tmp_path):
    altered = content()
    altered["optimizer_states"][0]["state"][0]["exp_avg"][0] = torch.nan
    path = save(altered, tmp_path / "a.ckpt")
    plainly(path)
    with pytest.raises(CheckpointError, match="NaN"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_and_infinity_are_refused_unless_allowed_by_name(tmp_path, value):
    altered = content()
    altered["state_dict"]["model.transformer.ln_f.bias"][2] = value
    path = save(altered, tmp_path / "a.ckpt")
    name = "state_dict.model.transformer.ln_f.bias"
    with pytest.raises(CheckpointError, match=f"{name} has 1 of 16 .* allow_nonfinite={name}$"):
        load(path)
    assert not plainly(path, allow_nonfinite=name)(TOKENS).isfinite().all()


@pytest.mark.parametrize("damage", CUTS.values(), ids=CUTS.keys())
def test_a_damaged_checkpoint_is_refused_by_name(saved, run, damage):
    for path in (saved, run / "checkpoints" / name_of(6)):
        path.write_bytes(damage(path.read_bytes()))
        for look in (load, check_checkpoint):
            with pytest.raises(CheckpointError, match=rf"{path}: has [\d,]+ bytes that are not"):
                look(path)
    with pytest.raises(CheckpointError, match=rf"{path}: .*; name another file of the folder"):
        load(run)


def test_a_damaged_last_one_gives_a_warning_and_the_one_before(run):
    checkpoints = run / "checkpoints"
    (checkpoints / "manifest.json").unlink()
    (checkpoints / name_of(7)).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"step-000007\.ckpt: has 0 bytes .* step-000006\.ckpt"):
        model = plainly(run)
    assert same(model, checkpoints / name_of(6))


class RunsCode:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("form", ["zip", "old", "pickle", "among the settings"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, form):
    path, evil = tmp_path / "a.ckpt", RunsCode(tmp_path / "canary")
    altered = {**content(), "evil": evil}
    if form == "among the settings":
        altered = {**content(), "settings": {"model": evil}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(altered))
    else:
        torch.save(altered, path, _use_new_zipfile_serialization=form != "old")
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load(path)
    assert not (tmp_path / "canary").exists()


def put(*keys):
    """A change of a checkpoint's content: the last is the value of the others."""
    *path, last, value = keys

    def change(content):
        for key in path:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return change


TEXT = {"kind": "text"}
PAIRS = {"kind": "pairs", "separator": "\n"}
ODD = {
    "no settings": (put("settings", []), "not a checkpoint of gpt2lab"),
    "no model": (put("settings", "model", ...), r"\(model: is missing\)"),
    "a model that is a list": (put("settings", "model", [1]), r"\(model: is missing\)"),
    "an unknown setting": (put("settings", "model", "color", 1), r"model\.color: there is no such"),
    "a target": (put("settings", "model", "_target_", "os.system"), "_target_: is not allowed"),
    "a text": (put("settings", "model", "n_layer", "2"), "n_layer: '2' is not a whole number"),
    "a tensor": (put("settings", "model", "n_layer", torch.ones(2)), "n_layer: tensor.* is not a"),
    "out of range": (put("settings", "model", "n_layer", 0), "n_layer: 0 is out of range"),
    "no divisor": (put("settings", "model", "n_head", 3), "n_head: 3 does not divide"),
    "no vocabulary": (put("settings", "model", "vocab_size", None), "vocab_size: is null"),
    "too large": (put("settings", "model", "block_size", 2**62), "its model is too large"),
    "far too large": (put("settings", "model", "block_size", 10**30), "its model is too large"),
    "no data": (put("settings", "data", ...), r"\(data: is missing\)"),
    "unknown data": (put("settings", "data", "kind", "images"), "data.kind: 'images' is unknown"),
    "odd data": (put("settings", "data", "kind", ["sort"]), r"data.kind: \['sort'\] is unknown"),
    "no digits": (put("settings", "data", "num_digits", 0), "num_digits: 0 is out of range"),
    "a masked length": (put("settings", "data", "length", "${x}"), "length: .* is not a whole"),
    "no tokenizer": (put("settings", "data", TEXT), r"tokenizer\.kind: None is unknown"),
    "no separator": (put("settings", "data", {**PAIRS, "separator": 1}), "tokenizer.kind"),
    "missing": (
        put("state_dict", "model.transformer.h.1.ln_2.bias", ...),
        r"model\.transformer\.h\.1\.ln_2\.bias is missing there and \(16,\) in the model",
    ),
    "surplus": (
        put("state_dict", "model.extra", torch.zeros(2)),
        r"model\.extra is \(2,\) there and missing in the model",
    ),
    "another shape": (
        put("state_dict", "model.transformer.wpe.weight", torch.zeros(3, 16)),
        r"model\.transformer\.wpe\.weight is \(3, 16\) there and \(11, 16\) in the model",
    ),
    "another depth": (
        put("settings", "model", "n_layer", 1),
        r"model\.transformer\.h\.1\.ln_1\.weight is \(16,\) there and missing in the model",
    ),
    "whole numbers": (
        put("state_dict", "model.transformer.ln_f.bias", torch.zeros(16, dtype=torch.int64)),
        r"model\.transformer\.ln_f\.bias holds torch\.int64",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), ODD.values(), ids=ODD.keys())
def test_what_makes_no_model_is_refused_in_one_line(tmp_path, change, problem):
    altered, path = content(), tmp_path / "a.ckpt"
    change(altered)
    torch.save(altered, path)
    with pytest.raises(CheckpointError, match=problem) as caught:
        load(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: ")
    assert "; take another one" in line or "; take one from" in line


TOKENIZERS = {
    "unknown": ({"kind": "bert"}, r"tokenizer\.kind: 'bert' is unknown"),
    "of another size": (gpt2_tokenizer().plain(), r"vocab_size: is 3, .* 50257 ids"),
    "without its characters": ({"kind": "char", "end_of_text": True}, "needs characters"),
}


@pytest.mark.parametrize("data", [TEXT, PAIRS])
@pytest.mark.parametrize(("tokenizer", "problem"), TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path, data, tokenizer, problem):
    altered = content() | {"tokenizer": tokenizer}
    altered["settings"]["data"] = data
    with pytest.raises(CheckpointError, match=f"its settings make no model .*{problem}"):
        load(save(altered, tmp_path / "a.ckpt"))


def test_a_gpu_that_is_not_there_is_refused(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", Device.cuda):
        with pytest.raises(
            ConfigError, match=r"^device: cuda is asked for, this machine has none; "
        ):
            load(saved, device=device)
    assert plainly(saved).transformer.wpe.weight.device.type == "cpu"


@pytest.mark.parametrize("key", ["precision", "device", "quantize"])
def test_an_option_that_does_not_exist_is_refused(saved, key):
    with pytest.raises(ConfigError, match=f"^{key}: 'fp8' is not an option; (choose|did you)"):
        load(saved, **{key: "fp8"})


def test_options_are_words_or_members(saved):
    for precision in ("bf16", Precision.bf16):
        assert load(saved, precision=precision, device="cpu")(TOKENS).isfinite().all()
    assert load(saved, quantize=Quantize.int8, device=Device.cpu)(TOKENS).isfinite().all()


def test_the_public_names_stay_functions():
    for name, home in (("load", gpt2lab.loading), ("generate", gpt2lab.generation)):
        assert getattr(gpt2lab, name) is getattr(home, name)


@pytest.fixture
def here(run, monkeypatch):
    """The folder in which `runs` is."""
    monkeypatch.chdir(run.parent.parent)
    return run.parent.parent


CKPT = "runs/first/checkpoints/step-000006.ckpt"
PATHS = {
    "runs/frist": r"there is no such file or folder; did you mean runs/first\?$",
    CKPT.replace("first", "frist"): r"there is no such file or folder; did you mean runs/first\?$",
    CKPT.replace("006", "060"): rf"there is no such file or folder; did you mean {CKPT[:-6]}\d",
    "first": r"there is no such file or folder; did you mean runs/first\?$",
    "nothing/like/it": r"there is no such file or folder; give a run folder, a checkpoint file",
    "runs": r"holds neither a run nor published weights; give a run folder",
    "runs/first/checkpoints": r"holds neither .*; did you mean runs/first, or one of its files\?$",
    "runs/first/checkpoints/manifest.json": r"is no checkpoint by itself; give its folder$",
    f"{CKPT}/x": r"there is no such file or folder; ",
    "a" * 300: r"cannot be read \(File name too long\); give",
    "a\0b": r"there is no such file or folder; give a run",
}


@pytest.mark.parametrize(("path", "problem"), PATHS.items(), ids=[p[:40] for p in PATHS])
def test_a_path_that_is_nothing_to_load_says_what_to_give(here, path, problem):
    for look in (check_checkpoint, load):
        with pytest.raises(CheckpointError) as caught:
            look(path)
        (line,) = caught.value.problems
        assert line.startswith(path.replace("\0", r"\x00"))
        assert re.search(problem, line)


def test_an_empty_path_is_refused(here):
    with pytest.raises(CheckpointError, match=r"^checkpoint: is empty; give a run folder"):
        check_checkpoint("")


def test_a_run_without_a_checkpoint_is_refused(run):
    shutil.rmtree(run / "checkpoints")
    (run / "receipt.json").write_text("{}")
    with pytest.raises(CheckpointError, match="first: this run has no checkpoint yet"):
        check_checkpoint(run)


def test_published_weights_are_looked_at_before_torch_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="model_type is 'llama'"):
        check_checkpoint(tmp_path)


def test_a_path_is_checked_without_torch(run, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = "import sys; from gpt2lab.loading import check_checkpoint as c; c(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])}
    for path in (run, run / "checkpoints" / name_of(5)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_good_path_is_passed_in_silence(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_checkpoint(run)
        check_checkpoint(str(run))


def test_a_model_is_read_without_what_only_training_needs():
    """Lightning takes several times longer to load than torch."""
    program = (
        "import sys\n"
        "import gpt2lab.checkpoint.model, gpt2lab.weights.pretrained, gpt2lab.generation.text\n"
        "import gpt2lab.insight.folder, gpt2lab.explorer.session\n"
        "sys.exit(bool({'lightning', 'torchmetrics', 'torch._dynamo'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
