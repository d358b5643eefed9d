"""Models by their names on the hub: fetched once, then there without it; told in one line."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file

import gpt2lab.weights.hub as hub_module
from gpt2lab import GPT2
from gpt2lab.errors import CheckpointError
from gpt2lab.loading import load, located
from gpt2lab.weights.hub import HubName, fetch, fetch_config, hub_name
from tests.hub import COMMIT, serving

TINY = {"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 4, "eos_token_id": None}
CUT_OFF = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder as transformers writes it, and a few files that nobody needs."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hf")
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY)).save_pretrained(folder)
    (folder / "README.md").write_text("A model.")
    (folder / "tf_model.h5").write_bytes(bytes(100))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def hub(written, tmp_path, monkeypatch):
    """A hub that has gpt2 and someone's model; its cache is empty, and here is no folder at all."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with serving() as hub:
        hub.models |= {"openai-community/gpt2": written, "someone/model": written}
        monkeypatch.setattr(hub_module, "places", lambda: (hub.endpoint, str(tmp_path / "cache")))
        huggingface_hub.close_session()
        yield hub
    hub_module._fetched.cache_clear()
    huggingface_hub.close_session()


def forget_and_cut_off(monkeypatch, tmp_path):
    """A new process without a network."""
    hub_module._fetched.cache_clear()
    monkeypatch.setattr(hub_module, "places", lambda: (CUT_OFF, str(tmp_path / "cache")))


def break_proxy(monkeypatch):
    hub_module._fetched.cache_clear()
    monkeypatch.setenv("http_proxy", CUT_OFF)
    monkeypatch.setenv("no_proxy", "")
    huggingface_hub.close_session()  # it looks for a proxy when it is opened


NAMES = {
    "gpt2": ("openai-community/gpt2", None),
    "gpt2-xl": ("openai-community/gpt2-xl", None),
    "distilgpt2": ("distilbert/distilgpt2", None),
    "gpt2@607a30d": ("openai-community/gpt2", "607a30d"),
    "someone/a.model_1": ("someone/a.model_1", None),
    "someone/model@refs/pr/1": ("someone/model", "refs/pr/1"),
}


@pytest.mark.parametrize(("given", "meant"), NAMES.items(), ids=NAMES)
def test_a_name_stands_for_a_repository_and_a_revision(given, meant):
    assert hub_name(given) == HubName(given, *meant)


@pytest.mark.parametrize(
    "given",
    ["gpt3", "a/b/c", "./a/b", "/a/b", "../b", "~/a", "a/", "/", "", "runs/typo", "a b/c", "a/b\n",
     "gpt2lab/model", "x/step-000005.ckpt", "x/model.safetensors", "a\0/b",
     "a/" + "b" * 300, "gpt2@" + "b" * 300],
)  # fmt: skip
def test_a_path_is_no_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2lab").mkdir()
    assert hub_name(given) is None


def test_only_what_is_needed_is_fetched_and_once(hub):
    folder = fetch(hub_name("gpt2"))
    assert folder.name == COMMIT
    assert sorted(hub.fetched) == ["config.json", "model.safetensors"]
    hub.asked.clear()
    assert fetch(hub_name("gpt2")) == folder
    assert not hub.asked


def test_the_old_weights_are_fetched_where_there_are_no_others(hub, written, tmp_path):
    hub.models["someone/old"] = tmp_path / "old"
    (tmp_path / "old").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / "old" / name).symlink_to(written / name)
    tokens = torch.tensor([[1, 2, 3]])
    old = GPT2.from_pretrained("someone/old")
    assert sorted(hub.fetched) == ["config.json", "pytorch_model.bin"]
    assert torch.equal(old(tokens), GPT2.from_pretrained("gpt2")(tokens))


@torch.no_grad()
def test_from_pretrained_is_the_model_of_transformers(hub, written):
    theirs = transformers.GPT2LMHeadModel.from_pretrained(written)
    tokens = torch.tensor([[1, 50256, 3]])
    for model in (
        GPT2.from_pretrained("gpt2"),
        GPT2.from_pretrained("someone/model", revision="v1"),
        GPT2.from_pretrained("someone/model@v1"),
        GPT2.from_pretrained(written),
        load("gpt2", precision="fp32", device="cpu"),
    ):
        assert not model.training
        assert model.transformer.wpe.weight.dtype == torch.float32
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)
    assert "GET /api/models/someone/model/revision/v1" in hub.asked


@pytest.mark.parametrize("name", ["gpt2", "gpt2@v1", f"gpt2@{COMMIT}"])
def test_what_the_cache_has_needs_no_network(hub, tmp_path, monkeypatch, name):
    folder = fetch(hub_name(name))
    forget_and_cut_off(monkeypatch, tmp_path)
    assert fetch(hub_name(name)) == folder
    monkeypatch.setattr(hub_module, "places", lambda: (hub.endpoint, str(tmp_path / "cache")))
    hub.asked.clear()
    break_proxy(monkeypatch)
    assert fetch(hub_name(name)) == folder
    assert not hub.asked


