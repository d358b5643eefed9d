"""sample interactive=true: what is typed, what it changes, and Ctrl-C, in a terminal and piped."""

import json
import os
import pty
import readline
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

import gpt2lab.generation.text
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.interactive import CHANGEABLE, HELP, Session
from gpt2lab.terminal import History, Interrupts, history_file, is_control
from tests.test_sample_command import checkpoints as checkpoints

GIVEN = ["checkpoint=a", "interactive=true"]


@pytest.fixture
def session(monkeypatch):
    """A session with a model that says how it was asked, and `asked`, with what settings."""
    asked = []

    def stream(model, prompt, settings, number=0):
        asked.append(settings)
        if prompt == "refused":
            raise DataError("prompt: is refused; choose another")
        yield from (" and", f" {number}")

    monkeypatch.setattr(gpt2lab.generation.text, "stream", stream)
    found = Session(SimpleNamespace(speech=None), Interrupts(), GIVEN, [])
    found.asked = asked
    return found


def said(session, capsys, *lines):
    for line in lines:
        session.answer(line)
    return capsys.readouterr().out


def test_each_text_is_the_next_sample(session, capsys):
    assert said(session, capsys, "a", "a", "") == " and 0\n and 1\n and 2\n"
    assert [each.strip_prompt for each in session.asked] == [True] * 3


def test_more_goes_on_with_all_that_is_there(session, capsys):
    said(session, capsys, "a", ":more")
    assert [each.prompt for each in session.asked] == ["a", "a and 0"]


def test_more_needs_a_text_and_no_answer(session):
    with pytest.raises(DataError, match=":more: there is no text yet; type one"):
        session.answer(":more")
    session.answer("a")
    session.model.speech = SimpleNamespace(has_answers=True)
    with pytest.raises(DataError, match=":more: an answer ends by itself; "):
        session.answer(":more")


def test_two_colons_stand_for_one_of_a_text(session):
    session.answer("::top_k 3")
    assert session.asked[0].prompt == ":top_k 3"


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (":top_k 7", "top_k", 7),
        (": top_k = 7 ", "top_k", 7),
        (":sampling.top_k=7", "top_k", 7),
        (":temperature 0.7", "temperature", 0.7),
        (":top_k null", "top_k", None),
        (":top_p .9", "top_p", 0.9),
        (":sampling greedy", "temperature", 0),
        (":sampling top_p", "top_k", None),
    ],
)
def test_a_setting_holds_from_the_next_text_on(session, line, name, value):
    session.answer(line)
    session.answer("a")
    assert getattr(session.asked[0].sampling, name) == value


def test_an_option_replaces_what_was_set_of_its_group(session):
    for line in (":top_k 3", ":max_new_tokens 5", ":sampling top_p"):
        session.answer(line)
    assert (session.settings.sampling.top_k, session.settings.sampling.top_p) == (None, 0.95)
    assert session.settings.max_new_tokens == 5


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (":top_k 0", "sampling.top_k: 0 is out of range; choose 1 <= sampling.top_k"),
        (":top_p 1.1", "sampling.top_p: 1.1 is out of range; choose 0 < sampling.top_p <= 1"),
        (":temperature hot", "sampling.temperature: 'hot' is not a number; give a number or null"),
        (":max_new_tokens 0", "max_new_tokens: 0 is out of range; choose 1 <= max_new_tokens"),
        (":num_beams 2", "sampling.num_beams: 2 beams draw nothing, which sampling.top_k=40 is"),
        (":sampling nucleus", "sampling: there is no option 'nucleus'; choose one of greedy"),
        (":seed 1,2", "seed: 1,2 is several values; quote them"),
        (":seed (", "seed=(: cannot be read as key=value; "),
        (":tpo_k 3", ":tpo_k: is no command; did you mean top_k?"),
        (":quti", ":quti: is no command; did you mean quit?"),
        (":", ":: is no command; choose one of "),
        (":checkpoint b", ":checkpoint: is no command; "),
        ("a\udcff", "prompt: character 2 is no whole one; give the text as UTF-8"),
    ],
)
def test_what_cannot_be_is_told_as_on_the_command_line_and_changes_nothing(session, line, problem):
    before = session.settings
    with pytest.raises(ConfigError) as error:
        session.answer(line)
    (found,) = error.value.problems
    assert found.startswith(problem)
    assert session.settings == before
    assert not session.asked


