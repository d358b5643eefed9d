"""What `python -m gpt2lab.sample` can be told, and what it is told back."""

import dataclasses
from enum import Enum

import pytest

from gpt2lab.config import Precision, SampleConfig, SamplingConfig, parse, plain
from gpt2lab.config.commands import COMMAND_LINES
from gpt2lab.config.compose import settings_from
from gpt2lab.config.conf_dir import conf_dir, groups
from gpt2lab.config.help import help_text
from gpt2lab.errors import ConfigError

GIVEN = "checkpoint=runs/a"


def composed(*overrides: str) -> SampleConfig:
    return settings_from("sample", [GIVEN, *overrides]).settings


def problems(*overrides: str, command: str = "sample") -> list[str]:
    with pytest.raises(ConfigError) as error:
        settings_from(command, overrides)
    return list(error.value.problems)


def test_every_folder_of_conf_is_a_group_of_some_command_line():
    known = {group for command in COMMAND_LINES.values() for group in command.groups}
    assert {f.name for f in conf_dir().iterdir() if f.is_dir()} == known


@pytest.mark.parametrize("option", groups("sample")["sampling"])
def test_every_option_composes(option):
    composed(f"sampling={option}")


def test_the_options_are_what_they_are_called():
    assert composed().sampling == SamplingConfig(top_k=40)
    assert composed("sampling=top_p").sampling == SamplingConfig(top_p=0.95)
    assert composed("sampling=temperature").sampling == SamplingConfig(temperature=0.8)
    assert composed("sampling=greedy").sampling == SamplingConfig(temperature=0)
    assert composed("sampling.top_k=5").sampling == SamplingConfig(top_k=5)
    assert composed("sampling=greedy", "sampling.num_beams=4").sampling.num_beams == 4


def test_sample_yaml_says_what_the_dataclass_says():
    wanted = SampleConfig(sampling=SamplingConfig(top_k=40), checkpoint="runs/a")
    assert composed() == wanted


def test_parsing_undoes_plain():
    config = SampleConfig(SamplingConfig(min_p=0.1), "a", prompt="b", strip_prompt=True)
    assert parse(plain(config), root=SampleConfig) == config


def test_help_names_every_setting_of_its_own_and_no_other():
    text = help_text("sample", "Sample.")
    for field in (*dataclasses.fields(SampleConfig), *dataclasses.fields(SamplingConfig)):
        if field.name != "sampling":
            assert f"  {field.name}=" in text
    assert "--multirun" not in text
    assert "n_layer" not in text
    assert "top_k=null" not in help_text("train", "Train.")
    assert "--multirun" in help_text("train", "Train.")
    assert "--multirun" not in help_text("prepare", "Prepare.")


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world: it's {1}",
        "a = b",
        "[a, b",
        '"Hello"',
        "'a",
        "${oc.env:HOME} ${seed} \\${x}",
        " two  blanks ",
        "",
        "007",
        "1",
        "1e3",
        "2 0 1 1 0 2",
        "true",
        "Null",
        "\\n",
        "a\nb",
        "Grüße 🤗",
        "<|endoftext|>",
        "#, ?, *, $(ls), `x`, C:\\",
        "~x",
    ],
)
@pytest.mark.parametrize("key", ["prompt", "prompts", "checkpoint"])
def test_text_is_taken_as_it_is_typed(key, text):
    if text == "" and key != "prompt":
        assert problems(GIVEN, f"{key}=")[-1].startswith(f"{key}: is empty; ")
        return
    found = settings_from("sample", [GIVEN, f"{key}={text}"])
    assert getattr(found.settings, key) == text
    assert found.printable[key] == text


