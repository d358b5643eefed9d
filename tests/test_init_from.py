"""A run that begins with weights: as good as they are at step 0, or refused before it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import gpt2lab.training
import gpt2lab.weights.hub as hub_module
from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import CheckpointError, ConfigError, DataError
from gpt2lab.experiment import fit
from gpt2lab.loading import load
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import gpt2_tokenizer
from gpt2lab.train import check_and_prepare
from gpt2lab.weights import read_pretrained
from tests.damage import CUTS
from tests.hub import COMMIT, serving
from tests.test_weights import RunsCode

TINY = ["model=nano", "model.n_layer=2", "model.n_head=2", "model.n_embd=8", "model.dropout=0"]
STILL = ["optim.lr=1e-9", "max_steps=1", "schedule.warmup_steps=0", "precision=fp32"]
FAST = [*TINY, "batch_size=4", *(f"callbacks.{name}=null" for name in ("curves", "samples"))]
SENTENCE = "one two three four five, once I caught a fish alive. "
WTE, WPE = "model.transformer.wte.weight", "model.transformer.wpe.weight"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder as transformers writes it, of GPT-2's vocabulary; not to be changed."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 24, "eos_token_id": None}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.transformer.wte.weight.data += torch.arange(8) / 8  # a mean that is not 0
    folder = tmp_path_factory.mktemp("published")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(published, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "rhyme.txt"
    path.write_text(SENTENCE * 60)
    return path


@pytest.fixture
def train(tmp_path, corpus, monkeypatch):
    """Train with overrides, on the rhyme unless they say otherwise; runs lie in tmp_path/runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpt2lab.training, "show", lambda *_: None)  # 128 tokens of 50,257 each

    def run(*overrides, tokenizer="gpt2"):
        data = ["data=text", f"data.path={corpus}", f"data.tokenizer={tokenizer}"]
        given = [*data, "model.block_size=16"]
        if any(o.startswith("data=") for o in overrides):
            given = []
        return fit([*FAST, *given, *STILL, *overrides])

    return run


def state_of(result):
    return load_checkpoint(find_checkpoint(result.folder, "last"))["state_dict"]


def receipt_of(result):
    return json.loads((result.folder / "receipt.json").read_text())


def refused(kind, problem, train, *overrides, **how):
    with pytest.raises(kind, match=problem) as caught:
        train("name=refused", *overrides, **how)
    assert all(";" in line for line in caught.value.problems)
    assert not Path("runs/refused").exists()
    return caught.value.problems


@torch.no_grad()
def test_the_first_loss_is_that_of_the_published_weights(train, published):
    result = train("name=a", f"init_from={published}")
    text = (SENTENCE * 60).encode()
    held_out = gpt2_tokenizer().encode((SENTENCE * 60)[int(len(text) * 0.9) :])
    theirs = transformers.GPT2LMHeadModel.from_pretrained(published).eval()
    total = 0.0
    for start in range(0, len(held_out) - 1, 16):
        row = torch.tensor(held_out[start : start + 17])[None]
        logits = theirs(row[:, :-1]).logits
        total += torch.nn.functional.cross_entropy(logits[0], row[0, 1:], reduction="sum").item()
    assert result.summary["last"]["val/loss"] == pytest.approx(total / (len(held_out) - 1), 1e-5)
    facts = receipt_of(result)["init_from"]
    assert (facts["name"], facts["folder"]) == (str(published), str(published))
    assert set(facts["sha256"]) == {"model.safetensors"}
    assert f"begins with weights: name {published}" in (result.folder / "train.log").read_text()


