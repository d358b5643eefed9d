"""The Hugging Face layout: what transformers wrote means the same here, or is refused."""

import json
import math
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gpt2lab.config import GPT2Config
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer.gpt2 import byte_characters, read_merges
from gpt2lab.weights import find_weights, read_config, read_pretrained
from gpt2lab.weights import pretrained as pretrained_module
from gpt2lab.weights.pretrained import has_gpt2_vocabulary
from gpt2lab.weights.tensors import in_memory, without_weights
from tests.damage import CUTS

TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 12, "vocab_size": 11}
SPECIAL = {"bos_token_id": None, "eos_token_id": None}


def random_model(**shape) -> transformers.GPT2LMHeadModel:
    """transformers' model with random biases and norms too, so that none is trivially right."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY | SPECIAL | shape)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder as transformers writes it, and its logits; not to be changed."""
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("hf"), random_model()
    model.save_pretrained(folder)
    tokens = torch.randint(0, 11, (3, 12))
    return folder, tokens, model(tokens).logits


@pytest.fixture
def folder(written, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(written[0], tmp_path / "hf"))


def assert_same_logits(model, tokens, logits):
    torch.testing.assert_close(model.eval()(tokens), logits, rtol=1e-5, atol=1e-5)


def configured(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def rewritten(folder, change):
    """Let the folder's tensors be what `change` makes of them."""
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def refused(folder, problem):
    with pytest.raises(CheckpointError, match=problem) as caught:
        read_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert all(";" in line for line in caught.value.problems)  # each says what to do


SHAPES = [
    {},
    {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 5, "n_positions": 3},
    {"n_layer": 6, "n_head": 12, "n_embd": 48, "vocab_size": 301},  # distilgpt2 has 6 layers
    {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 5000},  # rows are added to the last 56
    {"activation_function": "gelu_pytorch_tanh", "n_inner": 64},
    {"reorder_and_upcast_attn": True, "use_cache": False},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_are_those_of_transformers(tmp_path, shape):
    theirs = random_model(**shape)
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(0, theirs.config.vocab_size, (3, theirs.config.n_positions))
    model = read_pretrained(tmp_path)
    assert_same_logits(model, tokens, theirs(tokens).logits)
    assert not model.transformer.wte.weight[model.vocab_size :].any()


@pytest.mark.parametrize("size", ["small", "medium", "large", "xl"])
def test_every_published_size_has_the_names_and_shapes_of_transformers(size):
    overrides = [f"model={size}", "model.block_size=1024", "model.vocab_size=50257"]
    config = settings_from("train", overrides).settings.model
    shape = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd")}
    with torch.device("meta"):
        theirs = transformers.GPT2Model(transformers.GPT2Config(**shape)).state_dict()
    ours = without_weights(config, "").transformer.state_dict()
    found = {
        name: tuple(pretrained_module.theirs(name, tensor, 50257).shape)
        for name, tensor in ours.items()
    }
    assert found == {name: tuple(tensor.shape) for name, tensor in theirs.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_number_format_becomes_fp32(tmp_path, dtype):
    theirs = random_model().to(dtype)
    theirs.save_pretrained(tmp_path)
    model = read_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokens = torch.randint(0, 11, (2, 12))
    assert_same_logits(model, tokens, theirs.float()(tokens).logits)


def test_the_model_is_nobodys_but_its_own(folder):
    model = read_pretrained(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(b"")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.is_contiguous() for p in model.parameters())
    places = [p.data_ptr() for p in model.parameters()]
    assert places == [p.data_ptr() for p in in_memory(model).parameters()]  # no second copy


VARIANTS = {
    "no prefix": lambda t: {name.removeprefix("transformer."): v for name, v in t.items()},
    "masks": lambda t: (
        t
        | {
            "transformer.h.0.attn.bias": torch.ones(1, 1, 12, 12, dtype=torch.uint8),
            "transformer.h.1.attn.masked_bias": torch.tensor(-1e4),
        }
    ),
    "masks without a prefix": lambda t: (
        {name.removeprefix("transformer."): v for name, v in t.items()}
        | {"h.0.attn.bias": torch.ones(1, 1, 12, 12, dtype=torch.bool)}
    ),
    "the head too": lambda t: t | {"lm_head.weight": t["transformer.wte.weight"].clone()},
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS.keys())
def test_prefix_masks_and_an_equal_head_do_not_matter(written, folder, change):
    rewritten(folder, change)
    assert_same_logits(read_pretrained(folder), *written[1:])


def test_the_backbone_alone_is_enough(written, tmp_path):
    transformers.GPT2Model.from_pretrained(written[0]).save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")
    assert_same_logits(read_pretrained(tmp_path), *written[1:])


def test_weights_in_several_files(written, tmp_path):
    theirs = transformers.GPT2LMHeadModel.from_pretrained(written[0])
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(find_weights(tmp_path)) > 1
    assert_same_logits(read_pretrained(tmp_path), *written[1:])
    missing = find_weights(tmp_path)[1]
    missing.unlink()
    refused(tmp_path, rf"index\.json: names '{missing.name}', which is no file beside it")


@pytest.mark.parametrize("zipped", [True, False])
def test_an_old_pickle_of_weights(written, folder, zipped):
    path = folder / "model.safetensors"
    old = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 12, 12).byte() for i in range(2)}
    content = load_file(path) | old
    content["lm_head.weight"] = content["transformer.wte.weight"]
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    path.unlink()
    assert_same_logits(read_pretrained(folder), *written[1:])


def test_the_oldest_folders_say_n_ctx(written, folder):
    configured(folder, n_positions=..., n_ctx=12, model_type=..., layer_norm_epsilon=...)
    assert_same_logits(read_pretrained(folder), *written[1:])


def test_the_shape_and_the_dropout_come_from_the_config(folder):
    configured(folder, resid_pdrop=0.25)
    assert read_config(folder) == GPT2Config(2, 2, 16, 12, 11, dropout=0.25)


CONFIGS = {
    "another model": ({"model_type": "llama"}, "model_type is 'llama', our model has 'gpt2'"),
    "layer norm": ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, our model has"),
    "activation": ({"activation_function": "gelu"}, "activation_function is 'gelu', our model"),
    "scaled by layer": ({"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx is True"),
    "not scaled": ({"scale_attn_weights": False}, "scale_attn_weights is False"),
    "cross attention": ({"add_cross_attention": True}, "add_cross_attention is True"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantization_config is "),
    "inner width": ({"n_inner": 32}, r"n_inner is 32, not 4 \* n_embd"),
    "no layers": ({"n_layer": ...}, "n_layer is missing"),
    "null": ({"vocab_size": None}, "vocab_size is missing"),
    "no context": ({"n_positions": ...}, "n_positions is missing"),
    "a text": ({"n_head": "2"}, r"model\.n_head: '2' is not a whole number"),
    "no divisor": ({"n_head": 3}, r"model\.n_head: 3 does not divide model\.n_embd=16"),
    "negative": ({"n_layer": -1}, r"model\.n_layer: -1 is out of range"),
    "huge": ({"n_positions": 2**62}, "its model is too large"),
    "beyond 64 bits": ({"n_positions": 10**30}, "its model is too large"),
    "lists": ({"n_embd": [16], "activation_function": ["gelu_new"]}, "activation_function is"),
    "another depth": ({"n_layer": 3}, r"h\.2\.ln_1\.weight is missing there and \(16,\) in the"),
    "another width": ({"n_embd": 32}, r"wte\.weight is \(11, 16\) there and \(11, 32\) in the"),
    "another context": ({"n_positions": 9}, r"wpe\.weight is \(12, 16\) there and \(9, 16\)"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_of_another_model_is_refused(folder, changes, problem):
    configured(folder, **changes)
    refused(folder, problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "is no JSON object"),
        (b"{}", "n_layer is missing"),
    ],
)
def test_a_damaged_config_is_refused(folder, text, problem):
    (folder / "config.json").write_bytes(text)
    refused(folder, rf"config\.json: {problem}")


C_FC = "transformer.h.1.mlp.c_fc.weight"
TENSORS = {
    "missing": (
        lambda t: {name: v for name, v in t.items() if name != C_FC},
        r"h\.1\.mlp\.c_fc\.weight is missing there and \(16, 64\) in the model",
    ),
    "surplus": (
        lambda t: t | {"score.weight": torch.zeros(2, 16)},
        r"score\.weight is \(2, 16\) there and missing in the model",
    ),
    "transposed": (
        lambda t: t | {C_FC: t[C_FC].T},
        r"h\.1\.mlp\.c_fc\.weight is \(64, 16\) there and \(16, 64\) in the model",
    ),
    "the first of several": (
        lambda t: t | {"transformer.wpe.weight": torch.zeros(1), "a": torch.zeros(1)},
        r"wpe\.weight is \(1,\) there and \(12, 16\) in the model",
    ),
    "another head": (
        lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] + 1},
        r"lm_head\.weight is not wte\.weight, our model has one matrix for both",
    ),
    "a head without its embedding": (
        lambda t: {"lm_head.weight": t["transformer.wte.weight"]},
        r"lm_head\.weight is not wte\.weight",
    ),
    "twice": (
        lambda t: t | {"wte.weight": t["transformer.wte.weight"].clone()},
        r"wte\.weight is there a second time",
    ),
    "whole numbers": (
        lambda t: t | {C_FC: t[C_FC].to(torch.int8)},
        r"h\.1\.mlp\.c_fc\.weight holds torch\.int8, weights are floating point",
    ),
    "nothing": (lambda t: {}, r"wte\.weight is missing there"),
}


@pytest.mark.parametrize(("change", "problem"), TENSORS.values(), ids=TENSORS.keys())
def test_the_first_tensor_that_does_not_fit_is_named(folder, change, problem):
    rewritten(folder, change)
    refused(folder, problem)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_unless_allowed_by_name(folder, value):
    def with_one(tensors):
        tensors["transformer.h.0.ln_1.bias"][3] = value
        return tensors

    rewritten(folder, with_one)
    refused(
        folder, r"h\.0\.ln_1\.bias has 1 of 16 numbers NaN .* allow_nonfinite=h\.0\.ln_1\.bias$"
    )
    model = read_pretrained(folder, allow_nonfinite="h.0.ln_1.bias")
    assert not model.transformer.h[0].ln_1.bias.isfinite().all()


def test_an_equal_head_may_have_the_nan_that_is_allowed(folder):
    def with_head(tensors):
        tensors["transformer.wte.weight"][3, 1] = math.nan
        return tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}

    rewritten(folder, with_head)
    refused(folder, r"wte\.weight has 1 of [\d,]+ numbers NaN .* allow_nonfinite=wte\.weight$")
    assert (
        read_pretrained(folder, allow_nonfinite="wte.weight").transformer.wte.weight.isnan().any()
    )


