"""An evaluation from a checkpoint to its results: killed and gone on with, wherever it stopped."""

import json
import shutil
import warnings

import pytest
import torch

from gpt2lab.config import EvaluateConfig, Precision, Task
from gpt2lab.errors import ConfigError, DataError, RunError
from gpt2lab.evaluation import scoring
from gpt2lab.evaluation.published import LARGE, PUBLISHED, SMALL, XL, nearest
from gpt2lab.evaluation.results import folder_of, shown
from gpt2lab.evaluation.run import evaluate
from gpt2lab.evaluation.tasks import task_of
from tests.evaluation.models import ours, saved
from tests.test_loading import content, save

PASSAGES = [f"The {'very ' * (n % 7)}old dog number {n} sat down at the door" for n in range(30)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a tiny model and data."""
    folder = tmp_path_factory.mktemp("evaluations")
    saved(folder / "tiny")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in PASSAGES)
    (folder / "lambada.jsonl").write_text(lines)
    (folder / "text.txt").write_text(" ".join(PASSAGES))
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """The same, somewhere where nothing was evaluated yet."""
    monkeypatch.chdir(tmp_path)
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def asked(name="lambada", data="lambada.jsonl", **settings):
    settings = {"batch_tokens": 100, **settings}
    return EvaluateConfig("tiny", Task[name], data, **settings)


def without_time(results):
    return {key: value for key, value in results.items() if key != "seconds"}


def journals(folder):
    return [*folder.rglob("*.journal")]


def test_results_say_what_decided_them(here):
    results = evaluate(asked())
    path = here / "evaluations" / "tiny" / "lambada.json"
    assert results["file"] == str(path.relative_to(here))
    stored = json.loads(path.read_text())
    assert {**stored, "file": results["file"]} == results
    assert stored["task"] == "lambada"
    assert stored["items"] == 30
    assert (stored["precision"], stored["device"]) == ("float32", "cpu")
    assert stored["parameters"] == 50257 * 16 + 32 * 16 + 2 * (12 * 16 * 16 + 13 * 16) + 2 * 16
    found = stored["metrics"]["word_accuracy"]
    assert found["low"] <= found["value"] <= found["high"]
    assert found["over"] == "passages"
    assert found["published"] == {"value": 0.3256, "size": "124M", "source": "lm-eval issue 2159"}
    assert not journals(here)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RunError])
@pytest.mark.parametrize(("name", "data"), [("lambada", "lambada.jsonl"), ("1bw", "text.txt")])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_stopped_evaluation_goes_on_and_ends_as_if_it_had_not_been(
    here, monkeypatch, error, name, data, batches
):
    whole = evaluate(asked(name, data, to="whole"))
    real, calls = scoring.score_batch, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) > batches:
            raise error("stop")
        return real(*arguments)

    monkeypatch.setattr(scoring, "score_batch", stopping)
    with pytest.raises(error):
        evaluate(asked(name, data, to="part"))
    assert len(journals(here / "part")) == (batches > 0)
    assert not [*here.glob("part/*.json")]
    calls.clear()
    monkeypatch.setattr(scoring, "score_batch", lambda *a: (calls.append(a), real(*a))[1])
    results = evaluate(asked(name, data, to="part"))
    total = len(scoring.plan(_items(name, data), 100))
    assert len(calls) == total - batches
    assert {**without_time(results), "file": ""} == {**without_time(whole), "file": ""}
    assert not journals(here)


def _items(name, data):
    task = task_of(asked(name, data))
    task.read()
    return task.items(ours("tiny"))


def stopped_after(monkeypatch, batches, **settings):
    """Evaluate, and stop behind so many batches; the journal."""
    real, calls = scoring.score_batch, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(asked(**settings))


def test_a_damaged_line_is_scored_again(here, monkeypatch):
    whole = without_time(evaluate(asked()))
    stopped_after(monkeypatch, 3)
    (journal,) = journals(here)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"true", b"fals").replace(b"0.", b"9.").replace(b"1", b"7")
    journal.write_bytes(b"".join(lines))
    with pytest.warns(UserWarning, match="1 of its lines are cut or damaged"):
        assert without_time(evaluate(asked())) == whole


@pytest.mark.parametrize(
    "other", [{"limit": 20}, {"add_start_token": True}, {"precision": "bf16"}], ids=str
)
def test_other_settings_do_not_go_on_with_a_journal(here, monkeypatch, other):
    other = {key: Precision[v] if key == "precision" else v for key, v in other.items()}
    stopped_after(monkeypatch, 3)
    fresh = without_time(evaluate(asked(**other, to="fresh")))
    again = without_time(evaluate(asked(**other)))
    assert {**fresh, "file": ""} == {**again, "file": ""}
    assert len(journals(here)) == 1  # the first one's, to go on with


def test_another_model_or_text_does_not_go_on_with_a_journal(here, monkeypatch):
    stopped_after(monkeypatch, 3)
    lines = (here / "lambada.jsonl").read_text().splitlines(keepends=True)
    (here / "other.jsonl").write_text("".join(reversed(lines)))
    evaluate(asked(data="other.jsonl"))
    (here / "tiny").unlink()
    saved(here / "tiny", initializer_range=0.03)
    evaluate(asked())
    assert len(journals(here)) == 1


def test_another_batch_size_goes_on_with_a_journal(here, monkeypatch):
    whole = evaluate(asked())["metrics"]
    stopped_after(monkeypatch, 3)
    found = evaluate(asked(batch_tokens=1000))["metrics"]
    for name, metric in whole.items():
        assert found[name]["value"] == pytest.approx(metric["value"], rel=1e-5)
    assert not journals(here)


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("name", ["lambada", "perplexity"])
def test_the_batch_size_changes_no_result(here, name, batch_tokens):
    data = "lambada.jsonl" if name == "lambada" else "text.txt"
    whole = evaluate(asked(name, data))["metrics"]
    for key, metric in evaluate(asked(name, data, batch_tokens=batch_tokens))["metrics"].items():
        assert metric["value"] == pytest.approx(whole[key]["value"], rel=1e-5)


def test_bf16_comes_near(here):
    exact = evaluate(asked("perplexity", "text.txt"))["metrics"]["bits_per_byte"]["value"]
    results = evaluate(asked("perplexity", "text.txt", precision=Precision.bf16))
    assert results["precision"] == "bfloat16"
    assert results["parameters"] == evaluate(asked())["parameters"]
    # bf16 keeps 8 significant bits of each logit
    assert results["metrics"]["bits_per_byte"]["value"] == pytest.approx(exact, rel=0.02)


def test_a_full_disk_is_told_and_leaves_the_journal(here, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt2lab.evaluation.results.write_json", full)
    with pytest.raises(RunError, match=r"lambada\.json: cannot be written \(No space left"):
        evaluate(asked())
    assert len(journals(here)) == 1


def test_a_model_that_gives_nan_is_named(here):
    stored = content()
    name = "model.transformer.ln_f.weight"
    stored["state_dict"][name][0] = torch.nan
    save(stored, here / "nan.ckpt")
    config = EvaluateConfig("nan.ckpt", Task.sort, allow_nonfinite=f"state_dict.{name}")
    with pytest.raises(RunError, match="log-likelihoods are NaN or infinite"):
        evaluate(config)


def test_results_of_a_run_go_into_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "first"
    path = save(content(), run / "checkpoints" / "step-000005.ckpt")
    assert folder_of(run, None) == run / "evaluations"
    assert folder_of(path, None) == run / "evaluations"
    assert folder_of(run, "other") == (tmp_path / "other").relative_to(tmp_path)
    shutil.copy(path, "alone.ckpt")
    assert str(folder_of(tmp_path / "alone.ckpt", None)) == "evaluations/alone.ckpt"
    results = evaluate(EvaluateConfig(str(run), Task.sort))
    assert results["file"] == str(run / "evaluations" / "sort.json")
    found = results["metrics"]
    assert found["exact_match"]["value"] == found["exact_match_generated"]["value"]


def test_a_folder_that_cannot_be_is_refused_before_anything_is_read(here):
    (here / "file").write_text("")
    with pytest.raises(ConfigError, match=r"to: .*/file is a file; choose a folder"):
        evaluate(asked(to="file/deeper", data="missing.jsonl"))
    assert not (here / "evaluations").exists()


def test_bad_data_leaves_no_folder(here):
    with pytest.raises(DataError, match="data: missing does not exist"):
        evaluate(asked(data="missing"))
    assert not (here / "evaluations").exists()


def test_published_numbers_are_those_of_the_nearest_size():
    assert nearest("wikitext2", "word_perplexity", 86_000).value == 29.41
    assert nearest("wikitext2", "word_perplexity", LARGE + 1).value == 19.93
    assert nearest("lambada", "word_perplexity", LARGE).parameters == XL
    assert nearest("lambada", "word_accuracy", XL).parameters == SMALL
    assert nearest("perplexity", "word_perplexity", SMALL) is None
    assert nearest("hellaswag", "acc", SMALL) is None


def test_published_shares_are_shares_and_larger_models_are_better():
    for (_, metric), numbers in PUBLISHED.items():
        values = [each.value for each in sorted(numbers, key=lambda each: each.parameters)]
        if "acc" in metric:
            assert all(0 < value < 1 for value in values)
            assert values[0] <= values[-1]
        else:
            assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.32561, "0.3256"),
        (29.4144, "29.41"),
        (1234.5, "1,234"),
        (0.0, "0.0000"),
        (1.2e8, "1.2e+08"),
    ],
)
def test_numbers_are_shown_as_they_are_read(value, text):
    assert shown(value) == text


def test_no_warning_comes_with_a_plain_evaluation(here):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(asked())
