"""Our models in files of others: what is written means the same there and here."""

import dataclasses
import json
import re
import shutil
import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import gpt2lab.weights.hub as hub_module
from gpt2lab import exporting
from gpt2lab.checkpoint import read_model
from gpt2lab.config import (
    ExportFormat,
    GPT2Config,
    PairsConfig,
    StoredPrecision,
    TextConfig,
)
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import CheckpointError, ConfigError, RunError
from gpt2lab.experiment import fit
from gpt2lab.exporting import export
from gpt2lab.generation import Speech, generate
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import CharTokenizer, DigitTokenizer, gpt2_tokenizer
from gpt2lab.weights import find_weights, graph, read_pretrained, stored
from gpt2lab.weights.layout import SPEECH
from gpt2lab.weights.reread import compare_ours
from gpt2lab.weights.spoken import plain_speech, read_speech
from gpt2lab.weights.stored import configuration, in_parts, shapes_of, write_model
from gpt2lab.weights.target import FILES
from gpt2lab.weights.tensors import without_weights
from tests.hub import COMMIT, serving
from tests.test_experiment import SHORT
from tests.test_loading import content, save
from tests.test_weights import random_model

CHARS = CharTokenizer("\n THabcdefgh", end_of_text=True)
FP32 = StoredPrecision.fp32


def our_model(bias=True, speech=None, **shape) -> GPT2:
    """A model with random biases and norms too, so that none is trivially right."""
    size = speech.tokenizer.vocab_size if speech else 11
    config = GPT2Config(2, 2, 16, 12, size, bias=bias, dropout=0.1)
    model = GPT2(dataclasses.replace(config, **shape)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.transformer.wte.weight.data[model.vocab_size :] = 0
    model.speech = speech
    return model


def read_by_transformers(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


SHAPES = [
    {},
    {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 5, "block_size": 1},
    {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 5000},  # 56 rows are added to these
    {"bias": False},
]


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_in_transformers_are_ours(tmp_path, shape):
    model = our_model(**shape)
    write_model(model, tmp_path, FP32)
    theirs = read_by_transformers(tmp_path)
    tokens = torch.randint(model.vocab_size, (3, model.config.block_size))
    torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-5, atol=1e-5)
    assert theirs.config.vocab_size == model.vocab_size


@torch.no_grad()
def test_greedy_text_in_transformers_is_ours(tmp_path):
    model = our_model(block_size=40, vocab_size=50)
    model.transformer.ln_f.bias.data.zero_()  # it would make one token the likeliest everywhere
    write_model(model, tmp_path, FP32)
    theirs, prompt = read_by_transformers(tmp_path), torch.randint(50, (1, 8))
    mask = torch.ones_like(prompt)
    found = theirs.generate(prompt, attention_mask=mask, max_new_tokens=32, do_sample=False)
    ours = generate(model, prompt[0], max_new_tokens=32, temperature=0)
    assert len(set(found[0, 8:].tolist())) > 2
    assert found[0].tolist() == ours.tolist()


@pytest.mark.parametrize("size", ["small", "medium", "large", "xl"])
def test_every_published_size_has_the_tensors_that_transformers_expects(size):
    overrides = [f"model={size}", "model.block_size=1024", "model.vocab_size=50257"]
    config = settings_from("train", overrides).settings.model
    model = without_weights(config, "")
    dtype = torch.float32
    theirs = transformers.GPT2Config.from_dict(configuration(model, dtype))
    assert (theirs.n_ctx, theirs.n_positions, theirs.dtype) == (1024, 1024, dtype)
    with torch.device("meta"):
        state = transformers.GPT2LMHeadModel(theirs).state_dict()
    del state["lm_head.weight"]  # tied, and so not written by transformers either
    assert shapes_of(model) == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("vocab_size", [11, 5000])
def test_import_export_and_import_change_no_bit(tmp_path, vocab_size):
    theirs = random_model(vocab_size=vocab_size)
    theirs.save_pretrained(tmp_path / "a")
    first = read_pretrained(tmp_path / "a")
    write_folder(first, tmp_path / "b")
    second = read_pretrained(tmp_path / "b")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in "ab")
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def write_folder(model, folder, precision=FP32):
    folder.mkdir()
    write_model(model, folder, precision)
    return folder


