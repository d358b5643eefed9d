"""What `python -m gpt2lab.evaluate` can be told, and what it is told back."""

import dataclasses

import pytest

from gpt2lab.config import Device, EvaluateConfig, Precision, Task, parse, plain
from gpt2lab.config.compose import settings_from
from gpt2lab.config.help import help_text
from gpt2lab.errors import ConfigError

GIVEN = ["checkpoint=runs/a", "task=lambada"]


def composed(*overrides: str) -> EvaluateConfig:
    return settings_from("evaluate", [*GIVEN, *overrides]).settings


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        settings_from("evaluate", overrides)
    return list(error.value.problems)


def test_evaluate_yaml_says_what_the_dataclass_says():
    assert composed() == EvaluateConfig("runs/a", Task.lambada)


def test_parsing_undoes_plain():
    config = EvaluateConfig("a", Task["1bw"], "b", stride=3, precision=Precision.bf16)
    assert parse(plain(config), root=EvaluateConfig) == config


NEEDED = {
    "perplexity": ["checkpoint=a", "data=a"],
    "compare": ["a=a", "b=b"],
    "lm_eval": ["checkpoint=a", "lm_eval_tasks=b,c"],
}


@pytest.mark.parametrize("name", Task.__members__)
def test_every_task_can_be_named(name):
    given = NEEDED.get(name, ["checkpoint=a"])
    assert settings_from("evaluate", [f"task={name}", *given]).settings.task is Task[name]


def test_help_names_every_setting_of_its_own_and_no_other():
    text = help_text("evaluate", "Evaluate.")
    for field in dataclasses.fields(EvaluateConfig):
        assert f"  {field.name}=" in text
    for word in ("--multirun", "n_layer", "data.*"):
        assert word not in text


@pytest.mark.parametrize("key", ["checkpoint", "data", "to"])
@pytest.mark.parametrize("text", ["a b", "{x}", "a=b", "C:\\a", "[a", "${seed}", "007", "*.txt"])
def test_paths_are_taken_as_they_are_typed(key, text):
    assert getattr(composed(f"{key}={text}"), key) == text


def test_numbers_are_those_of_fp32_unless_asked_otherwise():
    assert composed().precision is Precision.fp32
    assert composed("precision=bf16", "device=cpu").device is Device.cpu


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["task=lambada"], "checkpoint: is null; give a run folder"),
        (
            ["checkpoint=a"],
            "task: none is chosen; choose perplexity, lambada",
        ),
        (["checkpoint=a", "task=lambda"], "task: 'lambda' is not an option; did you mean lambada?"),
        (["checkpoint=a", "task=perplexity"], "data: is null; give a text file"),
        ([*GIVEN, "data="], "data: is empty; name a file"),
        ([*GIVEN, "to="], "to: is empty; name a folder"),
        ([*GIVEN, "stride=4"], "stride: 4 moves no window in task=lambada; leave it out"),
        ([*GIVEN, "task=sort", "data=a"], "data: a is not needed to sort; leave it out"),
        (
            [*GIVEN, "task=sort", "add_start_token=true"],
            "add_start_token: digits have no start token; leave it out",
        ),
        ([*GIVEN, "limit=0"], "limit: 0 is out of range; choose 1 <= limit"),
        ([*GIVEN, "task=ptb", "stride=-1"], "stride: -1 is out of range; choose 1 <= stride"),
        ([*GIVEN, "batch_tokens=0"], "batch_tokens: 0 is out of range; choose 1 <= batch_tokens"),
        ([*GIVEN, "batch_tokens=1e3.5"], "batch_tokens: '1e3.5' is not a whole number"),
        ([*GIVEN, "precision=fp8"], "precision: 'fp8' is not an option"),
        ([*GIVEN, "batch_size=8"], "batch_size: there is no such setting; did you mean"),
        ([*GIVEN, "+data.foo=1"], "data: is one value, not a group; give data=<value>"),
    ],
)
def test_a_mistake_is_told_in_one_line(overrides, problem):
    assert any(line.startswith(problem) for line in problems(*overrides)), problems(*overrides)


def test_all_mistakes_are_told_at_once():
    found = problems("task=lambada", "stride=0", "limit=0", "to=")
    assert [line.partition(":")[0] for line in found] == [
        "stride",
        "limit",
        "checkpoint",
        "to",
        "stride",
    ]


def test_a_task_that_does_not_exist_is_one_problem():
    with pytest.raises(ConfigError) as error:
        settings_from("evaluate", ["checkpoint=a", "task=lambda"])
    (problem,) = error.value.problems
    assert problem.startswith("task: 'lambda' is not an option; did you mean lambada?")
