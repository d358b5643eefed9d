"""The page in a real browser, from a file.

GPT2LAB_SCREENSHOTS names a folder that keeps the pictures.
"""

import os
import shutil
from pathlib import Path

import pytest

from gpt2lab.config import InsightConfig
from gpt2lab.insight import attention
from gpt2lab.insight.findings import findings
from gpt2lab.insight.page import page as page_of
from tests.insight.models import pairs_model, sort_model, text_model

pytest.importorskip("plotly", reason="the page needs gpt2lab[insight]")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore:prompt:"),  # an untrained answer may have no end
]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 60_000
"""For a machine that does much else."""
WRITTEN = "id => [...document.querySelectorAll(`#${id} .heatmap-label`)].map(e => e.textContent)"
DRAWN = "id => document.getElementById(id).innerHTML"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


def numbers(weights):
    """A square's, as they are written into its cells, row by row."""
    return [f"{w:.2f}" for t, row in enumerate(weights.tolist()) for w in row[: t + 1]]


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize(
    ("make", "prompt"), [(text_model, "a<b>&\n"), (sort_model, "2 0 1 0"), (pairs_model, "ab")]
)
def test_it_draws_each_part_and_another_head_at_a_choice(browser, tmp_path, make, prompt, width):
    model = make()
    found = findings(model, InsightConfig(prompt=prompt, layer=0, head=0))
    path = tmp_path / "index.html"
    path.write_text(page_of(found, "a", "2 layers", "mean"), "utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(WAIT_MS)
    requests, faults = [], []
    page.on("request", lambda asked: requests.append(asked.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: said.type == "error" and faults.append(said.text))
    page.goto(path.as_uri())
    for part in found.parts():
        page.wait_for_selector(f"#{part} svg.main-svg", state="attached")
    weights = attention(model, found.text.token_ids).weights
    assert page.evaluate(WRITTEN, "head") == numbers(weights[0, 0])
    assert page.evaluate(WRITTEN, "last_block") == numbers(weights[-1].mean(0))
    before = page.evaluate(DRAWN, "head")
    page.select_option("#layer", "1")
    page.select_option("#of-head", "1")
    page.wait_for_function(f"b => ({DRAWN})('head') !== b", arg=before)
    assert page.evaluate(WRITTEN, "head") == numbers(weights[1, 1])
    assert page.inner_text("h2:has(+ figure #head) .chosen") == "layer 1, head 1"
    page.click(".text button >> nth=1")
    page.wait_for_selector("#next-of >> text=after token 1,")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    folder = Path(os.environ.get("GPT2LAB_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"{make.__name__}-{width}.png", full_page=True)
    page.close()
    assert faults == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