def test_the_first_loss_is_that_of_the_run_it_goes_out_from(train):
    first = train("name=a", "max_steps=30", "optim.lr=1e-2", "eval_every=30", tokenizer="char")
    loss = first.summary["last"]["val/loss"]
    assert loss < 2.7
    path = find_checkpoint(first.folder, "best")
    for number, begin in enumerate(("runs/a", str(path))):
        second = train(f"name=b{number}", f"init_from={begin}", "seed=7", tokenizer="char")
        assert second.summary["last"]["val/loss"] == pytest.approx(loss, abs=1e-5)
        facts = receipt_of(second)["init_from"]
        assert (facts["name"], facts["file"]) == (begin, str(path.absolute()))
        assert len(facts["sha256"]) == 64
    scratch = train("name=c", "seed=7", tokenizer="char")
    assert scratch.summary["last"]["val/loss"] > loss + 0.2
    assert "init_from" not in receipt_of(scratch)


def test_a_smaller_context_keeps_the_first_positions(train, published):
    theirs = load_file(published / "model.safetensors")
    state = state_of(train("name=a", f"init_from={published}"))
    # AdamW's first step changes each number by the learning rate
    torch.testing.assert_close(state[WPE], theirs["transformer.wpe.weight"][:16])
    torch.testing.assert_close(state[WTE][:50257], theirs["transformer.wte.weight"])
    assert state[WTE].shape[0] == 50304
    assert not state[WTE][50257:].any()


def test_a_larger_context_is_refused_unless_it_is_to_be_extended(train, published):
    more = ["model.block_size=40", f"init_from={published}"]
    (line,) = refused(ConfigError, "24 positions", train, *more)
    assert line == (
        f"model.block_size: is 40, {published} has 24 positions; "
        "choose at most 24, or add positions by init_extend=true"
    )
    state = state_of(train("name=a", *more, "init_extend=true"))
    theirs = load_file(published / "model.safetensors")["transformer.wpe.weight"]
    torch.testing.assert_close(state[WPE][:24], theirs)
    assert state[WPE][24:].std() == pytest.approx(0.02, rel=0.3)


def test_a_larger_vocabulary_is_refused_unless_it_is_to_be_extended(train, published):
    more = ["model.vocab_size=50300", f"init_from={published}"]
    (line,) = refused(ConfigError, "43 of 50300 ids", train, *more)
    assert line.endswith(
        f"are not in {published}, which has 50257; the first is 50257 (room); "
        "add them by init_extend=true, or leave them out"
    )
    result = train("name=a", *more, "init_extend=true")
    state, theirs = state_of(result), load_file(published / "model.safetensors")
    theirs = theirs["transformer.wte.weight"]
    torch.testing.assert_close(state[WTE][:50257], theirs)
    new = state[WTE][50257:50300] - theirs.mean(0)
    assert new.std() == pytest.approx(0.02, rel=0.2)
    assert abs(new.mean()) < 0.01
    assert not state[WTE][50300:].any()
    # ids of one's own are kept by the run that goes out from this one, and not dropped by chance
    again = train("name=b", "init_from=runs/a", "init_extend=false")
    assert load(again.folder).vocab_size == 50300
    refused(ConfigError, "is 50257, runs/a has 50300 ids; give model.vocab_size=50300", train,
            "init_from=runs/a", "model.vocab_size=50257")  # fmt: skip


def test_a_new_token_is_not_likelier_than_those_that_are_known(train, published):
    more = ["model.vocab_size=50300", "init_extend=true"]
    before = train("name=a", f"init_from={published}").summary["last"]["val/loss"]
    after = train("name=b", f"init_from={published}", *more).summary["last"]["val/loss"]
    assert after == pytest.approx(before, abs=0.01)


