import pytest

from gpt2lab.config import (
    ConstantConfig,
    MuonConfig,
    Precision,
    SampleConfig,
    SortConfig,
    TrainConfig,
    parse,
    plain,
)
from gpt2lab.config.commands import COMMAND_LINES
from gpt2lab.config.parse import _build, near
from gpt2lab.errors import ConfigError


def refused(**settings) -> list[str]:
    base = plain(TrainConfig())
    base["trainer"] = {"_target_": "lightning.pytorch.Trainer"}
    for key, value in settings.items():
        node = base
        *parents, last = key.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    with pytest.raises(ConfigError) as error:
        parse(base)
    return list(error.value.problems)


def test_parsing_undoes_plain():
    config = TrainConfig(
        optim=MuonConfig(lr=0.02),
        schedule=ConstantConfig(warmup_steps=3),
        data=SortConfig(length=9),
        trainer={"_target_": "lightning.pytorch.Trainer"},
        precision=Precision.bf16,
        name="a-run",
        max_minutes=2.5,
    )
    assert parse(plain(config)) == config


def test_a_problem_is_one_line_whatever_it_quotes():
    assert ConfigError("a\nb\x1b[0m: ü").problems == ("a\\nb\\x1b[0m: ü",)


DATES = {"kind": "pairs", "source": "dates"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"data": {"kind": "pairs"}}, "data.path: is null; give a .jsonl file of pairs"),
        ({"data": {**DATES, "path": "a"}}, "data.path: a is not read by data.source=dates"),
        ({"data": {**DATES, "context": 1025}}, "model.block_size: 1024 tokens are fewer than"),
        ({"data": {**DATES, "val_share": 1}}, "data.val_share: 1.0 is out of range"),
        ({"seed": -1}, "seed: -1 is out of range; choose 0 <= seed"),
        ({"batch_size": 0}, "batch_size: 0 is out of range; choose 1 <= batch_size"),
        (
            {"model__dropout": 1.0},
            "model.dropout: 1.0 is out of range; choose 0 <= model.dropout < 1",
        ),
        ({"optim__lr": 0}, "optim.lr: 0.0 is out of range; choose 0 < optim.lr"),
        ({"optim__lr": float("nan")}, "optim.lr: nan is not finite; choose 0 < optim.lr"),
        ({"optim__lr": float("inf")}, "optim.lr: inf is not finite; choose 0 < optim.lr"),
        ({"optim__base_width": 0}, "optim.base_width: 0 is out of range; choose 1 <= optim.base"),
        ({"optim__beta2": 1}, "optim.beta2: 1.0 is out of range; choose 0 <= optim.beta2 < 1"),
        (
            {"optim__grad_clip": 0},
            "optim.grad_clip: 0.0 is out of range; choose 0 < optim.grad_clip",
        ),
        ({"data__num_digits": 1}, "data.num_digits: 1 is out of range"),
        ({"schedule__final_lr_ratio": 1.5}, "schedule.final_lr_ratio: 1.5 is out of range"),
        ({"model__n_head": 5}, "model.n_head: 5 does not divide model.n_embd=768"),
        ({"data__length": 999}, "model.block_size: 1024 tokens are fewer than the 1997"),
        ({"model__vocab_size": 2}, "model.vocab_size: 2 is smaller than data.num_digits=3"),
        ({"schedule__warmup_steps": 1001}, "schedule.warmup_steps: 1001 is beyond the end"),
        ({"micro_batch_size": 5}, "micro_batch_size: 5 on 1 device does not divide batch_size=64"),
        ({"stop_at": "val/los:1"}, "stop_at: 'val/los:1' is not <metric>:<number>"),
        ({"stop_at": "val/loss:nan"}, "stop_at: nan is never reached by val/loss"),
        ({"stop_at": "val/exact_match:2"}, "stop_at: 2 is never reached by val/exact_match"),
        ({"stop_at": "val/bits_per_byte:1"}, "stop_at: val/bits_per_byte is not measured on"),
        ({"stop_at": "val/loss"}, "stop_at: 'val/loss' is not <metric>:<number>"),
        ({"name": "../up"}, "name: '../up' cannot be a folder's name"),
        ({"name": "lr=3"}, "name: 'lr=3' cannot be a folder's name"),
        ({"precision": {}}, "precision: {} is not an option; choose one of auto, bf16, fp32"),
        ({"optim__kind": ["adamw"]}, "optim.kind: ['adamw'] is unknown; did you mean adamw?"),
        ({"resume": "last"}, "resume: last needs a run to go on with; add name="),
        ({"max_steps": None}, "max_steps: null is not a whole number"),
        ({"max_steps": "1e3.5"}, "max_steps: '1e3.5' is not a whole number"),
        ({"max_steps": 2.5}, "max_steps: 2.5 is not a whole number"),
        ({"max_steps": True}, "max_steps: True is not a whole number"),
        ({"max_minutes": "soon"}, "max_minutes: 'soon' is not a number; give a number or null"),
        ({"debug": 1}, "debug: 1 is not true or false"),
        ({"precision": "bf61"}, "precision: 'bf61' is not an option; did you mean bf16?"),
        ({"optim__kind": "adam"}, "optim.kind: 'adam' is unknown; did you mean adamw?"),
        ({"model": 3}, "model: 3 is not a group of settings"),
        ({"model__n_layr": 2}, "model.n_layr: there is no such setting; did you mean n_layer?"),
        ({"sead": 2}, "sead: there is no such setting; did you mean seed?"),
        ({"optim__momentum": 0.9}, "optim.momentum: there is no such setting"),
        ({"trainer": []}, "trainer: [] is not a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_the_mend(settings, problem):
    (found,) = refused(**settings)
    assert found.startswith(problem)
    assert "; " in found


def test_all_problems_come_at_once():
    found = refused(seed=-1, model__n_head=5, optim__lr=-1.0, batch_size=0)
    assert [line.partition(":")[0] for line in found] == [
        "optim.lr",
        "seed",
        "batch_size",
        "model.n_head",
    ]


def test_all_type_problems_come_at_once():
    assert len(refused(seed="x", model__bias="y", nonsense=1)) == 3


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "logging.os.system",
        "builtins.eval",
        "lightningx.Trainer",
        "gpt2labx.a",
        "",
        None,
    ],
)
@pytest.mark.parametrize("node", ["trainer", "logger", "callbacks"])
def test_a_target_outside_lightning_and_ours_is_not_allowed(node, target):
    value = {"_target_": target} if node == "trainer" else {"x": {"_target_": target}}
    (found,) = refused(**{node: value})
    assert "is not allowed" in found


