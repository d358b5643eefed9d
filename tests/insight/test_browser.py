"""The page in a real browser, from a file.

GPT2LAB_SCREENSHOTS names a folder that keeps the pictures.
"""

import pytest

from gpt2lab.config import InsightConfig
from gpt2lab.insight import attention
from gpt2lab.insight.findings import findings
from gpt2lab.insight.page import page as page_of
from tests.browser import NEEDED, keep_picture, opened_at
from tests.insight.models import pairs_model, sort_model, text_model

pytest.importorskip("plotly", reason="the page needs gpt2lab[insight]")
pytestmark = [
    *NEEDED,
    pytest.mark.filterwarnings("ignore:prompt:"),  # an untrained answer may have no end
]
WRITTEN = "id => [...document.querySelectorAll(`#${id} .heatmap-label`)].map(e => e.textContent)"
DRAWN = "id => document.getElementById(id).innerHTML"


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
    opened = opened_at(browser, path.as_uri(), width)
    page = opened.page
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
    keep_picture(page, f"{make.__name__}-{width}", tmp_path)
    page.close()
    assert opened.faults == []
    elsewhere = [u for u in opened.requests if not u.startswith(("file:", "data:", "blob:"))]
    assert elsewhere == []


def test_what_is_wider_than_the_screen_says_so(browser, tmp_path):
    found = findings(text_model(block_size=64), InsightConfig(prompt="abcd" * 15))
    path = tmp_path / "index.html"
    path.write_text(page_of(found, "a", "2 layers", "mean"), "utf-8")
    for width, hints in ((1200, set()), (400, {"arcs", "head", "last_block", "loss"})):
        page = opened_at(browser, path.as_uri(), width).page
        page.wait_for_selector("#loss svg.main-svg", state="attached")
        page.wait_for_timeout(300)
        scrolls = "all => all.map(e => e.firstElementChild.id)"
        assert {*page.eval_on_selector_all(".wide.scrolls", scrolls)} >= hints
        assert hints or not page.query_selector(".wide.scrolls")
        keep_picture(page, f"wide-{width}", tmp_path)
        page.close()