@pytest.mark.parametrize("damage", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_damaged_file_is_refused_by_name(folder, name, damage):
    path = folder / name
    if name == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), path)
        (folder / "model.safetensors").unlink()
    path.write_bytes(damage(path.read_bytes()))
    refused(folder, rf"{name}: has [\d,]+ bytes that are not whole weights; copy or download")


class RunsCode:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_code_in_an_old_pickle_does_not_run(folder, tmp_path, form):
    canary, path = tmp_path / "canary", folder / "pytorch_model.bin"
    evil = {"wte.weight": torch.zeros(11, 16), "x": RunsCode(canary)}
    (folder / "model.safetensors").unlink()
    if form == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form == "zip")
    refused(folder, "are not whole weights")
    assert not canary.exists()


@pytest.mark.parametrize(
    "foreign",
    [
        [1, 2],
        {"wte.weight": 1},
        {"wte.weight": torch.zeros(1).expand(2**40)},
        {"wte.weight": torch.zeros(2**40, device="meta")},
        {"wte.weight": torch.eye(2).to_sparse()},
        {1: torch.zeros(2)},
    ],
    ids=str,
)
def test_a_pickle_of_anything_else_is_refused(folder, foreign):
    (folder / "model.safetensors").unlink()
    torch.save(foreign, folder / "pytorch_model.bin")
    refused(folder, "not whole weights|no plain tensor|is missing there")


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"wte.weight": "../other.safetensors"}}, "names '../other.safetensors'"),
        ({"weight_map": {"wte.weight": "gone.safetensors"}}, "names 'gone.safetensors'"),
        ({"weight_map": {"wte.weight": "w" * 5000}}, "names 'www"),
        ({"weight_map": {"wte.weight": 7}}, "names '7'"),
    ],
)
def test_an_index_names_files_beside_it_and_no_others(folder, index, problem):
    (folder / "model.safetensors").rename(folder.parent / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, problem)


