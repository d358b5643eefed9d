"""python -m gpt2lab.prepare: text to token files; their folder is the last line of stdout."""

import json
from pathlib import Path
from typing import Any

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import TextConfig
from gpt2lab.config.compose import settings_from
from gpt2lab.errors import ConfigError

PURPOSE = """\
Turn text into token files in data_dir, from which train takes them.
json=true prints the result as one JSON object."""


def main() -> int:
    flags = arguments("prepare", PURPOSE)
    as_json = "json=true" in map(str.lower, flags.overrides)
    overrides = [o for o in flags.overrides if o.lower() not in ("json=true", "json=false")]
    composed = settings_from("train", overrides, flags.config_dir)
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    config = composed.settings.data
    if not isinstance(config, TextConfig):
        raise ConfigError(f"data: {config.kind} needs no preparation; choose text, such as builtin")

    from gpt2lab.data.prepare import prepare  # here, so that help need not wait for numpy

    folder = prepare(config, Path(composed.settings.data_dir))
    found = result(folder)
    print(json.dumps(found) if as_json else folder, flush=True)
    return 0


def result(folder: Path) -> dict[str, Any]:
    """What was prepared, once it is checked; of others' token files, what they turn out to be."""
    from gpt2lab.data.tokens import is_prepared, open_corpus, read_manifest

    corpus = open_corpus(folder)
    if not is_prepared(folder):
        tokens = {"train": sum(map(len, corpus.train)), "val": sum(map(len, corpus.val))}
        return {
            "folder": str(folder),
            "tokens": tokens,
            "documents": None,
            "fingerprint": corpus.fingerprint,
        }
    manifest = read_manifest(folder)
    splits = manifest["splits"]
    return {
        "folder": str(folder),
        "tokens": {name: split["tokens"] for name, split in splits.items()},
        "documents": {name: split["documents"] for name, split in splits.items()},
        "fingerprint": manifest["fingerprint"],
    }


if __name__ == "__main__":
    show_errors(main)
