"""Settings that are misspelt, of the wrong type, out of range, dangerous or secret."""

import os
from pathlib import Path

from tests.faults.lab import SORT, Lab, nothing_written, refused, row
from tests.faults.same import assert_same_end

CANARY = "canary-7f3a91c5e2"

BARE = ["model=nano", "data=sort", "max_steps=2", "batch_size=8", "stop_at=null"]
"""A run that says nothing of trainer, logger and callbacks."""


def refuses(lab: Lab, overrides: list[str], *words: str, **how: object) -> None:
    cwd = lab.fresh()
    done = lab.train(cwd, *overrides, **how)
    refused(done, *words)
    nothing_written(cwd)


@row("misspelt override; unknown +key")
def misspelt(lab: Lab) -> None:
    """Named, with the near one."""
    for override, *words in (
        ("model.n_layr=2", "model.n_layr", "n_layer"),
        ("+model.foo=1", "model.foo"),
        ("optim.learning_rate=1", "optim.learning_rate"),
        ("max_step=3", "max_step", "max_steps"),
        ("modle=nano", "modle", "model"),
        ("data.lenght=3", "data.lenght", "length"),
        ("trainer.log_every=3", "trainer.log_every"),
        ("+colour=red", "colour"),
        ("model.n_layer.deep=1", "model.n_layer"),
        ("~model.n_layer", "model.n_layer"),
        ("n_layer=2", "n_layer"),
        ("schedule.decay_ratio=0.1", "schedule.decay_ratio"),
    ):
        with lab.case(override):
            refuses(lab, [override], *words)


@row("wrong type, null, 1e3.5")
def wrong_type(lab: Lab) -> None:
    """Key, value and expected type."""
    for key, expected, values in (
        ("model.n_layer", "a whole number", ("two", "2.5", "1e3.5", "null", "true", "[2]", "''")),
        ("optim.lr", "a number", ("fast", "1e3.5", "null", "true", "[1]", "{a: 1}")),
        ("model.bias", "true or false", ("2", "maybe", "null", "[]")),
        ("max_steps", "a whole number", ("1e3.5", "1.0", "null", "many")),
        ("seed", "a whole number", ("x", "null", "0.5")),
        ("runs_dir", "text", ("null", "[a]", "{a: b}")),
    ):
        for value in values:
            with lab.case(f"{key}={value}"):
                refuses(lab, [f"{key}={value}"], key, expected)
    for override in ("precision=fp8", "precision=null", "data=text data.errors=ignore"):
        with lab.case(override):
            refuses(lab, override.split(), override.split()[-1].partition("=")[0])
    with lab.case("words that are no override"):
        refuses(lab, ["nano"], "nano")
    with lab.case("an option of the command line"):
        refuses(lab, ["--steps", "3"], "--steps")


@row("out of range")
def out_of_range(lab: Lab) -> None:
    """All problems at once, one line each."""
    for override in (
        "optim.lr=-1",
        "optim.lr=0",
        "optim.lr=nan",
        "optim.lr=inf",
        "model.dropout=1",
        "model.dropout=-0.1",
        "batch_size=0",
        "batch_size=-8",
        "model.n_head=5",
        "model.n_layer=0",
        "schedule.warmup_steps=100000",
        "micro_batch_size=7",
        "checkpoint_keep=0",
        "checkpoint_keep_every=7",
        "skip_nonfinite=-1",
        "eval_every=0",
        "seed=-1",
        f"seed={2**64}",
        "max_minutes=0",
        "max_minutes=nan",
        "stop_at=val/los:1",
        "stop_at=val/loss:nan",
        "data.num_workers=-1",
        "devices=0",
        "num_nodes=2",
    ):
        with lab.case(override):
            refuses(lab, [override], override.partition("=")[0])
    with lab.case("all at once"):
        wrong = ["optim.lr=-1", "model.dropout=1", "batch_size=0", "model.n_layr=2", "seed=x"]
        done = lab.train(lab.fresh(), *wrong)
        refused(done, "optim.lr", "model.dropout", "batch_size", "n_layr", "seed")
        assert all(line.startswith("error: ") for line in done.err.splitlines()), done.err
        assert len(done.err.splitlines()) >= len(wrong), done.err


