import dataclasses
from itertools import product

import pytest

from gpt2lab.config import MuonConfig, TrainConfig, plain
from gpt2lab.config.compose import Composed, settings_from
from gpt2lab.config.conf_dir import conf_dir, groups
from gpt2lab.config.multirun import check
from gpt2lab.errors import ConfigError


def resumed(saved: dict, *overrides: str) -> Composed:
    return settings_from("train", ["name=a", "resume=last", *overrides], saved=lambda where: saved)


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        settings_from("train", overrides)
    return list(error.value.problems)


SHAPED = ("optim", "schedule")

# What an option cannot go without.
NEEDED = {"data=pairs": ["data.path=pairs.jsonl"], "data=text": ["data.path=a.txt"]}


@pytest.mark.parametrize(
    "choice", [f"{group}={option}" for group, options in groups().items() for option in options]
)
def test_every_option_composes(choice):
    settings_from("train", [choice, *NEEDED.get(choice, [])])


@pytest.mark.parametrize(("model", "data"), list(product(groups()["model"], groups()["data"])))
def test_every_model_composes_with_every_data(model, data):
    overrides = [f"model={model}", f"data={data}", *NEEDED.get(f"data={data}", [])]
    assert settings_from("train", overrides).settings.model.n_embd > 0


@pytest.mark.parametrize(
    ("experiment", "optim", "schedule"),
    list(product(["nano_sort", "shakespeare_char_cpu"], *(groups()[g] for g in SHAPED))),
)
def test_an_experiment_composes_with_another_optimizer_and_schedule(experiment, optim, schedule):
    overrides = [f"experiment={experiment}", f"optim={optim}", f"schedule={schedule}"]
    settings = settings_from("train", overrides).settings
    assert (settings.optim.kind, settings.schedule.kind) == (optim, schedule)


def test_running_text_leaves_the_vocabulary_to_the_tokenizer():
    settings = settings_from("train", ["model=char", "data=builtin"]).settings
    assert (settings.model.block_size, settings.model.vocab_size) == (64, None)
    assert settings.stop_at is None
    assert problems("data=text") == [
        "data.path: is null; give a text file, a folder or a glob",
    ]
    assert problems("data=text", "data.source=hub") == [
        "data.dataset: is null; give the name of a Hugging Face dataset"
    ]
    assert problems("data=builtin", "data.path=a.txt")[0].startswith("data.path: a.txt is not read")
    (line,) = problems("data=text", "data.path=a.txt", "data.dataset=x")
    assert line.endswith("leave it out, or add data.source=hub")


def test_pairs_set_the_context_and_leave_the_vocabulary_to_the_tokenizer():
    settings = settings_from("train", ["model=nano", "data=dates", "data.context=80"]).settings
    assert (settings.model.block_size, settings.model.vocab_size) == (80, None)
    assert problems("data=pairs") == ["data.path: is null; give a .jsonl file of pairs"]


def test_train_yaml_says_what_the_dataclass_says():
    yaml = settings_from("train", ["~experiment"]).settings
    ours = TrainConfig(stop_at="val/exact_match:1.0")  # conf/data/sort.yaml sets it
    for field in dataclasses.fields(TrainConfig):
        if not dataclasses.is_dataclass(getattr(ours, field.name)) and not isinstance(
            getattr(ours, field.name), dict
        ):
            assert getattr(yaml, field.name) == getattr(ours, field.name), field.name


def test_sort_sets_the_context_and_vocabulary_that_it_needs():
    model = settings_from("train", ["data.length=32", "data.num_digits=100"]).settings.model
    assert (model.block_size, model.vocab_size) == (63, 100)