def test_a_target_within_arguments_is_not_allowed():
    inner = {"_target_": "lightning.pytorch.Trainer", "profiling": [{"_target_": "os.system"}]}
    (found,) = refused(trainer=inner)
    assert found.startswith("trainer.profiling[0]._target_: _target_ is not allowed here")


@pytest.mark.parametrize("argument", ["max_steps", "precision", "gradient_clip_val", "callbacks"])
def test_what_we_own_is_refused_in_the_trainer(argument):
    (found,) = refused(trainer={"_target_": "lightning.pytorch.Trainer", argument: 1})
    assert found.startswith(f"trainer.{argument}: is not set there; use ")


@pytest.mark.parametrize("word", ["all", "4.5", ""])
def test_a_micro_batch_is_a_number_or_auto(word):
    with pytest.raises(ConfigError, match="is not a whole number; give one, or auto, or null"):
        parse({"micro_batch_size": word})
    assert parse({"micro_batch_size": "auto"}).micro_batch_size == "auto"


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("train", ["runs_dir", "data_dir", "init_from"]),
        ("sample", ["checkpoint", "prompts"]),
        ("export", ["checkpoint", "to"]),
        ("insight", ["checkpoint", "to"]),
        ("explore", ["checkpoint", "checkpoint2"]),
        ("evaluate", ["checkpoint", "data", "to"]),
        ("runs", ["runs_dir"]),
    ],
)
def test_a_tilde_is_the_users_home(command, keys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = COMMAND_LINES[command].root
    found: list[str] = []
    built = _build(root, dict.fromkeys(keys, "~/x~y"), "", found)
    assert not found
    assert [getattr(built, key) for key in keys] == [f"{tmp_path}/x~y"] * len(keys)
    nobody = _build(root, {keys[0]: "~nobody-at-all/x"}, "", found)
    assert getattr(nobody, keys[0]) == "~nobody-at-all/x"  # as a shell leaves it


def test_a_tilde_in_a_text_is_a_tilde():
    assert _build(SampleConfig, {"prompt": "~/x"}, "", []).prompt == "~/x"


def test_of_many_choices_some_are_listed():
    assert near("zzz", [f"x{n:03}" for n in range(100)]).endswith("x028, x029 and 70 more")
