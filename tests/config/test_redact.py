import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from gpt2lab.config.compose import settings_from
from gpt2lab.config.redact import mask, printable, redacted_arguments
from gpt2lab.exit import exit_code

CANARY = "canary-5d41402abc4b"


@pytest.fixture(autouse=True)
def _canary(monkeypatch):
    monkeypatch.setenv("GPT2LAB_CANARY", CANARY)


@pytest.mark.parametrize(
    "override",
    [
        "+logger.wandb.notes=${oc.env:GPT2LAB_CANARY}",
        "+logger.wandb.notes='a ${oc.env:GPT2LAB_CANARY} b'",
        "+logger.wandb.notes=[x,'${oc.env:GPT2LAB_CANARY}']",
        f"+logger.wandb.api_key={CANARY}",
        f"+logger.wandb.settings.token={CANARY}",
        f"+logger.wandb.WANDB_API_KEY={CANARY}",
        f"+logger.wandb.token=[{CANARY}]",
        f"+logger.wandb.secret={{inner: {CANARY}}}",
    ],
)
def test_a_secret_is_used_but_not_shown(override):
    composed = settings_from("train", ["logger=wandb", override])
    assert CANARY in str(composed.settings.logger)
    assert CANARY not in str(composed.printable)


def test_a_secret_may_be_a_number():
    assert printable(OmegaConf.create({"password": 1234, "seed": 1})) == {
        "password": "<redacted>",
        "seed": 1,
    }


def test_a_secret_that_comes_by_way_of_another_key_is_masked():
    cfg = OmegaConf.create({"a": "${oc.env:GPT2LAB_CANARY}", "b": "see ${a}", "c": ["${b}"]})
    shown = printable(cfg)
    assert shown == {
        "a": "${oc.env:GPT2LAB_CANARY}",
        "b": "see <redacted>",
        "c": ["see <redacted>"],
    }


def test_ordinary_settings_are_shown_as_they_are():
    cfg = OmegaConf.create(
        {"n_head": 3, "keys": "x", "max_tokens": 5, "token": None, "e": {}, "l": []}
    )
    assert printable(cfg) == {
        "n_head": 3,
        "keys": "x",
        "max_tokens": 5,
        "token": None,
        "e": {},
        "l": [],
    }


def test_a_command_line_is_masked():
    given = ["python", "-m", "gpt2lab.train", f"+logger.wandb.api_key={CANARY}", "seed=1"]
    assert redacted_arguments(given) == [*given[:3], "+logger.wandb.api_key=<redacted>", "seed=1"]


def test_masking_keeps_interpolations():
    cfg = OmegaConf.create(
        {
            "a": {"password": "x", "token": "${oc.env:GPT2LAB_CANARY}"},
            "seed": 1,
        }
    )
    mask(cfg)
    assert OmegaConf.to_container(cfg) == {
        "a": {"password": "<redacted>", "token": "${oc.env:GPT2LAB_CANARY}"},
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("+token=abc", "+token=<redacted>"),
        (f"+logger.x={{notes:a,api_key: {CANARY}}}", "+logger.x={notes:a,api_key: <redacted>"),
        (f'fit(["+logger.x.password={CANARY}"])', 'fit(["+logger.x.password=<redacted>'),
        (f"{{'secret': '{CANARY}'}}", "{'secret': <redacted>"),
        ("data.tokenizer=char", "data.tokenizer=char"),
        ("model=nano", "model=nano"),
    ],
)
def test_a_secret_within_an_argument_is_masked(argument, shown):
    assert redacted_arguments([argument]) == [shown]


def test_a_link_shows_no_secret_of_what_it_links_to():
    cfg = OmegaConf.create(
        {
            "a": {"api_key": CANARY, "n": "${oc.env:GPT2LAB_CANARY}", "pin": {"password": 12}},
            "b": "${a}",
            "c": "${a.api_key}",
            "d": ["${a}"],
            "e": "${a.pin.password}",
            "f": 12,
        }
    )
    shown = printable(cfg)
    assert CANARY not in str(shown)
    assert (shown["e"], shown["f"]) == ("<redacted>", 12)


def test_a_message_quotes_no_secret(capsys, monkeypatch):
    def fail():
        raise RuntimeError("the server refused another-secret")

    monkeypatch.setattr("gpt2lab.config.redact._seen", set())
    monkeypatch.setattr("sys.argv", ["train", "+logger.x.token=another-secret"])
    for action in (
        fail,
        lambda: settings_from("train", ["seed=${oc.env:GPT2LAB_CANARY}"]),
        lambda: settings_from("train", [f"+logger.x.token={CANARY},b"]),
        lambda: settings_from("train", [f"+logger.x.token={CANARY} ("]),
    ):
        assert exit_code(action) in (1, 2)
        told = capsys.readouterr().err
        assert "<redacted>" in told
        assert "another-secret" not in told
        assert CANARY not in told


def test_a_long_word_is_gone_through_once():
    """From each of its letters anew, it would take minutes."""
    program = (
        "from gpt2lab.config.redact import redacted_arguments as shown\n"
        "assert shown(['prompt=' + 'a' * 10**5])[0].endswith('aaa')\n"
        "assert shown(['api_key=' + 'a' * 10**5]) == ['api_key=<redacted>']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
