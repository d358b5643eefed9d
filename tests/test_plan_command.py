"""python -m gpt2lab.plan as a user starts it."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from gpt2lab.config import PlanConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.config.help import help_text

COMMAND = [sys.executable, "-m", "gpt2lab.plan"]


def start(*arguments, cwd, **options):
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False, **options
    )


def test_plan_yaml_says_what_the_dataclass_says_and_train_yaml_the_rest():
    planned, trained = (settings_from(name).settings for name in ("plan", "train"))
    own = {field.name for field in dataclasses.fields(PlanConfig)} - set(vars(trained))
    assert own == {
        "hardware",
        "efficiency",
        "link_gigabytes_per_second",
        "price_per_hour",
        "json",
    }
    default = PlanConfig()
    for name, value in vars(planned).items():
        assert value == (getattr(default, name) if name in own else getattr(trained, name)), name


def test_train_does_not_know_what_only_plan_is_told():
    with pytest.raises(Exception, match="hardware: there is no such setting"):
        settings_from("train", ["hardware=h100"])


def test_help_names_every_setting_of_both():
    text = help_text("plan", "Plan.")
    for field in dataclasses.fields(PlanConfig):
        assert field.name in text
    assert "--multirun" not in text


def test_help_and_mistakes_are_answered_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    shown = start("--help", cwd=tmp_path, env=environment)
    assert shown.returncode == 0
    assert "usage: python -m gpt2lab.plan" in shown.stdout
    composed = start("--cfg", "job", "hardware=h100", cwd=tmp_path, env=environment)
    assert "hardware: h100" in composed.stdout
    refused = start("hardware=h1000", cwd=tmp_path, env=environment)
    assert refused.returncode == 2


def test_a_plan_is_a_table_and_one_json_object_and_leaves_nothing(tmp_path):
    done = start("model=nano", "data=sort", "trainer=cpu", "json=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "parameters       85,584" in done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["parameters"] == 85_584
    assert found["fits"]
    assert found["seconds_a_step"] > 0
    assert found["hardware"].startswith("the CPU of this machine")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["hardware=4090"], "hardware: 4090 is not an option; did you mean rtx4090?"),
        (["hardware=H100"], "hardware: 'H100' is not an option; did you mean h100?"),
        (
            ["hardware=A100"],
            "hardware: 'A100' is not an option; did you mean a100-40gb or a100-80gb?",
        ),
        (["hardware=h1000"], "hardware: 'h1000' is not an option; did you mean h100?"),
        (["hardware=null"], "hardware: null is not an option; choose one of a10, "),
        (["efficiency=0"], "efficiency: 0.0 is out of range; choose 0 < efficiency <= 1"),
        (["efficiency=1.5"], "efficiency: 1.5 is out of range; choose 0 < efficiency <= 1"),
        (["price_per_hour=-1"], "price_per_hour: -1.0 is out of range; choose 0 <= price_per_hour"),
        (["price_per_hour=two"], "price_per_hour: 'two' is not a number; give a number or null"),
        (["link_gigabytes_per_second=0"], "link_gigabytes_per_second: 0.0 is out of range"),
        (["hardwre=h100"], "hardwre: there is no such setting; did you mean hardware?"),
        (["model.n_head=7"], "model.n_head: 7 does not divide model.n_embd=768"),
        (["devices=7"], "devices: 7 devices do not divide batch_size="),
        (["-m", "seed=0,1"], "--multirun: plan takes one set of settings at a time; leave it out"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, line):
    refused = start(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.splitlines()[-1].startswith(f"error: {line}")
    assert not [*tmp_path.iterdir()]