@row("an option that does not exist")
def no_option(lab: Lab) -> None:
    """The choices are listed."""
    for override, *choices in (
        ("model=gpt5", "nano", "xl"),
        ("data=wikipedia", "sort", "text"),
        ("optim=sgd", "adamw", "muon"),
        ("schedule=linear", "cosine", "wsd"),
        ("trainer=tpu", "cpu", "gpu"),
        ("logger=mlflow", "csv", "wandb"),
        ("experiment=none_such", "nano_sort"),
        ("strategy=deepspeed", "ddp"),
        ("model=null", "nano"),
        ("model=[nano,small]", "nano"),
        ("model=nano,small", "model"),
        ("model=../train", "nano"),
    ):
        with lab.case(override):
            refuses(lab, [override], override.partition("=")[0], *choices)


@row("_target_ that is no Trainer, Callback, Logger or Strategy")
def targets(lab: Lab) -> None:
    """Not allowed, and nothing ran."""
    for target in (
        "os.system",
        "logging.os.system",
        "builtins.eval",
        "subprocess.call",
        "lightning.fabric.utilities.cloud_io._load",
        "lightning.pytorch.cli.LightningCLI",
        "lightning.pytorch.trainer.trainer.os.system",
        "gpt2lab.run_folder.subprocess.call",
        "gpt2lab.targets.instantiate",
        "gpt2lab.config.multirun.RedactMultirun",
        "torch.load",
        "",
        ".",
        "os",
    ):
        for group in ("trainer", "logger", "callbacks"):
            with lab.case(f"{target!r} in {group}"):
                cwd = lab.fresh()
                options = cwd / "conf" / group
                options.mkdir(parents=True)
                command = f"touch {cwd}/canary"
                node = f'_target_: "{target}"\ncommand: "{command}"\nargs: "{command}"\n'
                if group != "trainer":
                    node = "evil:\n" + "".join(f"  {line}\n" for line in node.splitlines())
                (options / "evil.yaml").write_text(node)
                done = lab.train(cwd, *BARE, f"{group}=evil", "--config-dir", str(cwd / "conf"))
                assert not (cwd / "canary").exists(), "it ran"
                refused(done, "not allowed")
                assert not (cwd / "runs").exists()
    for override in (
        "trainer._target_=os.system",
        "callbacks.progress._target_=os.system",
        "+trainer.logger={_target_: os.system, command: 'touch canary'}",
        "+trainer.plugins={_target_: os.system, command: 'touch canary'}",
        "+callbacks.progress.x={_target_: os.system, command: 'touch canary'}",
        "+callbacks.progress.x=[{_target_: os.system, command: 'touch canary'}]",
        "+callbacks.progress._args_=['touch canary']",
        "+callbacks.progress._partial_=true",
        "+model._target_=os.system",
        "+data._target_=os.system",
        "+hydra.x={_target_: os.system, command: 'touch canary'}",
        "+hydra.callbacks.x={_target_: os.system, command: 'touch canary'}",
        "hydra.launcher._target_=os.system",
    ):
        with lab.case(override):
            cwd = lab.fresh()
            done = lab.train(cwd, *BARE, override)
            assert not (cwd / "canary").exists(), "it ran"
            if "hydra" not in override:
                refused(done)
            assert "Traceback" not in done.err, done.err


@row("a missing environment variable")
def no_variable(lab: Lab) -> None:
    """Key and variable."""
    away = {"environment": {"GPT2LAB_ABSENT": None}}
    for override in (
        "name=${oc.env:GPT2LAB_ABSENT}",
        "runs_dir=${oc.env:GPT2LAB_ABSENT}/runs",
        "data.fingerprint=${oc.env:GPT2LAB_ABSENT}",
        "+logger.x.key=${oc.env:GPT2LAB_ABSENT}",
    ):
        with lab.case(override):
            key = override.lstrip("+").partition("=")[0]
            refuses(lab, [*SORT, override], key, "GPT2LAB_ABSENT", **away)
    for override in ("name=${nothing}", "name=${oc.env:}", "name=${oc.nothing:x}", "name=${name}"):
        with lab.case(override):
            refuses(lab, [*SORT, override], "name")