def test_rows_of_characters_are_found_by_the_character(train, tmp_path):
    first = train("name=a", tokenizer="char")
    other = tmp_path / "other.txt"
    other.write_text("a zebra caught a fox, " * 100)
    data = ["data=text", f"data.path={other}", "data.tokenizer=char", "model.block_size=16"]
    problems = refused(ConfigError, "model.vocab_size", train, *data, "init_from=runs/a")
    assert problems == (
        "model.vocab_size: 3 of 15 ids are not in runs/a, which has 20; the first is 3 ('b'); "
        "add them by init_extend=true, or leave them out",
    )
    second = train("name=b", *data, "init_from=runs/a", "init_extend=true")
    old, new = (
        load_checkpoint(find_checkpoint(result.folder, "last")) for result in (first, second)
    )
    here, there = (content["tokenizer"]["characters"] for content in (new, old))
    assert (len(here), len(there)) == (15, 20)
    for number, character in enumerate(here):
        row = new["state_dict"][WTE][number]
        if character in there:
            torch.testing.assert_close(row, old["state_dict"][WTE][there.index(character)])
        else:
            mean = old["state_dict"][WTE].mean(0)
            assert 0 < (row - mean).abs().max() < 0.1
    assert "".join(c for c in here if c not in there) == "bxz"


def test_a_sorter_of_fewer_digits_begins_with_one_of_more(train):
    sort = ["data=sort", "data.eval_examples=16", "stop_at=null"]
    train("name=a", *sort, "data.num_digits=5", "data.length=8")
    second = train("name=b", *sort, "data.num_digits=3", "data.length=6", "init_from=runs/a")
    assert state_of(second)[WTE].shape == (3, 8)
    refused(ConfigError, r"2 of 7 ids are not in runs/a, which has 5; the first is 5 \('5'\)",
            train, *sort, "data.num_digits=7", "data.length=6", "init_from=runs/a")  # fmt: skip


def test_another_tokenizer_is_refused_by_both_names(train, published, tmp_path):
    gpt2 = gpt2_tokenizer().fingerprint
    problem = rf"init_from: the tokenizer of {published} is {gpt2}, the data's is char-\w+; choose"
    problem += r" text or pairs with data\.tokenizer=gpt2, or leave init_from out$"
    refused(DataError, problem, train, f"init_from={published}", tokenizer="char")
    sort = ["data=sort", "data.eval_examples=16", "stop_at=null"]
    refused(DataError, "the data's is digits-", train, *sort, f"init_from={published}")
    train("name=a", *sort)
    refused(DataError, "give the data that it knows", train, "init_from=runs/a", "init_extend=true")
    train("name=b", tokenizer="char")
    refused(DataError, "with data.tokenizer=char", train, "init_from=runs/b", "init_extend=true")


def test_ids_of_which_nothing_is_known_are_refused(train, folder):
    (folder / "vocab.json").write_text('{"hola": 0}')
    problem = f"the tokenizer of {folder} is not known, the data's is gpt2-.*; begin with other"
    refused(DataError, problem, train, f"init_from={folder}")


def test_each_key_of_another_model_is_named_with_both_values_and_the_mend(train, published):
    problems = refused(ConfigError, "n_layer", train, f"init_from={published}",
                       "model.n_layer=3", "model.n_embd=16", "model.bias=false")  # fmt: skip
    mend = "give model.n_layer=2 model.n_embd=8 model.bias=true"
    assert problems == (
        f"model.n_layer: is 3, {published} has 2; {mend}",
        f"model.n_embd: is 16, {published} has 8; {mend}",
        f"model.bias: is false, {published} has true; {mend}",
    )
    train("name=a", "model.bias=false")
    problems = refused(ConfigError, "bias", train, "init_from=runs/a")
    assert problems == ("model.bias: is true, runs/a has false; give model.bias=false",)


def test_an_option_of_that_shape_is_the_mend_and_torch_is_not_needed(tmp_path):
    config = {"n_layer": 24, "n_head": 16, "n_embd": 1024, "n_positions": 1024, "vocab_size": 50257}
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text(json.dumps(config))
    (tmp_path / "corpus.txt").write_text(SENTENCE * 60)
    code = (
        "import sys\n"
        "from gpt2lab.command_line import exit_code\n"
        "from gpt2lab.train import main\n"
        "code = exit_code(main)\n"
        "sys.exit(code if 'torch' not in sys.modules else 9)"
    )
    given = ["data=text", "data.path=corpus.txt", f"init_from={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: model.n_layer: is 12, {tmp_path} has 24; choose model=medium",
        f"error: model.n_head: is 12, {tmp_path} has 16; choose model=medium",
        f"error: model.n_embd: is 768, {tmp_path} has 1024; choose model=medium",
    ]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "corpus.txt", "model.safetensors"}


