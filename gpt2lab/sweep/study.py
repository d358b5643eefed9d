"""From a word to a checked study: its file, what the command line adds, and what train says of it.

Loads without Optuna and without torch.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import gpt2lab
from gpt2lab.config import StudyConfig, SweepConfig, TrainConfig, parse, plain
from gpt2lab.config.check.metrics import unmeasured_on
from gpt2lab.config.check.study import (
    BEST,
    OF_EACH_TRIAL,
    TO_TARGET,
    Parameter,
    parameter,
    setting_of,
)
from gpt2lab.config.compose import settings_from
from gpt2lab.config.help import entry
from gpt2lab.config.parse import near
from gpt2lab.config.redact import REDACTED, redacted_arguments
from gpt2lab.durable import check_writable
from gpt2lab.errors import ConfigError, Gpt2labError
from gpt2lab.run_folder import is_run
from gpt2lab.sweep.slots import Slot, slots

FOLDER = "sweeps"
FILE = "study.yaml"
"""What a study's folder says of it."""
DATABASE = "study.db"
"""In the same folder, unless another database is named."""
MAY_CHANGE = ("trials", "jobs", "on_fail", "retries", "storage", "question")
"""What may differ from one start of a study to the next."""


@dataclass
class Study:
    """
    Args:
        overrides: of train, for every trial; secrets among them are as they were typed.
        config_dirs: further folders of options.
        settings: train's, by these overrides alone.
        json: whether results are printed as JSON.
    """

    name: str
    config: StudyConfig
    overrides: list[str]
    config_dirs: list[str]
    folder: Path
    settings: TrainConfig
    json: bool = False
    printable: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def space(self) -> list[Parameter]:
        return space_of(self.config)

    @cached_property
    def slots(self) -> list[Slot]:
        """Where trials run side by side."""
        accelerator = str(self.settings.trainer.get("accelerator", "auto"))
        return slots(self.config.jobs, self.settings.devices, accelerator)

    @property
    def shown_overrides(self) -> list[str]:
        """Without secrets."""
        return redacted_arguments(self.overrides)

    @property
    def points_asked(self) -> int:
        """How many points there are when it is done."""
        if self.config.trials is not None:
            return self.config.trials
        return math.prod(len(parameter.values()) for parameter in self.space)

    @property
    def seeds(self) -> list[int]:
        return [self.settings.seed + i for i in range(self.config.seeds)]

    def public(self) -> dict[str, Any]:
        """What a file of sweeps/ would say for this study; without secrets."""
        storage = self.config.storage
        # A password may stand before @ or behind ?, or be what is read from the environment.
        if storage is not None and any(sign in storage for sign in ("@", "?", "${")):
            storage = None
        base = redacted_arguments(self.overrides)
        return {**plain(self.config), "base": base, "storage": storage}

    def definition(self) -> dict[str, Any]:
        """What must be the same wherever and whenever the study goes on."""
        stored = {f"study.{k}": v for k, v in plain(self.config).items() if k not in MAY_CHANGE}
        own = ("data_dir",)
        told = [o for o in redacted_arguments(self.overrides) if o.partition("=")[0] not in own]
        return {**stored, "study.base": told}


def space_of(config: StudyConfig) -> list[Parameter]:
    return [parameter(name, told) for name, told in config.space.items()]


def sweeps_dirs(config_dirs: Iterable[str] = ()) -> list[Path]:
    """Where studies are looked for: the given folders, then ours, in a wheel or in a checkout."""
    package = Path(gpt2lab.__file__).resolve().parent
    ours = (package / FOLDER, package.parent / FOLDER)
    given = [place for d in config_dirs for place in (Path(d) / FOLDER, Path(d))]
    return [folder for folder in (*given, *ours) if folder.is_dir()]


def studies(config_dirs: Iterable[str] = ()) -> dict[str, Path]:
    """Every study by its name; of two of one name, the first that is found."""
    found: dict[str, Path] = {}
    for folder in sweeps_dirs(config_dirs):
        for file in sorted(folder.glob("*.yaml")):
            if is_study(file):
                found.setdefault(file.stem, file)
    return found


def questions(config_dirs: Iterable[str] = ()) -> str:
    """A line for each study: its name, and what it asks."""
    found = studies(config_dirs).items()
    return "".join(entry(f"{name:12}", _question(file)) for name, file in found).rstrip("\n")


def _question(file: Path) -> str:
    try:
        return str(read(file).get("question", ""))
    except ConfigError:
        return f"{file} cannot be read"


def is_study(file: Path) -> bool:
    """Whether a yaml file has a space; a folder of studies may hold other sweeps, too."""
    try:
        return "space" in (yaml.safe_load(file.read_text()) or {})
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return True  # to be complained of when it is asked for


