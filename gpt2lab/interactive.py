"""sample interactive=true: what is typed is continued, and settings change in between."""

import re
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import TYPE_CHECKING

from gpt2lab.config import SampleConfig, SamplingConfig, plain
from gpt2lab.config.changes import leaves, shown
from gpt2lab.config.check.sample import prompt_problems
from gpt2lab.config.compose import settings_from
from gpt2lab.config.parse import near
from gpt2lab.errors import ConfigError, DataError, Gpt2labError
from gpt2lab.signals import Signalled
from gpt2lab.terminal import Interrupts, is_terminal, typed_lines, write

if TYPE_CHECKING:
    from gpt2lab.model import GPT2

HELP = """\
What you type is continued, an empty line too; Ctrl-C stops the text.
  :more         go on with the last text
  :top_k 40     change a setting; :sampling greedy takes an option of conf/sampling
  :settings     what can be changed, with its values
  :reset        the settings and the random numbers of the beginning
  :help         this
  :quit         leave, as :q, :exit and Ctrl-D do
  ::            in place of the first colon of a text that begins with one
"""

CHANGEABLE = {field.name: f"sampling.{field.name}" for field in fields(SamplingConfig)} | {
    name: name
    for name in (
        "sampling",
        "max_new_tokens",
        "max_length",
        "seed",
        "beyond_context",
        "add_start_token",
        "allow_special",
        "stop_at_end",
    )
}
"""What can be changed, and its key in the settings."""

COMMANDS = ("more", "settings", "reset", "help", "quit")


def talk(model: "GPT2", overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> int:
    """Answer each line that is typed, until the last one; then 0.

    Args:
        overrides: of the command line; those of the session are added to them.
    """
    with Interrupts() as interrupts:
        session = Session(model, interrupts, overrides, config_dirs)
        settings = session.settings
        if is_terminal(sys.stdin):
            write(f"{settings.checkpoint}: goes on with what you type; :help tells more\n")
        first = [] if settings.prompt is None else [escaped(settings.prompt)]
        for line in chain(first, typed_lines(interrupts)):
            if line.strip() in (":quit", ":q", ":exit"):
                break
            try:
                session.answer(line)
            except Gpt2labError as error:
                for problem in error.problems:
                    print(f"error: {problem}", file=sys.stderr, flush=True)
    return 0


def escaped(text: str) -> str:
    """A text as it would be typed."""
    return f":{text}" if text.startswith(":") else text


class Session:
    """The settings, and how far the text and the random numbers are.

    The n-th text takes the draws of the n-th sample: a text that is given again is continued in
    another way, and the same seed and lines make the same session.
    """

    def __init__(
        self,
        model: "GPT2",
        interrupts: Interrupts,
        overrides: Sequence[str],
        config_dirs: Sequence[str],
    ) -> None:
        self.model = model
        self.interrupts = interrupts
        self.given = list(overrides)
        self.config_dirs = config_dirs
        self.last_text: str | None = None
        self.reset()

    def reset(self) -> None:
        self.take(self.given)
        self.number = 0

    def take(self, overrides: list[str]) -> None:
        """Other settings, or the same as before where these are refused."""
        self.settings: SampleConfig = settings_from("sample", overrides, self.config_dirs).settings
        self.overrides = overrides

    def answer(self, line: str) -> None:
        """
        Raises:
            Gpt2labError: if the line cannot be obeyed; nothing has changed then.
        """
        if not line.startswith(":"):
            self.go_on(line)
        elif line.startswith("::"):
            self.go_on(line[1:])
        else:
            command, *value = re.split(r"[\s=]+", line[1:].strip(), maxsplit=1)
            self.obey(command, *value)

    def obey(self, command: str, value: str = "") -> None:
        key = CHANGEABLE.get(command.removeprefix("sampling."))
        if key is not None and value:
            self.change(key, value)
        elif key is not None or command == "settings":
            self.show_settings(key or "")
        elif command == "more":
            self.go_on(self.text_so_far())
        elif command == "reset":
            self.reset()
        elif command == "help":
            write(HELP)
        else:
            raise ConfigError(
                f":{command}: is no command; {near(command, [*COMMANDS, *CHANGEABLE])}"
            )

    def change(self, key: str, value: str) -> None:
        """A setting, by the rules of the command line; an option replaces its group's values."""
        replaced = (f"{key}=", f"{key}.")
        self.take([*(o for o in self.overrides if not o.startswith(replaced)), f"{key}={value}"])
        if key == "seed":
            self.number = 0

    def show_settings(self, prefix: str) -> None:
        values = dict(leaves(plain(self.settings)))
        for name, key in CHANGEABLE.items():
            if key in values and key.startswith(prefix):
                write(f"  :{name} {shown(values[key])}\n")

    def text_so_far(self) -> str:
        if self.model.speech is not None and self.model.speech.has_answers:
            raise DataError(":more: an answer ends by itself; ask something else")
        if self.last_text is None:
            raise DataError(":more: there is no text yet; type one")
        return self.last_text

    def go_on(self, prompt: str) -> None:
        """Show how a text goes on, until it ends or Ctrl-C comes: once, it stops after the token
        that is being made; twice, at once.
        """
        from gpt2lab.generation.text import stream

        if problems := list(prompt_problems(replace(self.settings, prompt=prompt))):
            raise ConfigError(*problems)
        said = ""
        self.interrupts.expect(raises_at=2)
        try:
            # The prompt was just typed: what is shown is what is new.
            settings = replace(self.settings, prompt=prompt, strip_prompt=True)
            for piece in stream(self.model, prompt, settings, self.number):
                if self.interrupts.count:
                    break
                said += piece
                if self.settings.stream is not False:
                    write(piece)
        except Signalled:
            raise
        except KeyboardInterrupt:
            pass
        finally:
            self.interrupts.expect(raises_at=0)
        write("\n" if self.settings.stream is not False else f"{said}\n")
        self.last_text = prompt + said
        self.number += 1