def test_what_goes_on_never_looks_at_the_weights_again(train, folder):
    first = train("name=a", f"init_from={folder}", "checkpoint_every=1")
    shutil.rmtree(folder)
    where = ["name=a", "resume=last", "max_steps=2"]
    second = fit([*where, f"data.path={folder.parent / 'rhyme.txt'}"])
    assert second.summary["steps"] == 2
    assert receipt_of(second)["init_from"] == receipt_of(first)["init_from"]
    assert "init_from" not in receipt_of(second)["resumed"][0]["changed"]
    with pytest.raises(
        ConfigError, match=r"^init_from: .*weights in the checkpoint, gpt2 now, and"
    ):
        fit(["name=a", "resume=last", "max_steps=3", "init_from=gpt2"])
    with pytest.raises(
        ConfigError, match=r"^init_from: .*weights in the checkpoint, null now, and"
    ):
        fit(["name=a", "resume=last", "max_steps=3", "init_from=null"])
    check_and_prepare(
        settings_from("train", ["name=a", "resume=last", "init_from=nowhere"]).settings
    )
    with pytest.raises(CheckpointError, match="nowhere: there is no such file or folder"):
        check_and_prepare(settings_from("train", ["init_from=nowhere"]).settings)
    # the same words again, which is what a job does that is started again
    third = train("name=a", f"init_from={folder}", "resume=auto", "max_steps=3")
    assert third.summary["steps"] == 3


def test_what_begins_by_itself_cannot_be_given_weights_later(train, published):
    train("name=a")
    with pytest.raises(ConfigError, match=r"^init_from: null in the checkpoint, .* now, and a run"):
        train("name=a", "resume=last", "max_steps=2", f"init_from={published}")


def test_resume_auto_begins_with_the_weights_where_there_is_nothing_yet(train, published):
    result = train("name=a", "resume=auto", f"init_from={published}")
    theirs = load_file(published / "model.safetensors")["transformer.wpe.weight"]
    torch.testing.assert_close(state_of(result)[WPE], theirs[:16])


def test_the_same_words_go_on_where_the_weights_have_more_ids(train, published):
    more = ["name=a", "model.vocab_size=50300", "init_extend=true", f"init_from={published}"]
    train(*more)
    words = ["name=b", "init_from=runs/a", "resume=auto"]
    train(*words)
    assert train(*words, "max_steps=2").summary["steps"] == 2


def test_a_path_is_taken_as_it_is_typed():
    for path in ("a=b, c/{d}", "${x}", "007", "it's"):
        assert settings_from("train", [f"init_from={path}"]).settings.init_from == path


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match="init_extend: true adds to the weights of init_from, w"):
        settings_from("train", ["init_extend=true"])
    with pytest.raises(ConfigError, match="init_from: is empty; give a value"):
        settings_from("train", ["init_from="])


def test_a_name_on_the_hub_stands_in_the_receipt_with_its_commit(
    train, published, tmp_path, monkeypatch
):
    with serving() as hub:
        hub.models["someone/model"] = published
        monkeypatch.setattr(hub_module, "places", lambda: (hub.endpoint, str(tmp_path / "cache")))
        result = train("name=a", "init_from=someone/model@v1")
        assert receipt_of(result)["init_from"] == {
            "name": "someone/model@v1",
            "repository": "someone/model",
            "commit": COMMIT,
        }
        hub.fetched.clear()
        hub.models["someone/other"] = published
        refused(ConfigError, "n_layer: is 3", train, "init_from=someone/other", "model.n_layer=3")
        assert hub.fetched == ["config.json"]
        refused(CheckpointError, "has no revision 'v2'", train, "init_from=someone/model@v2")
    hub_module._fetched.cache_clear()
    monkeypatch.setattr(hub_module, "places", lambda: ("http://127.0.0.1:9", "cache"))
    refused(CheckpointError, "nobody/knows is not in the cache", train, "init_from=nobody/knows")