def load(
    word: str,
    overrides: Sequence[str] = (),
    config_dirs: Sequence[str] = (),
) -> Study:
    """A study by its file, of which the space is still to be checked.

    Args:
        word: the name of a study, or the path of its file.
        overrides: of the study (`study.trials=20`, `name=`, `runs_dir=`) and of train.
    Raises:
        ConfigError: with all that is wrong, a line each.
    """
    file = _file(word, config_dirs)
    own, of_train = _parted(overrides)
    found: list[str] = []
    values = _with(own, {"study": read(file)}, found)
    sweep = parse(values, found, root=SweepConfig)
    config = sweep.study
    from gpt2lab.sweep.space import merged  # here: Optuna, and a tenth of a second

    space = space_of(config)
    given = dict.fromkeys(map(setting_of, of_train))
    if problems := [
        f"{key}: is varied by the study; leave it out, or give study.space.{p.name}="
        for p in space
        for key in given
        if key in p.settings
    ]:
        raise ConfigError(*problems)
    told = merged(config.base, of_train)
    by_the_study = [key for key in map(setting_of, told) if key in OF_EACH_TRIAL]
    if by_the_study:
        raise ConfigError(
            *(f"{key}: is given to each trial by the study; leave it out" for key in by_the_study)
        )
    composed = settings_from("train", told, config_dirs)
    name = sweep.name or file.stem
    return Study(
        name=name,
        config=config,
        overrides=told,
        config_dirs=list(config_dirs),
        folder=Path(sweep.runs_dir) / name,
        settings=composed.settings,
        json=sweep.json,
        printable=composed.printable,
    )


def of_folder(word: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Study:
    """A study that has been begun, by its folder.

    Raises:
        ConfigError: if there is none.
    """
    if not word:
        raise ConfigError("sweep report: no study is named; give its folder, such as runs/sort_lr")
    folder = Path(word)
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder}: is not the folder of a study; give one, such as runs/sort_lr")
    base = [one for one in read(folder / FILE).get("base", []) if REDACTED not in one]
    where = [f"name={folder.resolve().name}", f"runs_dir={folder.parent}"]
    told = [f"study.base={json.dumps(base)}", *overrides, *where]
    study = load(str(folder / FILE), told, config_dirs)
    if study.config.storage is None and not (folder / DATABASE).is_file():
        raise ConfigError(f"{folder / DATABASE}: is not there; give study.storage=<its database>")
    check(study)
    return study


def check_place(study: Study) -> None:
    """Whether the study can begin, or go on, in its folder.

    Raises:
        ConfigError: if the study's folder cannot be, or is anything else's.
    """
    folder = study.folder
    check_writable(folder, "runs_dir")
    if is_run(folder):
        raise ConfigError(f"name: {folder} is a run, not a study; choose another name")
    found = folder.iterdir() if folder.is_dir() else ()
    # What begins with a dot is of a process that begins with this study, or was killed then.
    held = {one.name for one in found if not one.name.startswith(".")}
    if held and FILE not in held and not any(name.startswith(DATABASE) for name in held):
        raise ConfigError(f"name: {folder} is there already, and no study; choose another name")


def check(study: Study, before: Callable[[TrainConfig], None] = lambda settings: None) -> None:
    """What train says of each corner of the space.

    Args:
        before: sees to what a trial needs; called with the settings of each corner.
    Raises:
        ConfigError: with each problem once.
    """
    from gpt2lab.sweep.space import merged, overrides, probes

    found: dict[str, None] = {}
    data = study.settings.data
    for goal in study.config.goal:
        if goal in TO_TARGET[:2] and study.settings.stop_at is None:
            problem = f"study.goal: {goal} is up to stop_at, which is null; add stop_at= to base"
            found[problem] = None
        if goal.removeprefix(BEST) == unmeasured_on(data):
            problem = f"study.goal: {goal} is not measured on data={data.kind}; choose another"
            found[problem] = None
    composed: dict[tuple[str, ...], DictConfig] = {}
    for point in probes(study.space):
        told = merged(study.overrides, overrides(point, study.space))
        try:
            before(settings_from("train", told, study.config_dirs, known=composed).settings)
        except Gpt2labError as error:
            found |= dict.fromkeys(error.problems)
    if found:
        raise ConfigError(*found)


def _file(word: str, config_dirs: Sequence[str]) -> Path:
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"{folder}: is not a folder; give one with studies")
    if word.endswith(".yaml") or "/" in word:
        file = Path(word)
        if not file.is_file():
            what = "is no file" if file.exists() else "is not there"
            raise ConfigError(f"{file}: {what}; give the path of a study's file")
        return file
    known = studies(config_dirs)
    if word not in known:
        raise ConfigError(
            f"sweep: there is no study {word!r}; {near(word, known)}"
            if word
            else f"sweep: no study is named; choose one of {', '.join(sorted(known))}"
        )
    return known[word]


def read(file: Path) -> dict[str, Any]:
    """
    Raises:
        ConfigError: if it is no mapping in yaml.
    """
    try:
        # What is read from the environment is read by each trial, and stands in no file.
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        first = " ".join(str(error).split())
        raise ConfigError(f"{file}: cannot be read ({first}); see sweeps/README.md") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: is no mapping; see sweeps/README.md")
    return {str(key): value for key, value in content.items()}


def _parted(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the study, and those of train."""
    keys = ("name=", "runs_dir=", "json=", "study.")
    own = [override for override in overrides if override.startswith(keys)]
    return own, [override for override in overrides if override not in own]


def _with(overrides: Sequence[str], values: dict[str, Any], found: list[str]) -> dict[str, Any]:
    """The values of a file with overrides on top; a value is read as yaml."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            found.append(f"{key}: has no value; give {key}=<value>")
            continue
        if key in ("name", "runs_dir") and text != "null":  # 1e3 is a name, and no number
            values[key] = text
            continue
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            found.append(f"{key}: {' '.join(str(error).split())}; quote it")
            continue
        assert isinstance(value, dict)
        *parents, last = key.split(".", 2)  # names within the space have dots of their own
        node = values
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = value["value"]
    return values