def test_the_file_is_as_other_readers_want_it(tmp_path):
    """vLLM and KerasHub take names with the prefix, llama.cpp n_ctx; all transpose Conv1D."""
    model = our_model(bias=False, vocab_size=5000)
    write_model(model, tmp_path, FP32)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    tensors = load_file(tmp_path / "model.safetensors")
    assert all(name.startswith("transformer.") for name in tensors)
    assert tensors["transformer.wte.weight"].shape == (5000, 16)
    assert tensors["transformer.h.0.mlp.c_fc.weight"].shape == (16, 64)
    assert not tensors["transformer.h.0.mlp.c_fc.bias"].any()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    wanted = {"n_ctx": 12, "n_positions": 12, "resid_pdrop": 0.1, "torch_dtype": "float32"}
    assert config.items() >= wanted.items()
    assert (config["bos_token_id"], config["tie_word_embeddings"]) == (None, True)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [(StoredPrecision.bf16, torch.bfloat16), (StoredPrecision.fp16, torch.float16)],
)
def test_weights_may_be_stored_in_half_the_bytes(tmp_path, precision, dtype):
    model = our_model()
    write_model(model, tmp_path, precision)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {
        dtype
    }
    assert read_by_transformers(tmp_path).dtype == dtype
    read = read_pretrained(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.to(dtype).float(), read[name])


def test_fp16_refuses_what_it_cannot_hold(tmp_path):
    model = our_model()
    model.transformer.h[1].ln_2.bias.data[3] = 70_000
    with pytest.raises(ConfigError, match=r"fp16 ends at 65,504, transformer\.h\.1\.ln_2\.bias"):
        write_model(model, tmp_path, StoredPrecision.fp16)


@torch.no_grad()
def test_large_weights_lie_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "LARGEST_FILE", 8_000)
    model = our_model()
    write_model(model, tmp_path, FP32)
    files = find_weights(tmp_path)
    assert len(files) > 2
    assert all(FILES.fullmatch(path.name) for path in tmp_path.iterdir())
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * model.num_parameters()
    tokens = torch.randint(11, (2, 12))
    torch.testing.assert_close(read_by_transformers(tmp_path)(tokens).logits, model(tokens))
    compare_ours(model, tmp_path, FP32)


def test_parts_hold_as_much_as_they_may():
    sizes = {"a": 3, "b": 3, "c": 9, "d": 1, "e": 5}
    assert [*in_parts(sizes, 6)] == [["a", "b"], ["c"], ["d", "e"]]
    assert [*in_parts(sizes, 100)] == [[*sizes]]


SPEECHES = {
    "gpt2": Speech.of_text(gpt2_tokenizer()),
    "characters": Speech.of_text(CHARS),
    "without an end": Speech.of_text(CharTokenizer("\n ab")),
    "pairs": Speech.of_pairs(CHARS, "\n"),
    "sort": Speech.of_sort(DigitTokenizer(3), 6),
}


@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES.keys())
def test_an_exported_model_is_spoken_to_as_before(tmp_path, speech):
    model = our_model(speech=speech)
    read = read_pretrained(write_folder(model, tmp_path / "a"))
    assert plain_speech(read.speech) == plain_speech(speech)
    if speech is SPEECHES["gpt2"]:
        (tmp_path / "a" / SPEECH).unlink()  # as in the folders of others
        assert plain_speech(read_pretrained(tmp_path / "a").speech) == plain_speech(speech)