def test_a_pair_of_model_and_data_brings_what_suits_it():
    nano = settings_from("train", ["model=nano"]).settings
    small = settings_from("train", ["model=small"]).settings
    assert nano.optim.lr > small.optim.lr
    assert settings_from("train", ["model=nano", "optim.lr=1"]).settings.optim.lr == 1
    assert settings_from("train", ["model=medium"]).settings.max_steps == TrainConfig().max_steps


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=gpt5"], ["model: there is no option 'gpt5'; choose one of char, large, medium"]),
        (["experiment=x"], ["experiment: there is no option 'x'; choose one of"]),
        (["model=[nano]"], ["model: takes one option, not a list"]),
        (
            ["model=nano,small"],
            ["model: nano,small is several options; choose one, or add --multi"],
        ),
        (["model.n_layr=2"], ["model.n_layr: there is no such setting; did you mean n_layer?"]),
        (["modle=nano"], ["modle: there is no such setting; did you mean model?"]),
        (["modle.n_layer=2"], ["modle: there is no such setting; did you mean model?"]),
        (["+model.foo=1"], ["model.foo: there is no such setting; choose one of"]),
        (["+data.length=3"], ["data.length: is a setting already; leave out the +"]),
        (["++data.lenght=3"], ["data.lenght: there is no such setting; did you mean length?"]),
        (["model.n_layer=abc"], ["model.n_layer: 'abc' is not a whole number"]),
        (["model.n_layer=null"], ["model.n_layer: null is not a whole number"]),
        (["model.n_layer=1.5"], ["model.n_layer: 1.5 is not a whole number"]),
        (["seed=1e3.5"], ["seed: '1e3.5' is not a whole number"]),
        (["max_steps=1e3"], ["max_steps: 1000.0 is not a whole number"]),
        (["model.n_layer.x=3"], ["model.n_layer: is one value, not a group"]),
        (["optim.lr=1e-3,1e-4"], ["optim.lr: 1e-3,1e-4 is several values; quote them, or add"]),
        (["~optim.lr"], ["optim.lr: cannot be deleted"]),
        (["optim.momentum=0.5"], ["optim.momentum: there is no such setting; choose one of"]),
        (["optim=muon", "optim.momentum=0.5"], None),
        (["optim=muon", "optim.base_width=48"], ["optim.base_width: there is no such setting"]),
        (["a", ">=", "1.0"], ["a: cannot be", ">=: cannot be", "1.0: cannot be"]),
        (["name=${oc.env:GPT2LAB_NOT_SET}"], ["name: environment variable GPT2LAB_NOT_SET is not"]),
        (["runs_dir="], ["runs_dir: is empty; give a value"]),
        (["data_dir="], ["data_dir: is empty; give a value"]),
        (["resume="], ["resume: is empty; give a value"]),
        ([f"name={'a' * 201}"], ["name: 'aaa"]),
        (["batch_size=1000000000000"], ["batch_size: 1000000000000 is out of range"]),
        (["~optim"], ["optim: cannot be left out; choose one of adamw, muon"]),
        (["resume=last"], ["resume: last needs a run to go on with; add name="]),
        (["name=${no.such.key}"], ["name: Interpolation key 'no.such.key' not found"]),
        (["~data"], ["data: cannot be left out; choose one of"]),
        (["=5"], ["=5: cannot be read as key=value"]),
        (["hydra/launcher=foo"], ["hydra/launcher: there is no option 'foo'; choose one of basic"]),
        (["trainer.max_steps=5"], ["trainer.max_steps: is not set there; use max_steps"]),
        (["+trainer.devices=2"], ["trainer.devices: is not set there; use devices"]),
        (["+trainer.barebones=1"], ["trainer.barebones: is not set there; leave it out, gpt2lab"]),
        (["trainer.foo=5"], ["trainer.foo: is not set in conf; add it as +trainer.foo="]),
        (
            ["model=gpt5", "model.n_layr=2", "batch_size=0"],
            ["model: there is no", "model.n_layr: there", "batch_size: 0 is out of range"],
        ),
        (["trainer._target_=os.system"], ["trainer._target_: os.system is not allowed"]),
        (
            ["model.n_layr=2", "optim.lr=abc", "seed=x"],
            ["model.n_layr: there", "optim.lr: 'abc'", "seed: 'x'"],
        ),
    ],
)
def test_each_override_is_taken_or_refused_in_one_line(overrides, expected):
    if expected is None:
        settings_from("train", overrides)
        return
    found = problems(*overrides)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)
        assert "\n" not in line
        assert "; " in line