def test_a_folder_without_weights_or_config_says_what_is_missing(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, r"has neither model\.safetensors nor pytorch_model\.bin")
    (folder / "config.json").unlink()
    refused(folder, r"config\.json: cannot be read \(No such file or directory\)")


def test_reading_a_config_needs_no_torch(folder):
    code = (
        "import sys; from gpt2lab.weights import read_config, find_weights\n"
        "read_config(f := __import__('pathlib').Path(sys.argv[1])), find_weights(f)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 0


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_vocabulary_of_another_language_is_not_taken_for_gpt2s(tmp_path, is_ours):
    pieces = [*byte_characters().values(), *map("".join, read_merges()), "<|endoftext|>"]
    if not is_ours:
        pieces[1000], pieces[1001] = pieces[1001], pieces[1000]
    path = tmp_path / "vocab.json"
    assert has_gpt2_vocabulary(tmp_path, 50257)
    assert not has_gpt2_vocabulary(tmp_path, 50304)  # nothing but the number could say so
    path.write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    assert has_gpt2_vocabulary(tmp_path, 50257) is is_ours
    assert has_gpt2_vocabulary(tmp_path, 50304) is is_ours  # padded, or with more tokens
    assert not has_gpt2_vocabulary(tmp_path, 50256)
    path.write_text("[" * 100_000)
    assert not has_gpt2_vocabulary(tmp_path, 50257)