WRONG = [
    {"start": -1},
    {"start": True},
    {"empty": 13},
    {"start": 3},
    {"question_tokens": 0},
    {"question_tokens": 25},
    {"answer_tokens": 10**12},
    {"separator": None},
    {"separator": "\ud800"},
    {"separator": "?"},
    {"has_answers": 1},
    {"tokenizer": {"kind": "words"}},
    {"tokenizer": []},
    {"tokenizer": {"kind": "digits", "num_digits": 14}},
    {"more": 1},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_no_export_wrote_of_a_tokenizer_is_refused(tmp_path, change):
    path, config = tmp_path / SPEECH, GPT2Config(block_size=24, vocab_size=13)
    plain = plain_speech(SPEECHES["characters"])
    path.write_text(json.dumps(plain))
    assert plain_speech(read_speech(path, config)) == plain
    path.write_text(json.dumps(plain | change))
    with pytest.raises(CheckpointError, match=r"gpt2lab\.json: .*export again, or take the file"):
        read_speech(path, config)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A few steps of training, and checkpoints as of others."""
    folder = tmp_path_factory.mktemp("runs")
    fit([*SHORT, f"runs_dir={folder}", "name=sort"])
    config = GPT2Config(1, 1, 16, 24, CHARS.vocab_size)
    save(content(config, TextConfig(), CHARS), folder / "text")
    save(content(config, PairsConfig(separator="\n"), CHARS), folder / "pairs")
    return folder


CODE = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


@pytest.mark.parametrize("name", ["sort", "text", "pairs"])
def test_a_trained_run_is_exported_and_its_card_says_how_to_use_it(runs, tmp_path, run_code, name):
    done = export(runs / name, tmp_path / "out")
    assert [*done.compared] == ["gpt2lab", "transformers"]
    logits, greedy, ids = done.compared["transformers"]
    assert re.fullmatch(
        r"logits of 3 rows of \d+ \(largest difference \S+, allowed 1.\de-04\)", logits
    )
    assert re.fullmatch(r"greedy text of \d+ tokens", greedy)
    assert re.fullmatch(r"ids of \d texts", ids)
    assert {*done.files} == {path.name for path in (tmp_path / "out").iterdir()}
    assert all(map(FILES.fullmatch, done.files))
    card = (tmp_path / "out" / "README.md").read_text()
    (code,) = CODE.findall(card)
    said = run_code(code, tmp_path / "out")
    if name == "sort":
        assert re.fullmatch(r"0 2 1 0 2 1( [012]){6}\n", said)


@pytest.fixture
def run_code(monkeypatch, capsys):
    """Runs an example in a folder; what it prints."""

    def run(code, folder):
        monkeypatch.chdir(folder)
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            exec(code, {})
        out, err = capsys.readouterr()
        assert "attention mask" not in err
        return out

    return run


def test_a_card_tells_of_the_run_and_of_no_path_or_host(runs, tmp_path):
    export(runs / "sort", tmp_path / "a|b")
    card = (tmp_path / "a|b" / "README.md").read_text()
    receipt = json.loads((runs / "sort" / "receipt.json").read_text())
    assert "# a\\|b" in card
    for row in ("data | sort-6x3 |", "data.length | 6 |", "optim.lr | ", "seed | 0 |", "torch | "):
        assert f"| {row}" in card
    assert re.search(r"\| val/loss \| \d\.\d+ \|", card)
    assert not receipt["git_revision"] or receipt["git_revision"] in card
    for private in (str(runs), str(tmp_path), str(Path.home()), "processor", "host"):
        assert private not in card


def test_a_card_names_weights_of_the_hub_and_their_commit(runs, tmp_path, monkeypatch):
    run = Path(shutil.copytree(runs / "sort", tmp_path / "run"))
    receipt = json.loads((run / "receipt.json").read_text())
    begun = {"name": "a/b@v1", "repository": "a/b", "commit": COMMIT}
    (run / "receipt.json").write_text(json.dumps(receipt | {"init_from": begun}))
    export(run, tmp_path / "mine")
    assert f"| begun with | a/b, commit {COMMIT} |" in (tmp_path / "mine/README.md").read_text()
    here = {"name": "../mine", "folder": str(tmp_path), "sha256": {}}
    (run / "receipt.json").write_text(json.dumps(receipt | {"init_from": here}))
    export(run, tmp_path / "other")
    card = (tmp_path / "other/README.md").read_text()
    assert "| begun with | a local checkpoint |" in card
    assert str(tmp_path) not in card

    with serving() as hub:
        monkeypatch.setattr(hub_module, "places", lambda: (hub.endpoint, str(tmp_path / "cache")))
        hub.models["me/mine"] = tmp_path / "mine"
        export(Path("me/mine"), tmp_path / "again")
    card = (tmp_path / "again/README.md").read_text()
    assert f"| weights from | me/mine, commit {COMMIT} |" in card


def test_no_folder_of_anything_else_is_replaced_from_python_either(runs, tmp_path):
    source = Path(shutil.copytree(runs / "sort", tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"^to: .*run holds checkpoints, which is no export"):
        export(source, source)
    export(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds an export already"):
        export(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="is what checkpoint= names"):
        export(tmp_path / "out", tmp_path / "out", overwrite=True)
    export(source, tmp_path / "out", overwrite=True)
    assert (source / "checkpoints").is_dir()


def test_a_checkpoint_by_itself_has_no_receipt(runs, tmp_path):
    path = next((runs / "sort" / "checkpoints").glob("*.ckpt"))
    (tmp_path / "one.ckpt").write_bytes(path.read_bytes())
    export(tmp_path / "one.ckpt", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Training" in card
    assert "## Made with" not in card


@torch.no_grad()
@pytest.mark.parametrize("large", [False, True])
def test_a_graph_has_the_same_logits_for_any_shape(tmp_path, monkeypatch, run_code, large):
    if large:
        monkeypatch.setattr(graph, "LARGEST_FILE", 1000)
    config = GPT2Config(1, 2, 16, 12, 5000, bias=False)
    data = save(content(config, TextConfig(), CharTokenizer("".join(map(chr, range(100, 5100))))),
                tmp_path / "a.ckpt")  # fmt: skip
    done = export(data, tmp_path / "out", form=ExportFormat.onnx)
    assert ("model.onnx.data" in done.files) is large
    assert all(map(FILES.fullmatch, done.files))
    (said,) = done.compared["onnxruntime"]
    assert said.startswith("logits of 1 x 1, 2 x 12, 3 x 6 tokens (largest difference ")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("input_ids", ["rows", "tokens"])
    assert (result.name, result.shape) == ("logits", ["rows", "tokens", 5000])
    tokens = torch.randint(5000, (4, 7))
    (logits,) = session.run(None, {"input_ids": tokens.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), read_model(data).eval()(tokens))
    where = str(Path(stored.__file__).parent.parent).encode()
    assert not any(where in path.read_bytes() for path in (tmp_path / "out").iterdir())
    (code,) = CODE.findall((tmp_path / "out" / "README.md").read_text())
    run_code(code, tmp_path / "out")


def test_what_is_unknown_of_a_vocabulary_is_said(tmp_path, run_code):
    random_model().save_pretrained(tmp_path / "a")
    with pytest.warns(UserWarning, match="nothing says what its ids stand for"):
        done = export(tmp_path / "a", tmp_path / "b")
    assert {*done.files} == {
        *("README.md", "config.json", "generation_config.json", "model.safetensors")
    }
    card = (tmp_path / "b" / "README.md").read_text()
    assert "there is no tokenizer here" in card
    (code,) = CODE.findall(card)
    run_code(code, tmp_path / "b")


def test_one_tensor_may_hold_nan_where_it_is_named(tmp_path):
    made = content()
    made["state_dict"]["model.transformer.h.1.ln_1.bias"][2] = torch.nan
    path = save(made, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"state_dict\.model\.transformer\.h\.1\.ln_1\.bias"):
        export(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    name = "state_dict.model.transformer.h.1.ln_1.bias"
    with pytest.warns(UserWarning, match="no logits are compared"):
        done = export(path, tmp_path / "out", allow_nonfinite=name)
    assert done.compared == {"gpt2lab": ["28 tensors bit for bit"]}


DAMAGE = {
    "a weight": ("model.safetensors", "transformer.h.0.attn.c_attn.weight is not what was written"),
    "an activation": ("config.json", "transformers' logits differ by more than rounding: largest"),
    "a tokenizer": ("tokenizer.json", "transformers' (ids|text) of "),
    "no JSON": ("tokenizer_config.json", "AutoTokenizer does not read it"),
}


def damaged(path, kind):
    """A file with a mistake such as a bug of ours would make."""
    text = path.read_bytes()
    if kind == "a weight":
        tensors = load_file(path)
        tensors["transformer.h.0.attn.c_attn.weight"][0, 0] += 1e-3
        return save_file(tensors, path, {"format": "pt"})
    changes = {
        "an activation": (b'"gelu_new"', b'"relu"'),
        "a tokenizer": (b'"1": 1', b'"1": 2'),
        "no JSON": (b"{", b"["),
    }
    return path.write_bytes(text.replace(*changes[kind], 1))


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_mistake_in_what_was_written_is_noticed_and_nothing_is_left(tmp_path, monkeypatch, kind):
    name, problem = DAMAGE[kind]

    def after(model, folder, precision):
        found = compare_ours(model, folder, precision) if kind != "a weight" else None
        damaged(folder / name, kind)
        return found or compare_ours(model, folder, precision)

    monkeypatch.setattr(exporting, "compare_ours", after)
    path = save(content(), tmp_path / "a.ckpt")
    with pytest.raises(RunError, match=problem):
        export(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]
