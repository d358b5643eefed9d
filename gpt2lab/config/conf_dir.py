"""Where the yaml files are, and which options they make."""

from collections.abc import Iterable
from pathlib import Path

from gpt2lab.errors import ConfigError


def conf_dir() -> Path:
    """The folder of yaml files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"{package / 'conf'}: the settings are missing; install gpt2lab again")


def groups(config_dirs: Iterable[str] = ()) -> dict[str, list[str]]:
    """The options of each group: the yaml files of each folder of conf/ and of further folders."""
    options: dict[str, set[str]] = {}
    for root in (conf_dir(), *map(Path, config_dirs)):
        for folder in (f for f in root.iterdir() if f.is_dir()):
            options.setdefault(folder.name, set()).update(f.stem for f in folder.glob("*.yaml"))
    return {group: sorted(options[group]) for group in sorted(options)}
