"""What `python -m gpt2lab.explore` can be told, and what it is told back."""

import dataclasses

import pytest

from gpt2lab.config import ExploreConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.config.help import help_text
from gpt2lab.errors import ConfigError

GIVEN = ["checkpoint=runs/a"]


def test_explore_yaml_says_what_the_dataclass_says():
    assert settings_from("explore", GIVEN).settings == ExploreConfig(checkpoint="runs/a")


def test_help_names_every_setting():
    text = help_text("explore", "Explore.")
    for field in dataclasses.fields(ExploreConfig):
        assert f"  {field.name}=" in text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_addresses_of_this_machine_alone_need_no_token(host):
    assert settings_from("explore", [*GIVEN, f"host={host}"]).settings.host == host


def test_another_address_needs_a_token():
    found = settings_from("explore", [*GIVEN, "host=0.0.0.0", "token=a-secret-word"]).settings
    assert (found.host, found.token) == ("0.0.0.0", "a-secret-word")


def test_a_token_is_not_printed():
    found = settings_from("explore", [*GIVEN, "token=a-secret-word"])
    assert "a-secret-word" not in str(found.printable)


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        ([], ["checkpoint: is null; give a run folder, "]),
        ([*GIVEN, "checkpoint2="], ["checkpoint2: is empty; name a second checkpoint, "]),
        ([*GIVEN, "port=-1"], ["port: -1 is out of range"]),
        ([*GIVEN, "port=65536"], ["port: 65536 is out of range"]),
        ([*GIVEN, "host=''"], ["host: is empty; "]),
        ([*GIVEN, "host=0.0.0.0"], ["host: 0.0.0.0 lets other machines in; add token= "]),
        ([*GIVEN, "host=lab.example"], ["host: lab.example lets other machines in; "]),
        ([*GIVEN, "token=short"], ["token: has 5 signs; take at least 8"]),
        ([*GIVEN, "token=with/slashes"], ["token: has signs that an address cannot hold; "]),
        ([*GIVEN, "prompt=\udcff"], ["prompt: character 1 is no whole one; "]),
        ([*GIVEN, "open_browser=maybe"], ["open_browser: 'maybe' "]),
        ([*GIVEN, "hots=x"], ["hots: there is no such setting; did you mean host?"]),
    ],
)
def test_what_cannot_be_is_refused(overrides, problems):
    with pytest.raises(ConfigError) as caught:
        settings_from("explore", overrides)
    found = caught.value.problems
    assert len(found) == len(problems)
    for problem, wanted in zip(found, problems, strict=True):
        assert problem.startswith(wanted)