def test_settings_are_shown_as_they_are_typed(session, capsys):
    shown = said(session, capsys, ":top_k 3", ":settings")
    assert {line.split()[0] for line in shown.splitlines()} == {f":{n}" for n in CHANGEABLE} - {
        ":sampling"
    }
    assert "  :top_k 3\n" in shown
    assert "  :max_length null\n" in shown
    assert said(session, capsys, ":top_k") == "  :top_k 3\n"
    assert ":top_p null" in said(session, capsys, ":sampling")
    assert said(session, capsys, ":help") == HELP


def test_a_seed_and_a_reset_begin_anew(session, capsys):
    assert said(session, capsys, "a", ":top_k 3", "a", ":seed 3", "a") == " and 0\n and 1\n and 0\n"
    assert said(session, capsys, ":reset", "a") == " and 0\n"
    assert (session.settings.seed, session.settings.sampling.top_k) == (0, 40)


def test_a_refused_text_takes_no_number(session, capsys):
    with pytest.raises(DataError, match="prompt: is refused"):
        session.answer("refused")
    assert said(session, capsys, "a") == " and 0\n"


def test_a_text_that_is_not_streamed_comes_whole(session, capsys):
    session.take([*GIVEN, "stream=false"])
    assert said(session, capsys, "a") == " and 0\n"


def test_an_interrupt_raises_only_where_that_is_expected():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert interrupts.count == 3
        interrupts.expect(raises_at=2)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_history_is_kept_for_its_owner(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = history_file()
    history = History(path)
    for line in ("a", "", "  ", "grüß 🤗", "b\nc", "\udcff"):
        history.add(line)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        "a",
        "grüß 🤗",
        "b\nc",
        "\udcff",
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text() * 600 + "damaged\n[1]\n")
    History(path).add("d")
    assert len(path.read_text().splitlines()) == 1001


@pytest.mark.parametrize("place", ["a file/state", "/dev/full", ""])
def test_a_history_that_cannot_be_kept_is_no_fault(tmp_path, monkeypatch, place):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / place) if place else "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path / "a file"))
    History(history_file()).add("a")
    History(None).add("a")


def test_controls_are_told_from_text():
    assert [c for c in "a\tb\n é🤗\x1b\r\x07\x9b\x7f" if is_control(c)] == list(
        "\x1b\r\x07\x9b\x7f"
    )


def test_piped_it_is_the_samples_of_the_command_line(checkpoints):
    def run(*overrides, given=""):
        command = [sys.executable, "-m", "gpt2lab.sample", "checkpoint=chars.ckpt", *overrides]
        done = subprocess.run(
            command, cwd=checkpoints, input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    lines = "the \nthe \n:nonsense\nGrüße\n:max_new_tokens 3\nthe \n:quit\nthe \n"
    found = run("interactive=true", "max_new_tokens=8", "prompt=ab", given=lines)
    each = run("max_new_tokens=8", "prompt=the ", "num_samples=4", "json_lines=true").stdout
    texts = [json.loads(line)["text"][4:] for line in each.splitlines()]
    assert found.stdout.split("\n")[1:] == [texts[1], texts[2], texts[3][:3], ""]
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split()[1] for line in errors] == [":nonsense:", "prompt:"]
    assert "Traceback" not in found.stderr


PROGRAM = """
import sys, time, types
text = types.ModuleType("gpt2lab.generation.text")
def stream(model, prompt, settings, number=0):
    yield f"{prompt!r} number {number}"
    while prompt.startswith("long"):
        time.sleep(0.01)
        yield "."
text.stream = stream
sys.modules["gpt2lab.generation.text"] = text
from gpt2lab import sample
sample.check_checkpoint = lambda *_: None
sample.load = lambda *_, **__: types.SimpleNamespace(speech=None)
from gpt2lab.command_line import show_errors
show_errors(sample.main)
"""


