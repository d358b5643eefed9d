"""What `python -m gpt2lab.export` can be told, and what it is told back."""

import dataclasses

import pytest

from gpt2lab.config import ExportConfig, ExportFormat, StoredPrecision
from gpt2lab.config.compose import settings_from
from gpt2lab.config.help import help_text
from gpt2lab.errors import ConfigError

GIVEN = ["checkpoint=runs/a", "to=out"]


def test_export_yaml_says_what_the_dataclass_says():
    assert settings_from("export", GIVEN).settings == ExportConfig("runs/a", "out")


def test_paths_are_taken_as_they_are_typed():
    found = settings_from("export", ["checkpoint=a=b c,{d}", "to=$x: [1]"]).settings
    assert (found.checkpoint, found.to) == ("a=b c,{d}", "$x: [1]")


def test_choices_are_taken_by_their_names():
    found = settings_from("export", [*GIVEN, "precision=bf16", "overwrite=true"]).settings
    assert (found.precision, found.overwrite) == (StoredPrecision.bf16, True)
    assert settings_from("export", [*GIVEN, "format=onnx"]).settings.format is ExportFormat.onnx


def test_help_names_every_setting():
    text = help_text("export", "Export.")
    assert "owner/name@revision" in text
    assert "group" not in text  # it has none
    for field in dataclasses.fields(ExportConfig):
        assert f"  {field.name}=" in text


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        ([], ["checkpoint: is null; give a run folder, ", "to: is null; name a folder to write"]),
        (["checkpoint=", "to="], ["checkpoint: is empty; ", "to: is empty; name a folder"]),
        (
            [*GIVEN, "format=gguf"],
            ["format: 'gguf' is not an option; choose one of checkpoint, hf, "],
        ),
        ([*GIVEN, "precision=int8"], ["precision: 'int8' is not an option; choose one of bf16, "]),
        ([*GIVEN, "format=onnx", "precision=bf16"], ["precision: bf16 is for format=hf, onnx has"]),
        (
            [*GIVEN, "format=checkpoint", "precision=bf16"],
            ["precision: bf16 is for format=hf, checkpoint has fp32"],
        ),
        ([*GIVEN, "overwrite=maybe"], ["overwrite: 'maybe' "]),
        ([*GIVEN, "dest=x"], ["dest: there is no such setting"]),
        ([*GIVEN, "formt=hf"], ["formt: there is no such setting; did you mean format?"]),
    ],
)
def test_what_cannot_be_is_refused(overrides, problems):
    with pytest.raises(ConfigError) as caught:
        settings_from("export", overrides)
    found = caught.value.problems
    assert len(found) == len(problems)
    for problem, wanted in zip(found, problems, strict=True):
        assert problem.startswith(wanted)
