"""python -m gpt2lab.sweep <study>: run what is missing of a study, and say what it found."""

import json
import sys
from importlib.util import find_spec

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.errors import ConfigError
from gpt2lab.sweep.study import load, questions

PURPOSE = """\
Run a study: trainings that differ in a few settings, side by side, until a question is answered.
Settings of train (max_steps=50) reach every trial, study.<setting>= changes the study. The same
command, given again, finishes what is missing.

studies
"""


def main() -> int:
    has_help = {"--help", "-h"} & set(sys.argv[1:])
    flags = arguments("sweep", PURPOSE + questions() if has_help else "")
    words = [word for word in flags.overrides if "=" not in word and not word.startswith("~")]
    if len(words) > 1:
        raise ConfigError(f"sweep: {' '.join(words)} are several studies; name one at a time")
    if find_spec("optuna") is None:
        raise ConfigError("sweep: optuna is not installed; pip install 'gpt2lab[sweep]'")
    from gpt2lab.launch import check_devices
    from gpt2lab.train import see_to

    overrides = [word for word in flags.overrides if word not in words]
    study = load(words[0] if words else "", overrides, flags.config_dir, see_to)
    if flags.cfg:
        print_settings({"study": study.public(), **study.printable})
        return 0
    check_devices(study.settings)
    from gpt2lab.sweep.results import as_json, line, show
    from gpt2lab.sweep.run import run

    points = run(study, lambda *told: print(line(*told), flush=True))
    show(study, points)
    print(json.dumps(as_json(study, points)) if study.json else study.folder, flush=True)
    return 0


if __name__ == "__main__":
    show_errors(main)