@row("a secret read from the environment")
def secret(lab: Lab) -> None:
    """The run works, and the secret is in no file and in no line."""
    secrets = {"environment": {"GPT2LAB_CANARY": CANARY, "WANDB_MODE": "offline"}}
    for what, more in {
        "in a note": ["logger=tensorboard", "+logger.tensorboard.comment=${oc.env:GPT2LAB_CANARY}"],
        "within a path": ["data_dir=data-${oc.env:GPT2LAB_CANARY}"],
        "under a secret's name": ["logger=wandb", "+logger.wandb.api_key=${oc.env:GPT2LAB_CANARY}"],
        "given as it is": ["logger=wandb", f"+logger.wandb.api_key={CANARY}"],
        "to wandb": [
            "logger=wandb",
            "logger.wandb.offline=true",
            "data_dir=data-${oc.env:GPT2LAB_CANARY}",
        ],
        "with a mistake elsewhere": ["data_dir=${oc.env:GPT2LAB_CANARY}", "model.n_layr=2"],
        "in a value that is refused": ["seed=${oc.env:GPT2LAB_CANARY}"],
        "in a name that is refused": ["name='a b ${oc.env:GPT2LAB_CANARY}'"],
        "with a traceback": ["data_dir=${oc.env:GPT2LAB_CANARY}", "debug=true"],
    }.items():
        with lab.case(what):
            cwd = lab.fresh()
            done = lab.train(cwd, *SORT, *more, **secrets)
            assert CANARY not in done.out + done.err, f"told: {done.out[-500:]} {done.err}"
            if not any(word in what for word in ("mistake", "refused")):
                assert done.code == 0, done.err
            assert_in_no_file(cwd)
    with lab.case("a fault with a traceback"):
        cwd = lab.fresh()
        nan = ("nan_loss", {"steps": [3]})
        more = ["data_dir=${oc.env:GPT2LAB_CANARY}", "debug=true"]
        done = lab.train(cwd, *SORT, *more, hooks=[nan], **secrets)
        assert CANARY not in done.out + done.err, done.err
        assert_in_no_file(cwd)
    with lab.case("and a resume"):
        cwd = lab.fresh()
        more = ["data_dir=${oc.env:GPT2LAB_CANARY}", "name=a"]
        assert lab.train(cwd, *SORT, *more, **secrets).code == 0
        done = lab.train(cwd, *more, "resume=last", "max_steps=26", **secrets)
        assert done.code == 0, done.err
        assert CANARY not in done.out + done.err
        assert_in_no_file(cwd)


def assert_in_no_file(cwd: Path) -> None:
    for folder, _, names in os.walk(cwd):
        for name in names:
            path = Path(folder) / name
            assert CANARY.encode() not in path.read_bytes(), f"in {path.relative_to(cwd)}"


@row("a GPU asked for that is not there, devices=64, fsdp on devices that are not there")
def no_device(lab: Lab) -> None:
    """Before the first step: what was asked for, and what was found."""
    hidden = {"environment": {"CUDA_VISIBLE_DEVICES": ""}}
    for overrides, *words in (
        (["trainer=gpu"], "trainer.accelerator", "0 GPUs"),
        (["trainer.accelerator=cuda"], "trainer.accelerator", "0 GPUs"),
        (["trainer.accelerator=tpu"], "trainer"),
        (["devices=64"], "devices", "64"),
        (["trainer=gpu", "devices=2"], "GPU"),
        (["strategy=fsdp", "devices=64"], "devices", "64"),
        (["devices=3", "batch_size=8"], "batch_size"),
    ):
        with lab.case(" ".join(overrides)):
            refuses(lab, [*SORT, *overrides], *words, **hidden)


@row("settings that only look dangerous")
def harmless(lab: Lab) -> None:
    """What is odd and right is taken: the other side of the table."""
    for override in ("name=7", "name='ünïcode'", "seed=9223372036854775807", "name=a.b-c_d"):
        with lab.case(override):
            cwd = lab.fresh()
            done = lab.train(cwd, *SORT, "max_steps=2", override)
            assert done.code == 0, done.err
    with lab.case("as the straight run, by other words"):
        cwd = lab.fresh()
        done = lab.train(cwd, *reversed(SORT), "name=a", "++seed=0")
        assert done.code == 0, done.err
        assert_same_end(cwd / "runs" / "a", lab.straight(SORT))
