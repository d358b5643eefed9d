"""What `python -m gpt2lab.insight` can be told, and what it is told back."""

import dataclasses

import pytest

from gpt2lab.config import Ablation, InsightConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.config.help import help_text
from gpt2lab.errors import ConfigError

GIVEN = ["checkpoint=runs/a", "to=out"]


def test_insight_yaml_says_what_the_dataclass_says():
    expected = InsightConfig(checkpoint="runs/a", to="out")
    assert settings_from("insight", GIVEN).settings == expected


def test_a_prompt_is_taken_as_it_is_typed():
    found = settings_from("insight", [*GIVEN, "prompt=a=b, {c} $d: [1]", "ablation=zero"]).settings
    assert (found.prompt, found.ablation) == ("a=b, {c} $d: [1]", Ablation.zero)


def test_help_names_every_setting():
    text = help_text("insight", "Insight.")
    for field in dataclasses.fields(InsightConfig):
        assert f"  {field.name}=" in text


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        ([], ["checkpoint: is null; give a run folder, ", "to: is null; name a folder to write"]),
        ([*GIVEN, "layer=-1", "head=0"], ["layer: -1 is out of range"]),
        ([*GIVEN, "layer=1"], ["layer: 1 is given without a head; add head=, or leave layer out"]),
        ([*GIVEN, "head=1"], ["head: 1 is given without a layer; "]),
        ([*GIVEN, "token=65"], ["token: 65 is none of the max_tokens=64 that are read, "]),
        ([*GIVEN, "max_tokens=1"], ["max_tokens: 1 is out of range"]),
        ([*GIVEN, "max_tokens=257"], ["max_tokens: 257 is out of range"]),
        (
            [*GIVEN, "ablation=random"],
            ["ablation: 'random' is not an option; choose one of mean, "],
        ),
        ([*GIVEN, "prompt=\udcff"], ["prompt: character 1 is no whole one; "]),
        ([*GIVEN, "layr=1"], ["layr: there is no such setting; did you mean layer?"]),
    ],
)
def test_what_cannot_be_is_refused(overrides, problems):
    with pytest.raises(ConfigError) as caught:
        settings_from("insight", overrides)
    found = caught.value.problems
    assert len(found) == len(problems)
    for problem, wanted in zip(found, problems, strict=True):
        assert problem.startswith(wanted)
