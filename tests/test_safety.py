"""No stranger's file runs code: not a setting, not a checkpoint, nothing that is read."""

import ast
import os
import sys
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.checkpoint import find_checkpoint, load_checkpoint
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import CheckpointError, ConfigError
from gpt2lab.experiment import fit
from gpt2lab.targets import resolve_target
from tests.test_command_line import QUICK, start
from tests.test_experiment import SHORT

PACKAGE = Path(gpt2lab.__file__).parent

RUNS_CODE = {"eval", "exec", "compile", "__import__"}
LOADS_OBJECTS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
# nanoGPT's meta.pkl, by a reader that knows no class and no function
PLAIN_PICKLE = {"data/tokens.py": {"Unpickler", "UnpicklingError"}}


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_no_line_of_ours_runs_what_it_reads(file):
    allowed = PLAIN_PICKLE.get(str(file.relative_to(PACKAGE)), set())
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            loading = LOADS_OBJECTS & {name.split(".")[0] for name in names}
            assert loading <= ({"pickle"} if allowed else set())
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr in allowed
        if isinstance(node, ast.Call):
            check_call(node)


def check_call(node: ast.Call) -> None:
    called = ast.unparse(node.func)
    arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    assert called not in RUNS_CODE
    assert called not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system")
    assert arguments.get("allow_pickle", "False") == "False"
    assert arguments.get("trust_remote_code", "False") == "False"
    assert arguments.get("shell", "False") == "False"
    if called == "torch.load" or (called == "trainer.fit" and "ckpt_path" in arguments):
        assert arguments.get("weights_only") == "True"


def test_the_check_of_calls_can_fail():
    for line in (
        "eval(x)",
        "np.load(f, allow_pickle=True)",
        "torch.load(f)",
        "load_dataset(x, trust_remote_code=True)",
        "yaml.load(f)",
    ):
        with pytest.raises(AssertionError):
            check_call(ast.parse(line).body[0].value)


# Each of these would make the file `canary`, were it built, or imported.
HOSTILE = [
    "trainer._target_=hostile.run",
    "trainer._target_=os.system",
    "trainer._target_=logging.os.system",
    "trainer._target_=builtins.eval",
    "trainer._target_=gpt2lab.run_folder.os.system",
    "+callbacks.x._target_=hostile.run",
    "+callbacks.x={_target_:lightning.pytorch.callbacks.Timer,duration:{_target_:hostile.run}}",
    "+callbacks.x={_target_:gpt2lab.samples.Samples,path:[{a:{_target_:hostile.run}}]}",
    "+logger.x._target_=hostile.run",
    "+logger.x={_target_:lightning.pytorch.loggers.CSVLogger,save_dir:{_target_:hostile.run}}",
    "+model._target_=hostile.run",
    "+data._target_=hostile.run",
    "+optim._target_=hostile.run",
    "+_target_=hostile.run",
    "hydra.launcher._target_=hostile.run",
    "hydra.launcher._target_=os.system",
    "hydra.sweeper._target_=hostile.run",
    "+hydra.sweeper.x._target_=hostile.run",
    "+hydra.callbacks.x._target_=hostile.run",
    "+hydra.callbacks.x._target_=hydra._internal.utils._locate",
    "hydra.callbacks.redact._target_=hostile.run",
    "+hydra.callbacks.redact.x._target_=hostile.run",
    "hydra/job_logging=default",
    "+hydra.job_logging.handlers={x:{class:hostile.run}}",
    "+hydra.hydra_logging.handlers={x:{class:hostile.run}}",
    "hydra.searchpath=[pkg://hostile]",
    "+hydra.job.env_set.LD_PRELOAD=hostile.so",
]