def test_nan_is_refused_unless_the_tensor_is_named(train, folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["transformer.wpe.weight"][20, 3] = float("nan")  # beyond the positions that are kept
    save_file(tensors, path)
    problem = "wpe.weight has 1 of 192 numbers NaN or infinite; .* allow_nonfinite=wpe.weight"
    refused(CheckpointError, problem, train, f"init_from={folder}")
    train("name=a", f"init_from={folder}", "allow_nonfinite=wpe.weight")


@pytest.mark.parametrize("damage", [*CUTS, "missing", "another size", "code"])
def test_damaged_published_weights_are_refused_with_nothing_written(
    train, folder, tmp_path, damage
):
    path = folder / "model.safetensors"
    canary = tmp_path / "canary"
    if damage == "missing":
        path.unlink()
    elif damage == "another size":
        tensors = load_file(path)
        tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:20].clone()
        save_file(tensors, path)
    elif damage == "code":
        path.unlink()
        torch.save({"wte.weight": RunsCode(canary)}, folder / "pytorch_model.bin")
    else:
        path.write_bytes(CUTS[damage](path.read_bytes()))
    (line,) = refused(CheckpointError, str(folder), train, f"init_from={folder}")
    assert not canary.exists()
    assert not Path("runs").exists()
    wanted = {"missing": "has neither", "another size": "(20, 8) there and (24, 8) in the model"}
    assert wanted.get(damage, "bytes that are not whole weights") in line


@pytest.mark.parametrize("damage", [*CUTS, "code"])
def test_a_damaged_checkpoint_is_refused_by_name(train, tmp_path, damage):
    path = find_checkpoint(train("name=a", tokenizer="char").folder, "last")
    canary = tmp_path / "canary"
    if damage == "code":
        torch.save({"state_dict": RunsCode(canary)}, path)
    else:
        path.write_bytes(CUTS[damage](path.read_bytes()))
    for begin in (path, "runs/a"):
        refused(CheckpointError, path.name, train, f"init_from={begin}", tokenizer="char")
    assert not canary.exists()


def test_what_is_not_there_is_told_with_what_is_near(train):
    train("name=first", tokenizer="char")
    for begin, near in {
        "runs/frist": "did you mean runs/first",
        "gpt-2": "did you mean gpt2",
    }.items():
        refused(CheckpointError, near, train, f"init_from={begin}", tokenizer="char")


def test_weights_are_the_same_on_all_ranks(train):
    given = ["trainer=cpu", "init_from=runs/a"]
    first = train("name=a", "max_steps=30", "optim.lr=1e-2", tokenizer="char")
    second = train("name=b", *given, "devices=2", tokenizer="char")
    losses = [result.summary["last"]["val/loss"] for result in (second, first)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert receipt_of(second)["init_from"]["name"] == "runs/a"
    for name, tensor in state_of(first).items():
        torch.testing.assert_close(state_of(second)[name], tensor)


@pytest.mark.slow
def test_a_refusal_on_ranks_is_one_of_the_run(train, published):
    sort = ["data=sort", "data.eval_examples=16", "stop_at=null", "trainer=cpu", "devices=2"]
    refused(DataError, "the data's is digits-", train, *sort, f"init_from={published}")


def test_a_model_that_was_fine_tuned_speaks_and_begins_another(train, published):
    result = train("name=a", f"init_from={published}")
    model = load(result.folder, precision="fp32", device="cpu")
    tokens = torch.tensor([[464, 2068, 7586]])
    with torch.no_grad():
        difference = model(tokens) - read_pretrained(published).eval()(tokens)
    assert difference.abs().max() < 1e-5
    assert isinstance(GPT2.from_pretrained(published), GPT2)