def test_options_of_a_folder_of_ones_own(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("n_layer: 5\nn_head: 2\nn_embd: 8\n")
    settings = settings_from("train", ["model=mine"], [str(tmp_path)]).settings
    assert settings.model.n_layer == 5
    with pytest.raises(
        ConfigError, match="no option 'my'; choose one of char, large, medium, mine"
    ):
        settings_from("train", ["model=my"], [str(tmp_path)])
    (tmp_path / "model" / "bad.yaml").write_text("n_layr: 5\n")
    with pytest.raises(
        ConfigError, match=r"In 'model/bad': .*Key 'n_layr' not in 'GPT2Config'; see"
    ):
        settings_from("train", ["model=bad"], [str(tmp_path)])
    with pytest.raises(ConfigError, match="is not a folder"):
        settings_from("train", [], [str(tmp_path / "nowhere")])


def test_a_resume_takes_the_saved_settings_with_overrides_on_top():
    saved = settings_from("train", ["model=nano", "optim.lr=0.5", "seed=9"]).printable
    overrides = ["data=sort", "max_steps=7", "optim.beta2=0.5"]
    settings = resumed(saved, *overrides).settings
    assert (settings.seed, settings.optim.lr, settings.model.n_layer) == (9, 0.5, 3)
    assert (settings.max_steps, settings.optim.beta2) == (7, 0.5)
    muon = resumed(saved, "optim=muon").settings
    assert isinstance(muon.optim, MuonConfig)
    assert muon.seed == 9


def test_a_resume_takes_a_chosen_option_as_its_file_has_it():
    saved = settings_from("train", ["model=nano", "optim.lr=0.5"]).printable
    # small_sort, the experiment of the default model, warms up for 20 steps
    assert resumed(saved, "schedule=wsd").settings.schedule.warmup_steps == 0
    assert resumed(saved, "schedule=wsd", "~experiment").settings.optim.lr == 0.5
    assert resumed(saved, "experiment=small_sort").settings.optim.lr == 2e-4


def test_a_resume_takes_no_target_from_the_checkpoint():
    saved = settings_from("train", ["model=nano"]).printable
    saved["trainer"] = {"_target_": "os.system"}
    saved["callbacks"] = {"x": {"_target_": "os.system"}}
    settings = resumed(saved).settings
    assert settings.trainer["_target_"] == "lightning.pytorch.Trainer"
    assert "x" not in settings.callbacks


def test_printable_settings_are_plain_and_parse_again():
    composed = settings_from("train", ["precision=bf16"])
    assert plain(composed.settings) == composed.printable


def test_the_yaml_files_are_found():
    assert (conf_dir() / "train.yaml").is_file()


def test_what_a_run_began_with_is_kept_and_taken_as_it_is_typed():
    saved = settings_from("train", ["init_from=a=b, c", "init_extend=true"]).printable
    assert saved["init_from"] == "a=b, c"
    gone_on = resumed(saved, "max_steps=300")
    assert (gone_on.settings.init_from, gone_on.settings.init_extend) == ("a=b, c", True)
    assert gone_on.printable["init_from"] == "a=b, c"
    assert resumed(saved, "init_from=${x}").settings.init_from == "${x}"


def test_the_ids_of_a_checkpoint_are_kept_where_nothing_says_how_many():
    saved = settings_from("train", ["data=text", "data.path=a.txt", "model=nano"]).printable
    saved["model"]["vocab_size"] = 50300
    again = resumed(saved, "model=nano", "data=text", "data.path=a.txt")
    assert again.settings.model.vocab_size == again.printable["model"]["vocab_size"] == 50300
    assert resumed(saved, "model.vocab_size=60000").settings.model.vocab_size == 60000


def test_a_grid_over_weights_is_read_as_hydra_reads_it():
    seen = []
    grid = ["init_from=gpt2,owner/name@v1,'a,b'"]
    check("train", grid, [], lambda settings: seen.append(settings.init_from))
    assert seen == ["gpt2", "owner/name@v1", "a,b"]
