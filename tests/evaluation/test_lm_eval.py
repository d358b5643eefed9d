"""lm-eval's harness over a model of ours, beside its own adapter for transformers."""

import json
import os
import subprocess
import sys

import pytest

from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation import lm_eval_run, scoring
from gpt2lab.evaluation.until import before_any
from gpt2lab.tokenizer.gpt2 import vocabulary_file
from tests.evaluation.models import CONTEXT, ours, saved, text_model

lm_eval = pytest.importorskip("lm_eval", reason="pip install 'gpt2lab[lm-eval]'")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from gpt2lab.evaluation.lm_eval_adapter import LMEvalAdapter  # noqa: E402

CHOICES = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} "
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
GENERATION = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 8}}
metric_list: [{{metric: exact_match}}]
"""
QUESTIONS = [
    {"question": f"The {'big ' * n}dog", "choices": ["barked", "ran off", "sat"], "answer": n % 3}
    for n in range(8)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a tiny model, and tasks with their data."""
    folder = tmp_path_factory.mktemp("lm_eval")
    theirs = saved(folder / "tiny")
    (folder / "tasks").mkdir()
    data = folder / "tasks" / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    for name, yaml in (("own_choices", CHOICES), ("own_generation", GENERATION)):
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.format(name=name, data=data))
    return folder, ours(folder / "tiny"), theirs