class Terminal:
    """A session in a terminal of its own, with a model that is quick, or endless after `long`."""

    def __init__(self, cwd):
        environment = {**os.environ, "XDG_STATE_HOME": str(cwd / "state"), "TERM": "xterm"}
        command = [sys.executable, "-c", PROGRAM, "checkpoint=a", "interactive=true"]
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, command, environment)
        self.shown = b""

    def types(self, keys):
        os.write(self.file, keys.encode())

    def until(self, text, timeout_s=60):
        """Wait for a text, behind the one that was waited for before."""
        end = time.monotonic() + timeout_s
        while text.encode() not in self.shown:
            if not select.select([self.file], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{text!r} never came; there is {self.shown!r}")
            self.shown += os.read(self.file, 4096)
        self.shown = self.shown.partition(text.encode())[2]

    def insists(self, keys, text):
        """Keys, again if need be, until a text comes: readline misses a Ctrl-C that comes just
        before it waits, and a Ctrl-C drops what is typed with it.
        """
        for _ in range(20):
            self.types(keys)
            with suppress(TimeoutError):
                return self.until(text, timeout_s=3)
        raise AssertionError(f"{text!r} never came")

    def code(self):
        end = time.monotonic() + 60
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < end
            time.sleep(0.01)
        return os.waitstatus_to_exitcode(found[1])


@pytest.fixture
def begin(tmp_path):
    """Begins sessions, each at its first prompt."""
    begun = []

    def begin():
        begun.append(Terminal(tmp_path))
        begun[-1].until("a: goes on with what you type; :help tells more")
        begun[-1].until("> ")
        return begun[-1]

    yield begin
    for terminal in begun:
        os.close(terminal.file)
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)


@pytest.fixture
def terminal(begin):
    return begin()


def test_ctrl_c_stops_the_text_and_not_the_program(terminal):
    for number in range(3):  # a handler that is spent after the first would not survive this
        terminal.types("long\r")
        terminal.until(f"'long' number {number}...")
        terminal.insists("\x03", "> ")
    terminal.types("short\r")
    terminal.until("'short' number 3")
    terminal.until("> ")
    terminal.types("\x04")
    assert terminal.code() == 0


def test_ctrl_c_drops_what_is_typed_and_says_how_to_leave(terminal):
    terminal.types("half a li")
    terminal.until("half a li")
    terminal.insists("\x03", ":quit or Ctrl-D leaves")
    terminal.until("> ")
    terminal.types("whole\r")
    terminal.until("'whole' number 0")
    terminal.until("> ")
    terminal.types(":quit\r")
    assert terminal.code() == 0


def test_a_hundred_interrupts_do_not_end_it(terminal):
    terminal.types("long\r")
    terminal.until("number 0")
    for _ in range(100):
        os.kill(terminal.pid, signal.SIGINT)
        time.sleep(0.002)
    terminal.insists("\rafter\r", "'after' number")
    terminal.until("> ")
    terminal.types("\x04")
    assert terminal.code() == 0


def test_sigterm_ends_it_as_it_ends_every_command(terminal):
    terminal.types("long\r")
    terminal.until("number 0")
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.until("error: SIGTERM: ")
    assert terminal.code() == 143


def test_arrow_up_brings_back_a_line_of_an_earlier_session(terminal, begin):
    terminal.types("grüß 🤗\r")
    terminal.until("'grüß 🤗' number 0")
    terminal.until("> ")
    terminal.types("\x04")
    assert terminal.code() == 0
    again = begin()
    again.types("\x1b[A!\r")
    again.until("'grüß 🤗!' number 0")
    again.until("> ")
    again.types("\x04")
    assert again.code() == 0


@pytest.mark.skipif("GNU" not in (readline.__doc__ or ""), reason="libedit knows no pasting")
def test_what_is_pasted_is_one_text(terminal):
    terminal.types("\x1b[200~one\ntwo\x1b[201~\r")
    terminal.until(r"'one\ntwo' number 0")
    terminal.until("> ")
    terminal.types("\x04")
    assert terminal.code() == 0