@pytest.mark.parametrize("override", HOSTILE)
def test_nothing_but_lightning_and_ours_is_built_or_imported(override, tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text("open('canary', 'w')\ndef run(*a, **k): pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="is not allowed"):
        fit([*SHORT, override])
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.py"]
    assert "hostile" not in sys.modules


HOSTILE_FILES = {
    "experiment/x.yaml": "# @package _global_\nhydra: {callbacks: {x: {_target_: hostile.run}}}\n",
    "callbacks/x.yaml": "x: {_target_: gpt2lab.samples.Samples, path: {_target_: hostile.run}}\n",
    "model/x.yaml": "_target_: hostile.run\nn_layer: 1\n",
    "data/x.yaml": "defaults: [schema_sort, _self_]\n_target_: hostile.run\n",
    "trainer/x.yaml": "_target_: hostile.Run\n",
    "hydra/job_logging/x.yaml": "version: 1\nhandlers: {x: {'()': hostile.run}}\n",
    "hydra/hydra_logging/x.yaml": "version: 1\nfilters: {x: {'()': ext://hostile.run}}\n",
    "hydra/launcher/x.yaml": "_target_: hostile.run\n",
    "hydra/sweeper/x.yaml": "_target_: hostile.run\n",
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_a_file_of_a_config_dir_builds_nothing_either(name, tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text("open('canary', 'w')\ndef run(*a, **k): pass\n")
    file = tmp_path / "conf" / name
    file.parent.mkdir(parents=True)
    file.write_text(HOSTILE_FILES[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="is not allowed"):
        settings_from("train", [f"{Path(name).parent}=x"], ["conf"])
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("override", ["hydra.launcher._target_=os.system", HOSTILE[-2]])
def test_a_multirun_refuses_before_hydra_builds_anything(override, tmp_path):
    (tmp_path / "hostile.py").write_text("open('canary', 'w')\n")
    refused = start("-m", *QUICK, "seed=0,1", override, cwd=tmp_path)
    assert refused.returncode == 2
    assert "is not allowed" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.py"]


def test_launchers_of_hydras_own_may_be_named():
    settings_from("train", ["hydra/launcher=basic", "hydra.sweeper.max_batch_size=2"])


def test_a_module_is_not_imported_to_be_judged(tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text("raise SystemExit('was imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve_target("callbacks.x", "hostile.Callback", object)


def test_no_setting_of_a_checkpoint_is_built(tmp_path):
    runs = f"runs_dir={tmp_path / 'runs'}"
    path = find_checkpoint(fit([*SHORT, runs, "name=a"]).folder, "last")
    content = torch.load(path, weights_only=True)
    canary = tmp_path / "canary"
    bad = {"_target_": "os.system", "command": f"touch {canary}", "args": [f"touch {canary}"]}
    content["settings"] |= {"trainer": bad, "logger": {"x": bad}, "callbacks": {"x": bad}}
    saved(content, path)
    assert fit([runs, "name=a", "resume=last", "max_steps=6"]).summary["steps"] == 6
    for node in ("model", "data", "optim"):
        altered = {**content, "settings": {**content["settings"]}}
        altered["settings"][node] = {**content["settings"][node], "x": bad, **bad}
        path = find_checkpoint(tmp_path / "runs" / "a", "last")
        saved(altered, path)
        with pytest.raises(ConfigError, match=f"{node}._target_: is not allowed"):
            fit([runs, "name=a", f"resume={path}", "max_steps=8"])
    assert not canary.exists()


def saved(content, path):
    """Put another content in a checkpoint's place, as a stranger's file would come."""
    torch.save(content, path)
    (path.parent / "manifest.json").unlink(missing_ok=True)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_a_checkpoint_never_runs(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"state_dict": {}, "settings": RunsCode(canary)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not canary.exists()


@pytest.mark.slow
def test_no_secret_reaches_any_file_of_a_run_its_resume_or_a_multirun(tmp_path):
    canary, key = "canary-5d41402abc4b", "canary-5d41402abc4b" + 21 * "0"
    environment = {**os.environ, "GPT2LAB_CANARY": canary, "WANDB_MODE": "offline"}
    environment |= {"WANDB_API_KEY": key, "HOME": str(tmp_path), "WANDB_SILENT": "false"}
    loggers = ["logger=[wandb,tensorboard]", f"+logger.wandb.settings={{api_key: {key}}}"]
    loggers += ["+logger.tensorboard.comment=${oc.env:GPT2LAB_CANARY}", "debug=true"]
    for code, arguments in (
        (0, [*QUICK, "name=a", "--cfg", "job"]),
        (0, [*QUICK, "name=a"]),
        (0, ["name=a", "resume=last", "max_steps=4"]),
        (0, ["-m", *QUICK, "seed=0,1"]),
        (2, ["name=a", "resume=last", "model.n_layer=7"]),
        (2, ["seed=${oc.env:GPT2LAB_CANARY}"]),
        (2, [f"+logger.wandb.password={canary} ("]),
        (2, [f"+logger.wandb.token={canary},b"]),
        (2, [f"+nonsense.token={canary}"]),
        (2, [f"logger.wandb._target_={canary}", f"+logger.wandb.secret={canary}"]),
    ):
        done = start(*arguments, *loggers, cwd=tmp_path, env=environment)
        assert done.returncode == code, done.stderr
        assert canary not in done.stdout + done.stderr, arguments
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    kinds = {p.suffix for p in files}
    assert {".wandb", ".ckpt", ".yaml", ".json", ".csv", ".log", ".md"} <= kinds
    assert [p for p in files if "tfevents" in p.name]
    assert not [p for p in files if canary.encode() in p.read_bytes()]
    (wandb, _) = (p for p in files if p.suffix == ".wandb" and "/a/" in str(p))
    assert b"eval_every=2" not in wandb.read_bytes()  # the command line