@pytest.fixture(scope="module")
def hflm(made):
    """Theirs, with GPT-2's tokenizer out of the files that we carry."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    return huggingface.HFLM(pretrained=made[2], tokenizer=hf_tokenizer(), device="cpu")


def hf_tokenizer():
    """From the vocabulary that we carry, so that nothing is downloaded."""
    import transformers

    folder = vocabulary_file().parent
    return transformers.GPT2Tokenizer(
        vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe")
    )


def requests(kind, *arguments):
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


PAIRS = [
    *((each["question"], f" {choice}") for each in QUESTIONS for choice in each["choices"]),
    ("", "The dog"),
    ("It ends. ", "And begins"),
    ("It ended.<|endoftext|>", "It began"),
    ("word " * 100, "is all that fits before this"),
    ("one", " two" * CONTEXT),
]


@pytest.mark.parametrize("batch_tokens", [1, 100, 8192])
def test_loglikelihoods_are_those_of_lm_evals_own_adapter(made, hflm, batch_tokens):
    adapter = LMEvalAdapter(made[1], batch_tokens)
    asked = requests("loglikelihood", *PAIRS)
    found, wanted = adapter.loglikelihood(asked), hflm.loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([v for v, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


def test_whole_texts_have_the_loglikelihood_of_lm_evals_own_adapter(made, hflm):
    asked = requests("loglikelihood_rolling", ("the dog " * 50,), ("A",), ("b " * 31,))
    found = LMEvalAdapter(made[1], 100).loglikelihood_rolling(asked)
    assert found == pytest.approx(hflm.loglikelihood_rolling(asked), abs=1e-3)  # sums of 100


@pytest.mark.parametrize("batch_tokens", [1, 60, 8192])
def test_greedy_text_is_that_of_lm_evals_own_adapter(made, hflm, batch_tokens):
    free = [(each["question"], {"until": [], "max_gen_toks": 9}) for each in QUESTIONS]
    texts = hflm.generate_until(requests("generate_until", *free))
    letters = sorted({text[len(text) // 2] for text in texts})
    ended = [(question, {"until": letters, "max_gen_toks": 9}) for question, _ in free]
    longer = [("word " * 100, {"max_gen_toks": 5}), ("It ends.", {"until": "zzz", "max_tokens": 3})]
    asked = requests("generate_until", *free, *ended, *longer)
    found = LMEvalAdapter(made[1], batch_tokens).generate_until(asked)
    assert found == hflm.generate_until(asked)
    assert any(len(cut) < len(whole) for cut, whole in zip(found[8:], found[:8], strict=False))


def test_nothing_is_certain_to_follow(made):
    """What is left of a text that is only the token before it."""
    asked = requests("loglikelihood", ("", "<|endoftext|>"))
    assert LMEvalAdapter(made[1]).loglikelihood(asked) == [(0.0, True)]


def test_a_context_is_read_once_for_all_its_answers(made, monkeypatch):
    seen = []
    scored = scoring.score_batch

    def counting(model, items, batch_tokens):
        seen.extend(items)
        return scored(model, items, batch_tokens)

    monkeypatch.setattr(scoring, "score_batch", counting)
    LMEvalAdapter(made[1]).loglikelihood(requests("loglikelihood", *PAIRS[:24]))
    assert sorted(len(item.continuations) for item in seen) == [3] * 8


def test_what_a_task_may_not_ask_is_refused_by_name(made):
    adapter = LMEvalAdapter(made[1])
    for wanted, message in (
        ({"do_sample": True, "num_beams": 3}, "generation_kwargs: num_beams of the task"),
        ({"max_gen_toks": CONTEXT}, f"the task wants {CONTEXT} new tokens"),
    ):
        with pytest.raises(ConfigError, match=message):
            adapter.generate_until(requests("generate_until", ("a", wanted)))
    with pytest.raises(DataError, match="a continuation has 40 tokens, the model's context is 32"):
        adapter.loglikelihood(requests("loglikelihood", ("a", " b" * 40)))


def test_draws_are_those_of_the_seed(made):
    asked = {"do_sample": True, "temperature": 1.0, "top_k": 50, "max_gen_toks": 6}
    rows = requests("generate_until", *[("The dog", asked)] * 3)
    first, again = (LMEvalAdapter(made[1], size).generate_until(rows) for size in (8192, 1))
    assert first == again
    assert len(set(first)) == 3


def test_a_text_ends_before_the_first_of_its_stops():
    assert before_any("one. two\nthree", ["\n", "."]) == "one"
    assert before_any("one", ["."]) == "one"


def test_the_harness_takes_the_adapter_and_its_name(made):
    folder, model, _ = made
    manager = TaskManager(include_path=str(folder / "tasks"))
    asked = {"tasks": ["own_choices"], "task_manager": manager, "bootstrap_iters": 0}
    found = lm_eval.simple_evaluate(model=LMEvalAdapter(model), **asked)["results"]
    named = lm_eval.simple_evaluate(
        model="gpt2lab", model_args=f"checkpoint={folder / 'tiny'},precision=fp32", **asked
    )["results"]
    assert found["own_choices"]["acc,none"] == named["own_choices"]["acc,none"]


def test_a_model_of_bytes_unknown_is_refused():
    model = text_model()
    model.speech = None
    with pytest.raises(ConfigError, match="what its 50,257 ids stand for is not known"):
        LMEvalAdapter(model)


def run(folder, *overrides, **environment):
    return subprocess.run(
        [sys.executable, "-m", "gpt2lab.evaluate", "task=lm_eval", *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **environment},
    )


def test_the_command_line_runs_tasks_of_a_folder(made):
    folder, model, _ = made
    tasks = "lm_eval_tasks=own_choices,own_generation"
    ran = run(folder, "checkpoint=tiny", "include_path=tasks", tasks, "json=true")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["metrics"].keys() == {
        "own_choices/acc",
        "own_choices/acc_norm",
        "own_generation/exact_match",
    }
    assert found["tasks"]["own_choices"]["questions"] == 8
    assert found["file"].endswith("lm_eval-own_choices-own_generation.json")
    assert [p.name for p in (folder / "evaluations" / "tiny").iterdir()] == [
        "lm_eval-own_choices-own_generation.json"
    ]
    right = 0
    for each in QUESTIONS:
        pairs = [(f"{each['question']} ", choice) for choice in each["choices"]]
        asked = requests("loglikelihood", *((c.strip(), f" {x}") for c, x in pairs))
        values = [value for value, _ in LMEvalAdapter(model).loglikelihood(asked)]
        right += max(range(3), key=values.__getitem__) == each["answer"]
    assert found["metrics"]["own_choices/acc"]["value"] == right / 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lm_eval_tasks=own_choises", "include_path=tasks"], "did you mean own_choices?"),
        (["lm_eval_tasks=own_choices", "include_path=nowhere"], "include_path: nowhere is no fol"),
        (["lm_eval_tasks=lambada_openai"], "lm_eval_tasks: the data of lambada_openai was looked"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(made, overrides, message):
    ran = run(made[0], "checkpoint=tiny", *overrides)
    assert ran.returncode == 2
    assert message in ran.stderr.splitlines()[-1]
    assert ran.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in ran.stderr


def test_a_missing_package_is_told_before_anything_heavy(made, monkeypatch):
    monkeypatch.setattr(lm_eval_run, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'gpt2lab\[lm-eval\]'"):
        lm_eval_run.check_installed()
