"""Where the yaml files are, and which options they make."""

from collections.abc import Iterable
from pathlib import Path

from gpt2lab.config.commands import COMMAND_LINES
from gpt2lab.errors import ConfigError


def conf_dir() -> Path:
    """The folder of yaml files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(f"{package / 'conf'}: the settings are missing; install gpt2lab again")


def groups(command: str = "train", config_dirs: Iterable[str] = ()) -> dict[str, list[str]]:
    """The options of each group of a command line, by name.

    They are the yaml files of the group's folder in conf/ and in further folders laid out so.
    """
    roots = (conf_dir(), *map(Path, config_dirs))
    return {
        group: sorted({file.stem for root in roots for file in (root / group).glob("*.yaml")})
        for group in sorted(COMMAND_LINES[command].groups)
    }
