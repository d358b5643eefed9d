"""python -m gpt2lab.plan: what a training will take, before it begins."""

import json

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config.compose import settings_from

PURPOSE = """\
What a training will take: parameters, operations, memory part by part, whether it fits and what
would make it fit, tokens a second, hours, and money. It is told what train is told; nothing is
downloaded, written or begun."""


def main() -> int:
    flags = arguments("plan", PURPOSE)
    composed = settings_from("plan", flags.overrides, flags.config_dir)
    if flags.cfg:
        print_settings(composed.printable)
        return 0

    from gpt2lab.planning.plan import make_plan  # here, so that help need not wait for torch
    from gpt2lab.planning.table import show

    plan = make_plan(composed.settings)
    show(plan)
    if composed.settings.json:
        print(json.dumps(plan.results()), flush=True)
    return 0


if __name__ == "__main__":
    show_errors(main)
