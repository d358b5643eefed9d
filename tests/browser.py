"""A page in a real browser, of which every request and every fault is kept."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
"""Marks of a test that drives it."""
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
"""What Chromium does besides would take time from the page."""
WAIT_MS = 60_000
"""For a machine that does much else."""


@dataclass
class Opened:
    """
    Args:
        page: playwright's.
        requests: the addresses that it has asked for.
        faults: of its scripts.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@contextmanager
def launched():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield chromium
        chromium.close()


def opened_at(browser, url: str, width: int) -> Opened:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(WAIT_MS)
    opened = Opened(page)
    page.on("request", lambda asked: opened.requests.append(asked.url))
    page.on("pageerror", lambda error: opened.faults.append(str(error)))
    page.on("console", lambda said: said.type == "error" and opened.faults.append(said.text))
    page.goto(url)
    return opened


def keep_picture(page, name: str, otherwise: Path) -> None:
    """In the folder that GPT2LAB_SCREENSHOTS names, where it names one."""
    folder = Path(os.environ.get("GPT2LAB_SCREENSHOTS", otherwise))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
