"""Reports on constructed points: the page, its pictures, the best settings; the finished and the
half-finished, one parameter, words, several goals, failures alone."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
import yaml

from gpt2lab.config import Direction, Sampler
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.sweep import answers, experiment, report, results
from gpt2lab.sweep.page import caption, page
from gpt2lab.sweep.space import merged, overrides
from gpt2lab.sweep.study import load, of_folder, studies
from gpt2lab.sweep.trials import State
from tests.sweep.constructed import other, point
from tests.sweep.studies import ROOT, stub_study

RATE = {"optim.lr": {"log_range": [1e-3, 1e-1]}}
WIDTH = {"model.n_embd": {"choice": [24, 48]}}
OPTIMIZER = {"optimizer": {"choice": {"adamw": ["optim=adamw"], "muon": ["optim=muon"]}}}
PNG = b"\x89PNG"


def by_rate(params, seed):
    """Best at a rate of 0.01, and at the width of 48."""
    off = abs(math.log10(params["optim.lr"]) + 2)
    return (1 + off + (params.get("model.n_embd") == 24) + 0.01 * seed,)


def rates(n: int) -> list[float]:
    return [10 ** (-3 + 2 * i / (n - 1)) for i in range(n)]


@pytest.fixture
def two(tmp_path):
    """Rates and widths, 14 points."""
    study = stub_study(tmp_path / "two", space={**RATE, **WIDTH}, trials=16)
    some = [{"optim.lr": lr, "model.n_embd": n} for lr in rates(7) for n in (24, 48)]
    return study, [point(study, i, params, by_rate) for i, params in enumerate(some)]


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        addresses = [v for k, v in attrs if k in ("src", "href", "xlink:href", "data")]
        self.links += [v for v in addresses if v and not v.startswith("#")]


def written(study, points) -> tuple[set[str], str]:
    """The files of a report, and the page."""
    report.write(study, points)
    files = {f.name for f in study.folder.iterdir() if f.is_file()}
    assert all((study.folder / f).read_bytes()[:4] == PNG for f in files if f.endswith(".png"))
    return files, (study.folder / "report.html").read_text()


def test_a_report_is_a_page_and_its_pictures(two):
    files, text = written(*two)
    assert files == {
        *("report.html", "parameters.png", "parallel.png", "importance.png", "curves.png"),
    }
    tags = Tags(text)
    assert tags.names.count("svg") == 4
    assert "Best: point 7, optim.lr=0.01 model.n_embd=48: val/loss 1." in text
    assert "16 points asked for; 14 complete" in text


def test_the_page_asks_nobody_for_anything(two):
    _, text = written(*two)
    tags = Tags(text)
    assert not tags.links
    assert not {"script", "link", "iframe", "img", "object"} & set(tags.names)
    assert "url(http" not in text
    assert "default-src 'none'" in text


def test_every_picture_on_the_page_is_whole_and_its_ids_its_own(two):
    _, text = written(*two)
    pictures = re.findall(r"<svg.*?</svg>", text, re.S)
    taken: set[str] = set()
    for picture in pictures:
        ET.fromstring(picture)
        named = set(re.findall(r'id="([mp][0-9a-f]{10})"', picture))
        assert set(re.findall(r'(?:href="|url\()#([mp][0-9a-f]{10})', picture)) <= named
        assert not named & taken
        taken |= named


def test_the_same_points_give_the_same_bytes(two):
    study, points = two
    _, first = written(study, points)
    assert written(study, points)[1] == first


def test_what_comes_from_outside_is_text_on_the_page(tmp_path):
    study = stub_study(tmp_path / "s", question="<script>alert(1)</script>?")
    failed = other(study, 0, {"lr": 0.5}, State.failed, reason="a < b & <img src=http://x>")
    text = page(study, [failed], {})
    assert not {"script", "img"} & set(Tags(text).names)
    assert "a &lt; b &amp; &lt;img" in text


def test_a_half_finished_study_shows_what_there_is(tmp_path):
    study = stub_study(tmp_path / "s", space={**RATE, **WIDTH})
    points = [
        point(study, 0, {"optim.lr": 0.01, "model.n_embd": 24}, by_rate),
        other(study, 1, {"optim.lr": 0.1, "model.n_embd": 48}, State.failed, "train/loss is nan"),
        other(study, 2, {"optim.lr": 0.02, "model.n_embd": 24}, State.pruned),
        other(study, 3, {"optim.lr": 0.02}, State.running),
    ]
    files, text = written(study, points)
    assert {"parameters.png", "parallel.png", "curves.png"} <= files
    assert "trial-0001-seed-0<td class=long>train/loss is nan" in text
    assert "importance.png" not in files


@pytest.mark.parametrize("failed", [0, 2])
def test_without_a_complete_point_there_is_a_page_without_a_best(tmp_path, failed):
    study = stub_study(tmp_path / "s")
    study.folder.mkdir()
    points = [other(study, i, {"lr": 0.5}, State.failed, "no") for i in range(failed)]
    files, text = written(study, points)
    assert files == {"report.html"}
    assert "No point is complete." in text
    assert not (study.folder / experiment.EXPERIMENT).exists()


def test_a_target_that_none_has_reached_has_no_best(tmp_path):
    study = stub_study(tmp_path / "s", space=RATE, goal=["steps"])
    missed = [
        point(study, i, {"optim.lr": lr}, lambda *_: (math.inf,))
        for i, lr in enumerate((0.01, 0.02))
    ]
    _, text = written(study, missed)
    assert "No point has reached its target." in text
    assert "not reached" in text


def test_seeds_have_an_interval_and_the_best_two_a_p_value(tmp_path, capsys):
    study = stub_study(tmp_path / "s", space=OPTIMIZER, seeds=5)
    ends = {"adamw": 2.0, "muon": 1.0}
    points = [
        point(study, i, {"optimizer": o}, lambda p, seed: (ends[p["optimizer"]] + seed / 100,), 5)
        for i, o in enumerate(ends)
    ]
    _, text = written(study, points)
    assert "optimizer=muon: val/loss 1.02 (1 to 1.04)" in text
    # 2 of the 252 ways to part ten values are as far apart
    told = "The best two, points 1 and 0, differ: p = 0.0079."
    assert told in text
    results.show(study, points)
    assert told in capsys.readouterr().out


def test_of_several_goals_those_are_told_that_none_betters(tmp_path):
    study = stub_study(tmp_path / "s", space=RATE, goal=["val/loss", "seconds"])
    ends = [(1.0, 9.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0), (1.0, 9.0)]
    points = [point(study, i, {"optim.lr": 0.01}, lambda *_, i=i: ends[i]) for i in range(5)]
    files, text = written(study, points)
    assert "trade_offs.png" in files
    assert "Bettered by none in all goals: points 0, 4, 1, 3." in text
    found = answers.front(points, [Direction.maximize, Direction.minimize])
    assert [p.number for p in found] == [3]


def test_the_best_of_each_choice_is_told_beside_a_range(two, tmp_path):
    study, points = two
    found = answers.best_of_choices(study, points)
    assert {name: p.number for name, p in found.items()} == {"n_embd=24": 6, "n_embd=48": 7}
    single = stub_study(tmp_path / "single", space=RATE)
    assert answers.best_of_choices(single, points) == {}


def test_of_a_choice_that_never_reached_the_target_none_is_the_best(tmp_path, capsys):
    study = stub_study(tmp_path / "s", space={**RATE, **WIDTH}, goal=["steps"])
    some = [{"optim.lr": lr, "model.n_embd": n} for lr in (0.01, 0.02) for n in (24, 48)]
    ends = {24: 60.0, 48: math.inf}
    points = [
        point(study, i, params, lambda p, _: (ends[p["model.n_embd"]],))
        for i, params in enumerate(some)
    ]
    found = answers.best_of_choices(study, points)
    assert found == {"n_embd=24": points[0], "n_embd=48": None}
    assert "<td>n_embd=48<td><td>none reached<td>\n" in page(study, points, {})
    report.tell(study, points)
    assert "none reached" in capsys.readouterr().out
    assert results.as_json(study, points[1::2])["best"] is None


def test_points_that_failed_stand_in_the_tables_with_the_word_in_the_goals_column(tmp_path, capsys):
    study = stub_study(tmp_path / "s", space=RATE, trials=1)
    points = [
        point(study, 0, {"optim.lr": 0.01}, by_rate),
        other(study, 1, {"optim.lr": 0.1}, State.failed, "train/loss is nan"),
    ]
    text = page(study, points, {})
    assert "<tr><th>point<th>optim.lr<th>val/loss\n" in text
    assert "<td>1<td>0.1<td>failed\n" in text
    assert "1 point asked for;" in text
    results.show(study, points)
    assert re.search(r"1 +│ 0\.1 +│ failed", capsys.readouterr().out)


def test_points_beyond_the_table_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(results, "MOST_ROWS", 2)
    study = stub_study(tmp_path / "s", space=RATE)
    results.show(study, [point(study, i, {"optim.lr": 0.01}, by_rate) for i in range(3)])
    assert "1 more point in the report" in capsys.readouterr().out


def test_one_point_that_none_betters_is_a_point(tmp_path):
    study = stub_study(tmp_path / "s", space=RATE, goal=["val/loss", "seconds"])
    text = page(study, [point(study, 3, {"optim.lr": 0.01}, lambda *_: (1.0, 2.0))], {})
    assert "Bettered by none in all goals: point 3." in text


def test_captions_claim_what_is_in_the_pictures(tmp_path):
    study = stub_study(tmp_path / "s", space=RATE, goal=["steps"])
    one = [point(study, 0, {"optim.lr": 0.01}, lambda *_: (60.0,))]
    three = [point(study, 1, {"optim.lr": 0.02}, lambda _, seed: (60.0 + seed,), seeds=3)]
    missed = [point(study, 2, {"optim.lr": 0.03}, lambda *_: (math.inf,))]
    cut = [other(study, 3, {"optim.lr": 0.03}, State.pruned)]
    assert caption(study, one, "parameters") == "Each parameter against the goal."
    assert caption(study, three, "parameters").endswith(
        " Pale dots are seeds. Bars are 95 % intervals."
    )
    assert "thick" in caption(study, one, "parallel")
    assert "thick" not in caption(study, missed, "parallel")
    assert caption(study, missed, "curves") == "Learning curves."
    assert caption(study, one + cut, "curves") == (
        "Learning curves. The best is thick. Dotted: pruned."
    )


def test_a_long_reason_is_told_in_full_once(tmp_path, capsys):
    study, why = stub_study(tmp_path / "s", space=RATE), "the loss is nan; " + "try less, " * 30
    failed = other(study, 0, {"optim.lr": 0.1}, State.failed, why)
    said = results.line(failed.trials[0], 1, 4)
    assert "failed: the loss is nan; try less," in said
    assert len(said) < 160
    results.show(study, [failed])
    assert why.strip() in capsys.readouterr().out


def test_too_many_choices_have_no_colour_each(tmp_path):
    study = stub_study(tmp_path / "s", space={"a": {"choice": [*range(9)]}, **RATE})
    points = [point(study, i, {"a": i, "optim.lr": 0.01}, by_rate) for i in range(9)]
    assert answers.by_choice(study, points) == {"": points}
    assert answers.by_choice(study, points, but="a") == {"": points}


def test_the_parameter_that_decides_is_the_important_one(tmp_path):
    study = stub_study(tmp_path / "s", space={**RATE, "dropout": {"range": [0.0, 1.0]}})
    some = [{"optim.lr": lr, "dropout": i * 7 % 20 / 20} for i, lr in enumerate(rates(20))]
    points = [point(study, i, params, by_rate) for i, params in enumerate(some)]
    found = answers.importance(study, points)
    assert sum(found.values()) == pytest.approx(1)
    assert found["optim.lr"] > 0.7
    missed = [point(study, 20, some[0], lambda *_: (math.inf,))]
    assert answers.importance(study, points + missed)["optim.lr"] > 0.7
    assert answers.importance(study, points[:9]) == {}


@pytest.mark.parametrize(
    "base",
    [
        ["model=nano", "data=sort", "max_steps=7", "optim.weight_decay=0.3", "seed=5"],
        ["experiment=shakespeare_char_cpu", "data=builtin", "optim=muon", "schedule=constant"],
        ["model=char", "data=builtin", "~experiment", "+trainer.benchmark=false"],
        ["model=nano", "logger=[csv,tensorboard]", "data.length=5", "stop_at=null"],
        ["model=char", "data=text", "data.path='a b/*.txt'", "~logger"],
    ],
)
def test_the_best_settings_compose_to_what_the_trial_had(tmp_path, base):
    study = stub_study(tmp_path / "s", space=RATE)
    study.overrides = base
    chosen = point(study, 0, {"optim.lr": 0.01}, by_rate)
    report.write(study, [chosen])
    told = merged(base, overrides(chosen.params, study.space))
    again = settings_from("train", ["experiment=best"], [str(study.folder)])
    assert again.printable == settings_from("train", told).printable


def test_the_best_settings_hold_no_secret(tmp_path):
    study = stub_study(tmp_path / "s", space=RATE)
    study.overrides = ["model=nano", "+logger.csv.api_key=hunter2"]
    text = experiment.experiment(study, {"optim.lr": 0.01})
    assert "hunter2" not in text
    assert "api_key" not in text
    assert yaml.safe_load(text)["optim"] == {"lr": 0.01}


def test_a_study_that_gets_worse_news_loses_its_best(two):
    study, points = two
    report.write(study, points)
    assert (study.folder / experiment.EXPERIMENT).exists()
    report.write(study, [])
    assert not (study.folder / experiment.EXPERIMENT).exists()
    assert not (study.folder / "parallel.png").exists()


def test_a_report_is_asked_for_by_the_folder(tmp_path):
    with pytest.raises(ConfigError, match="sweep report: no study is named"):
        of_folder("", [], [])
    with pytest.raises(ConfigError, match="is not the folder of a study"):
        of_folder(str(tmp_path), [], [])
    stored = {"question": "?", "base": ["model=nano"], "space": RATE, "goal": "val/loss"}
    stored["base"] += ["+logger.wandb.api_key=<redacted>"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**stored, "trials": 2}))
    with pytest.raises(ConfigError, match=r"study.db: is not there; give study.storage="):
        of_folder(str(tmp_path), [], [])
    assert not (tmp_path / "study.db").exists()


def test_a_study_ends_with_its_report_and_it_can_be_asked_for_again(tmp_path):
    def sweep(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gpt2lab.sweep", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = sweep("sort_lr", "study.trials=1", "max_steps=2", "stop_at=null", "study.goal=val/loss")
    folder = tmp_path / "runs" / "sort_lr"
    page = (folder / "report.html").read_text()
    assert said.splitlines()[-1] == "runs/sort_lr"
    assert "report: runs/sort_lr/report.html" in said
    (folder / "report.html").unlink()
    sweep("report", "runs/sort_lr")
    assert (folder / "report.html").read_text() == page
    (command,) = [line for line in said.splitlines() if line.startswith("train as the best: ")]
    words = command.removeprefix("train as the best: python -m gpt2lab.train ").split()
    told = [word for word in words if "=" in word]
    assert settings_from("train", told, [str(folder)]).settings.max_steps == 2


@pytest.mark.parametrize("name", ["sort_length", "char_optim", "lr_transfer"])
def test_studies_that_compare_have_a_grid(name):
    study = load(name)
    assert study.config.sampler is Sampler.grid
    assert study.points_asked == {"sort_length": 12, "char_optim": 2, "lr_transfer": 56}[name]
    assert name in studies()


def test_the_sweep_of_weights_and_biases_runs_train_as_wandb_would(tmp_path):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    file = ROOT / "sweeps" / "wandb_sort_lr.yaml"
    sweep = yaml.safe_load(file.read_text())
    drawn = {
        name: {"value": told.get("value", told.get("min", next(iter(told.get("values", [0])))))}
        for name, told in sweep["parameters"].items()
    }
    drawn |= {"max_steps": {"value": 2}, "logger": {"value": "csv"}}
    macros = {"env": ["/usr/bin/env"], **utils.create_sweep_command_args({"args": drawn})}
    command = []
    for word in utils.create_sweep_command(sweep["command"]):
        found = re.fullmatch(r"\$\{(\w+)\}", word)
        command += macros[found[1]] if found else [word]
    assert "optim.lr=0.001" in command
    command[command.index("python")] = sys.executable
    done = subprocess.run(
        [*command, "name=a"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "runs/a"
    settings = yaml.safe_load((tmp_path / "runs" / "a" / "config.yaml").read_text())
    assert settings["model"]["n_embd"] == 24
    assert sweep["metric"]["name"] in (tmp_path / "runs" / "a" / "metrics.csv").read_text()
