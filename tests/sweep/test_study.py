"""What a study's file and the command line may say, and what is refused before anything begins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpt2lab.config import Direction, Sampler
from gpt2lab.errors import ConfigError
from gpt2lab.sweep.experiment import experiment
from gpt2lab.sweep.goals import curve, directions, is_turned, values
from gpt2lab.sweep.run import as_yaml
from gpt2lab.sweep.space import grid, merged, overrides, quoted
from gpt2lab.sweep.study import check, load, studies
from tests.sweep.studies import ROOT, stub_study

FILE = {
    "question": "Which rate is best?",
    "base": ["model=nano", "data=sort", "max_steps=50"],
    "space": {"optim.lr": {"log_range": [1e-4, 1e-2]}},
    "goal": "val/loss",
    "trials": 3,
}


@pytest.fixture
def file(tmp_path):
    def written(**changes) -> str:
        path = tmp_path / "rates.yaml"
        path.write_text(yaml.safe_dump({**FILE, **changes}))
        return str(path)

    return written


def refused(word: str, *told: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        check(load(word, told))
    return list(error.value.problems)


def test_overrides_reach_the_trials_and_the_study(file):
    study = load(file(), ["max_steps=9", "study.trials=7", "name=again", "runs_dir=elsewhere"])
    assert study.overrides == ["model=nano", "data=sort", "max_steps=9"]
    assert study.settings.max_steps == 9
    assert study.config.trials == 7
    assert study.folder == Path("elsewhere/again")
    assert load(file()).name == "rates"


def test_the_space_can_be_changed_and_added_to(file):
    told = ["study.space.model.n_embd={choice: [24, 48]}", "study.space.optim.lr={range: [1, 2]}"]
    study = load(file(), told)
    assert [(p.name, p.choice, p.low) for p in study.space] == [
        ("optim.lr", (), 1),
        ("model.n_embd", (24, 48), 0),
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trails": 3}, "study.trails: there is no such setting; did you mean trials?"),
        ({"trials": "many"}, "study.trials: 'many' is not a whole number"),
        ({"trials": 0}, "study.trials: 0 is out of range; choose 1 <= study.trials"),
        ({"trials": None}, "study.trials: is null; say how many points to try"),
        ({"question": " "}, "study.question: is empty"),
        ({"goal": []}, "study.goal: is empty"),
        ({"goal": "val/los"}, "study.goal: val/los is unknown; choose val/loss"),
        (
            {"goal": "val/los", "direction": ["minimize"]},
            "study.goal: val/los is unknown; choose val/loss",
        ),
        (
            {"goal": "best.val/bits_per_byte"},
            "study.goal: best.val/bits_per_byte is not measured on data=sort",
        ),
        ({"base": [*FILE["base"], "name=x"]}, "name: is given to each trial by the study"),
        ({"base": [*FILE["base"], "resume=auto"]}, "resume: is given to each trial by the study"),
        ({"goal": "best.train/lr"}, "study.goal: best.train/lr is not kept"),
        (
            {"goal": "steps", "base": [*FILE["base"], "stop_at=null"]},
            "study.goal: steps is up to stop_at, which is null",
        ),
        ({"goal": ["val/loss", "val/loss"]}, "study.goal: has a goal twice"),
        ({"direction": ["minimize"] * 2}, "study.direction: has 2 for 1 goals"),
        ({"goal": ["val/loss", "seconds"], "sampler": "cmaes"}, "study.sampler: cmaes has one"),
        ({"goal": ["val/loss", "seconds"], "pruner": "median"}, "study.pruner: median has one"),
        ({"sampler": "tpe2"}, "study.sampler: 'tpe2' is not an option; did you mean tpe?"),
        ({"sampler": "grid"}, "study.space.optim.lr: any number of the range may be meant"),
        ({"storage": "postgres"}, "study.storage: 'postgres' is not the address of a database"),
        ({"space": {}}, "study.space: is empty"),
        (
            {"space": {"seed": {"choice": [1]}}},
            "study.space.seed: cannot be varied, which the study gives",
        ),
        ({"space": {"devices": {"choice": [1, 2]}}}, "study.space.devices: cannot be varied"),
        ({"space": {"x": {"choice": {"a": ["seed=1"]}}}}, "study.space.x: a sets seed, which the"),
        ({"space": {"optim.lr": 3}}, "study.space.optim.lr: 3 is not a choice, range or log_range"),
        ({"space": {"optim.lr": {"range": [2, 1]}}}, "study.space.optim.lr: 2 is not below 1"),
        ({"space": {"optim.lr": {"range": [0.1]}}}, "study.space.optim.lr: range is [0.1]"),
        (
            {"space": {"optim.lr": {"log_range": [0, 1]}}},
            "study.space.optim.lr: 0 has no logarithm",
        ),
        ({"space": {"optim.lr": {"range": [1, 2], "setp": 1}}}, "study.space.optim.lr: setp is no"),
        ({"space": {"optim.lr": {"range": [1, 2], "step": 3}}}, "study.space.optim.lr: step is 3"),
        ({"space": {"optim.lr": {"choice": []}}}, "study.space.optim.lr: choice is empty"),
        ({"space": {"optim.lr": {"choice": [1, 1]}}}, "study.space.optim.lr: a choice is there"),
        (
            {"space": {"optim.lr": {"range": [1, 2]}}, "sampler": "cmaes", "trials": None},
            "study.trials: is null",
        ),
        (
            {"space": {"model.n_head": {"choice": [3]}}, "sampler": "grid", "trials": 2},
            "study.trials: 2 are more than the 1 points of the grid",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused(file, changes, problem):
    found = refused(file(**changes))
    assert any(line.startswith(problem) for line in found), found


def test_what_train_would_refuse_of_the_space_is_refused_before(file):
    space = {"model.n_head": {"choice": [3, 5]}, "optim.lrr": {"range": [1, 2]}}
    unknown, too_many = refused(file(space=space))
    assert unknown == "optim.lrr: there is no such setting; did you mean lr?"
    assert too_many.startswith("model.n_head: 5 does not divide model.n_embd=48")


def test_a_setting_that_is_varied_cannot_be_given(file):
    assert refused(file(), "optim.lr=1") == [
        "optim.lr: is varied by the study; leave it out, or give study.space.optim.lr="
    ]


def test_what_a_named_choice_sets_cannot_be_given(file):
    space = {"optimizer": {"choice": {"adamw": ["optim.lr=1e-3"], "muon": ["optim=muon"]}}}
    assert refused(file(space=space), "optim.lr=1") == [
        "optim.lr: is varied by the study; leave it out, or give study.space.optimizer="
    ]


def test_what_is_read_from_the_environment_stands_in_no_file(file, monkeypatch):
    monkeypatch.setenv("DECAY", "0.4321")
    monkeypatch.setenv("DATABASE", "sqlite:////tmp/0.4321")
    base = [*FILE["base"], "optim.weight_decay=${oc.env:DECAY}"]
    study = load(file(base=base, storage="${oc.env:DATABASE}"))
    assert study.settings.optim.weight_decay == 0.4321
    assert "0.4321" not in as_yaml(study) + str(study.definition())
    assert "0.4321" not in experiment(study, {"optim.lr": 1e-3})


def test_names_are_taken_as_they_are_typed(file):
    study = load(file(), ["name=007", "runs_dir=1e3"])
    assert study.folder == Path("1e3/007")
    assert load(file(), ["name=null"]).name == "rates"


def test_a_study_is_changed_by_its_settings_not_as_a_whole(file):
    assert refused(file(), "study=3")[0].startswith("study: there is no such setting")
    assert refused(file(), "resume=last") == [
        "resume: is given to each trial by the study; leave it out"
    ]


def test_a_word_that_is_no_study_is_answered_with_those_that_are():
    assert refused("sort_ls") == ["sweep: there is no study 'sort_ls'; did you mean sort_lr?"]
    assert "sort_lr" in refused("")[0]
    assert refused("no/such.yaml")[0].startswith("no/such.yaml: is not there")


def test_a_file_that_is_no_study_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [")
    assert refused(str(tmp_path / "a.yaml"))[0].startswith(f"{tmp_path}/a.yaml: cannot be read")


def test_every_study_that_is_shipped_is_a_study():
    assert "sort_lr" in studies()
    for name in studies():
        assert load(name).config.question.endswith("?")


def test_the_example_in_the_description_is_a_study(tmp_path):
    text = (ROOT / "sweeps" / "README.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)
    (tmp_path / "example.yaml").write_text(example)
    assert len(load(str(tmp_path / "example.yaml")).space) == 4


def test_the_stored_study_is_a_study_without_secrets(file, tmp_path):
    secret = "study.storage=postgresql://me:hunter2@host/db"
    study = load(file(), ["+trainer.api_key=hunter2", "optim.weight_decay=0.2", secret])
    assert study.config.storage == secret.partition("=")[2]
    stored = tmp_path / "stored.yaml"
    stored.write_text(as_yaml(study))
    assert "hunter2" not in stored.read_text()
    assert "hunter2" not in str(study.definition())
    assert "optim.weight_decay=0.2" in yaml.safe_load(stored.read_text())["base"]


def test_grids_by_hand():
    space = {
        "a": {"range": [0.1, 0.3], "step": 0.1},
        "b": {"range": [1, 9], "num": 3},
        "c": {"log_range": [1e-4, 1e-2], "num": 3},
    }
    found = stub_study(Path("s"), space=space, sampler=Sampler.grid).space
    assert [p.values() for p in found] == [[0.1, 0.2, 0.3], [1, 5, 9], [1e-4, 1e-3, 1e-2]]
    assert len(list(grid(found))) == 27


def test_a_choice_may_name_several_overrides():
    told = {"optimizer": {"choice": {"adamw": ["optim=adamw"], "muon": ["optim=muon", "x=1"]}}}
    found = stub_study(Path("s"), space=told).space
    assert overrides({"optimizer": "muon"}, found) == ["optim=muon", "x=1"]


def test_the_last_override_of_a_setting_counts():
    assert merged(["model=nano", "a.b=1"], ["model=small"]) == ["a.b=1", "model=small"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (3e-4, "0.0003"), ("adamw", "adamw"), ("a b", "'a b'")],
)
def test_values_are_written_as_hydra_reads_them(value, text):
    assert quoted(value) == text


def test_words_of_hydra_are_quoted():
    assert quoted("null") == "'null'"
    assert quoted("it's") == r"'it\'s'"


SUMMARY = {"last": {"val/loss": 1.5}, "best": {"val/loss": 1.0}, "steps": 40, "seconds": 2.5}


def test_goals_by_hand():
    found = values(["val/loss", "best.val/loss", "steps", "seconds"], SUMMARY)
    assert found == (1.5, 1.0, 40, 2.5)
    assert values(["steps"], SUMMARY, "val/loss:1.4") == (float("inf"),)
    assert values(["steps"], SUMMARY, "val/loss:1.5") == (40,)
    with pytest.raises(ValueError, match="mfu was not measured"):
        values(["mfu"], SUMMARY)


def test_the_direction_follows_the_goal_unless_it_is_said():
    of = stub_study(Path("s"), goal=["val/exact_match", "steps"]).config
    assert directions(of) == [Direction.maximize, Direction.minimize]
    of.direction = [Direction.minimize, Direction.minimize]
    assert directions(of) == of.direction


def test_steps_to_a_target_are_judged_by_the_targets_metric():
    settings = stub_study(Path("s"), stop_at="val/exact_match:1.0").settings
    assert curve("steps", settings) == "val/exact_match"
    assert is_turned("steps", Direction.minimize, "val/exact_match")
    assert not is_turned("steps", Direction.minimize, "val/loss")
    assert not is_turned("val/exact_match", Direction.maximize, "val/exact_match")


def test_mistakes_are_answered_without_torch_and_without_a_folder(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "gpt2lab.sweep", "sort_lr", "optim.lr=1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: optim.lr: is varied by the study")
    assert "| torch" not in done.stderr
    assert not list(tmp_path.iterdir())