def test_null_is_no_prompt_and_in_quotes_the_word():
    assert composed("prompt=null").prompt is None
    assert composed('prompt="null"').prompt == "null"
    assert composed("prompt='null'").prompt == "null"
    assert composed("prompt=a", "prompt=b").prompt == "b"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=small"], ["model: there is no such setting; choose one of add_start_token, "]),
        (["foo=1"], ["foo: there is no such setting; choose one of add_start_token, "]),
        (["max_steps=1"], ["max_steps: there is no such setting; choose one of "]),
        (["trainer.devices=1"], ["trainer: there is no such setting; choose one of "]),
        (["max_new_token=1"], ["max_new_token: there is no such setting; did you mean max_new_t"]),
        (["sampling.top_q=1"], ["sampling.top_q: there is no such setting; did you mean top_p?"]),
        (["top_k=1"], ["top_k: there is no such setting; did you mean sampling.top_k?"]),
        (["+prompt=a"], ["prompt: is a setting already; leave out the +"]),
        (["~prompt"], ["prompt: cannot be deleted; give a value"]),
        (
            ["Hello"],
            ["Hello: cannot be read as key=value; quote values with spaces or signs, as in pr"],
        ),
        (["sampling=nucleus"], ["sampling: there is no option 'nucleus'; choose one of greedy, "]),
        (["sampling=greedy,top_k"], ["sampling: greedy,top_k is several options; choose one"]),
        (["seed=1,2"], ["seed: 1,2 is several values; quote them"]),
        (["sampling.temperature=hot"], ["sampling.temperature: 'hot' is not a number; give a "]),
        (["sampling.temperature=-1"], ["sampling.temperature: -1.0 is out of range; choose 0 <= "]),
        (["sampling.temperature=nan"], ["sampling.temperature: nan is not finite; choose 0 <= "]),
        (["sampling.temperature=inf"], ["sampling.temperature: inf is not finite; choose 0 <= "]),
        (["sampling.top_k=0"], ["sampling.top_k: 0 is out of range; choose 1 <= sampling.top_k"]),
        (["sampling.top_k=-1"], ["sampling.top_k: -1 is out of range; choose 1 <= "]),
        (["sampling.top_k=1.5"], ["sampling.top_k: 1.5 is not a whole number; give a whole "]),
        (["sampling.top_p=0"], ["sampling.top_p: 0.0 is out of range; choose 0 < "]),
        (
            ["sampling.top_p=1.1"],
            ["sampling.top_p: 1.1 is out of range; choose 0 < sampling.top_p"],
        ),
        (["sampling.min_p=-0.1"], ["sampling.min_p: -0.1 is out of range; choose 0 <= "]),
        (["sampling.repetition_penalty=0"], ["sampling.repetition_penalty: 0.0 is out of range"]),
        (
            ["sampling=greedy", "sampling.length_penalty=nan"],
            ["sampling.length_penalty: nan is not finite; choose -10 <= "],
        ),
        (["max_new_tokens=0"], ["max_new_tokens: 0 is out of range; choose 1 <= max_new_tokens"]),
        (["max_new_tokens=-1"], ["max_new_tokens: -1 is out of range; choose 1 <= "]),
        (["max_new_tokens=1000000000"], ["max_new_tokens: 1000000000 is out of range; choose 1 "]),
        (["num_samples=0"], ["num_samples: 0 is out of range; choose 1 <= num_samples"]),
        (["precision=fp8"], ["precision: 'fp8' is not an option; choose one of auto, bf16"]),
        (["device=tpu"], ["device: 'tpu' is not an option; did you mean cpu?"]),
        (["beyond_context=end"], ["beyond_context: 'end' is not an option; choose one of slide, "]),
        (["prompt=a", "prompts=b.txt"], ["prompts: b.txt and prompt= are both given; leave one "]),
        (["prompt=a\udcff"], ["prompt: character 2 is no whole one; give the text as UTF-8"]),
        (["json=true", "json_lines=true"], ["json: true makes one object of what json_lines=tru"]),
        (["logprobs=true"], ["logprobs: true shows in JSON alone; add json_lines=true or json="]),
        (
            ["logprobs=true", "json=true", "sampling=greedy", "sampling.num_beams=2"],
            ["logprobs: true is for one token after another, not for beams; leave one out"],
        ),
        (
            ["interactive=true", "json=true"],
            ["interactive: true asks for each prompt; leave out j"],
        ),
        (
            ["interactive=true", "num_samples=2", "prompts=a.txt"],
            [
                "interactive: true asks for each prompt; leave out num_samples=2",
                "interactive: true asks for each prompt; leave out prompts=a.txt",
            ],
        ),
        (["stream=true", "num_samples=2"], ["stream: true shows one text as it comes; leave out "]),
        (["stream=true", "json_lines=true"], ["stream: true shows one text as it comes; leave ou"]),
        (
            ["sampling.num_beams=4"],
            ["sampling.num_beams: 4 beams draw nothing, which sampling.top_k=40 is for; add sam"],
        ),
        (
            ["sampling=temperature", "sampling.num_beams=4"],
            ["sampling.num_beams: 4 beams draw nothing, which sampling.temperature=0.8 is for; "],
        ),
        (["quantize=int8", "precision=fp32"], ["quantize: int8 is not precision=fp32; leave one "]),
        (["quantize=int4"], ["quantize: 'int4' is not an option; did you mean int8?"]),
    ],
)
def test_each_mistake_is_refused_in_one_line(overrides, expected):
    found = problems(GIVEN, *overrides)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)
        assert "; " in line


def test_all_problems_come_at_once():
    wrong = ["foo=1", "sampling.temperature=-1", "sampling.top_k=0", "prompt=a", "prompts=b"]
    assert [line.partition(":")[0] for line in problems(*wrong)] == [
        "foo",
        "sampling.temperature",
        "sampling.top_k",
        "checkpoint",
        "prompts",
    ]


def test_a_checkpoint_must_be_named():
    (line,) = problems()
    assert line.startswith("checkpoint: is null; give a run folder, a checkpoint file, a folder ")


def test_train_knows_nothing_of_sampling():
    (line,) = problems("sampling=greedy", command="train")
    assert line.startswith("sampling: there is no such setting; choose one of ")
    (line,) = problems("lr=1", command="train")
    assert line == "lr: there is no such setting; did you mean optim.lr?"


def test_what_is_true_or_false_is_no_secret():
    shown = settings_from("sample", [GIVEN, "add_start_token=false"]).printable
    assert shown["add_start_token"] is False


def test_every_option_of_a_choice_is_taken():
    for field in dataclasses.fields(SampleConfig):
        default = getattr(SampleConfig(), field.name)
        if isinstance(default, Enum):
            for choice in set(type(default)) - {Precision.tf32}:  # which is for training
                assert getattr(composed(f"{field.name}={choice.name}"), field.name) is choice


def test_what_is_for_training_alone_is_refused():
    with pytest.raises(ConfigError, match="precision: tf32 is for training; choose auto, bf16"):
        composed("precision=tf32")