def test_what_the_cache_has_is_taken_where_a_proxy_answers_with_an_error(hub, monkeypatch):
    folder, whole = fetch(hub_name("gpt2")), huggingface_hub.snapshot_download
    hub_module._fetched.cache_clear()

    def without_network(*args, local_files_only, **more):
        if not local_files_only:
            raise RuntimeError("407 Proxy Authentication Required")
        return whole(*args, local_files_only=True, **more)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", without_network)
    assert fetch(hub_name("gpt2")) == folder
    assert "(407 Proxy Authentication Required)" in refusal("someone/model")


def refusal(name):
    with pytest.raises(CheckpointError) as caught:
        fetch(hub_name(name))
    (line,) = caught.value.problems
    assert line.endswith("or give a local folder with config.json and model.safetensors")
    return line


def test_without_a_network_one_line_says_what_where_and_what_to_do(hub, tmp_path, monkeypatch):
    forget_and_cut_off(monkeypatch, tmp_path)
    assert refusal("gpt2").startswith(
        f"gpt2: openai-community/gpt2 is not in the cache {tmp_path / 'cache'}, and cannot be had "
        f"from {CUT_OFF} ([Errno 111] Connection refused); check the network, or"
    )
    assert not (tmp_path / "cache").exists()


def test_a_revision_that_is_not_in_the_cache_is_named(hub, tmp_path, monkeypatch):
    fetch(hub_name("gpt2"))
    forget_and_cut_off(monkeypatch, tmp_path)
    assert "gpt2@v1: openai-community/gpt2@v1 is not in the cache" in refusal("gpt2@v1")


def test_what_the_hub_refuses_is_told(hub, written):
    hub.models["someone/gated"] = written
    hub.gated.add("someone/gated")
    assert f"nobody/knows: {hub.endpoint} shows no model nobody/knows" in refusal("nobody/knows")
    assert "has no revision 'v9'; see " in refusal("gpt2@v9")
    assert "only to those who have accepted its terms" in refusal("someone/gated")
    assert "a--b/c: is no name of a model (Cannot have --" in refusal("a--b/c")


def test_a_broken_proxy_is_told(hub, monkeypatch):
    break_proxy(monkeypatch)
    assert "cannot be had from " in refusal("gpt2")
    assert not hub.asked


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_told_with_its_path(hub, tmp_path, monkeypatch, number):
    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    what = f"openai-community/gpt2 cannot be kept there ({os.strerror(number)})"
    assert refusal("gpt2").startswith(f"{tmp_path / 'cache'}: {what}; make room")


def test_of_what_is_no_gpt2_no_weights_are_fetched(hub, tmp_path):
    folder = hub.models["someone/llama"] = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match=r"config\.json: model_type is 'llama'"):
        located("someone/llama")
    assert hub.fetched == ["config.json"]


def test_a_model_without_weights_says_which_are_missing(hub, written, tmp_path, monkeypatch):
    folder = hub.models["someone/empty"] = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").symlink_to(written / "config.json")
    wanted = "someone/empty has neither model.safetensors nor pytorch_model.bin, or "
    assert wanted in refusal("someone/empty")
    # so it is where another program has fetched a part, of which it keeps no list
    fetch_config(hub_name("gpt2"))
    shutil.rmtree(tmp_path / "cache" / "models--openai-community--gpt2" / "trees")
    forget_and_cut_off(monkeypatch, tmp_path)
    assert "or give a local folder" in refusal("gpt2")


def test_a_path_that_is_there_comes_first(hub, written, tmp_path):
    (tmp_path / "here" / "gpt2").symlink_to(written)
    assert located("gpt2").resolve() == written
    assert GPT2.from_pretrained("gpt2").vocab_size == 50257
    assert not hub.asked


def test_a_typo_in_a_path_does_not_reach_the_hub(hub, tmp_path):
    (tmp_path / "here" / "own").mkdir()
    for path in ("runs/typo", "own/typo", "x/step-000005.ckpt", "a/b/c", "a/" + "b" * 300):
        with pytest.raises(CheckpointError, match=r"there is no such file or|name too long"):
            located(path)
        with pytest.raises(CheckpointError, match="neither a folder nor a name on the hub"):
            GPT2.from_pretrained(path)
    with pytest.raises(CheckpointError, match=r"did you mean gpt2-medium\?"):
        located("gpt2-meduim")
    with pytest.raises(CheckpointError, match="is a local folder, which has no revision 'v1'"):
        GPT2.from_pretrained(tmp_path, revision="v1")
    assert not hub.asked


def test_nothing_is_said_where_all_is_well(hub, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fetch(hub_name("gpt2"))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("huggingface_hub").level < logging.CRITICAL


def test_sample_takes_a_name_and_without_a_network_says_so_in_one_line(hub, tmp_path):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path[1:]),
    }

    def sample(checkpoint):
        words = ["-m", "gpt2lab.sample", f"checkpoint={checkpoint}", "max_new_tokens=2", "prompt=a"]
        return subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
        )

    done = sample("gpt2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a")
    environment |= {"HF_ENDPOINT": CUT_OFF}
    assert sample("gpt2").returncode == 0
    done = sample("someone/model")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: someone/model: someone/model is not in the cache")
