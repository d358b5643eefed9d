"""The page in a real browser, clicked through and typed through.

GPT2LAB_SCREENSHOTS names a folder that keeps the pictures.
"""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from gpt2lab.explorer.views import DIGITS
from gpt2lab.generation import Speech
from gpt2lab.insight import attention
from gpt2lab.loading import load
from gpt2lab.tokenizer import CharTokenizer
from tests.explore.served import save, served
from tests.insight.models import CHARACTERS, made, sort_model, text_model

pytest.importorskip("gradio", reason="the page needs gpt2lab[ui]")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
HALF = 0.5 * 10**-DIGITS + 1e-6
"""Rounding, and sums in another order."""
WAIT_MS = 60_000
"""For a machine that does much else."""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    other = text_model(n_layer=1)
    # So large that it can be stopped before it has said a thousand tokens.
    endless = made(Speech.of_text(CharTokenizer(CHARACTERS)), n_layer=8, n_embd=256, block_size=64)
    return {
        "text": save(text_model(block_size=64), folder / "text.ckpt"),
        "other": save(other, folder / "other.ckpt"),
        "sort": save(sort_model(), folder / "sort.ckpt"),
        "endless": save(endless, folder / "endless.ckpt"),
    }


@pytest.fixture(scope="module")
def url(checkpoints):
    with served(f"checkpoint={checkpoints['text']}") as page:
        yield page.url


@pytest.fixture(scope="module")
def sort_url(checkpoints):
    with served(f"checkpoint={checkpoints['sort']}", "prompt=2 0 1 1") as page:
        yield page.url


@pytest.fixture(scope="module")
def endless_url(checkpoints):
    """Of a model that knows no end."""
    with served(f"checkpoint={checkpoints['endless']}") as page:
        yield page.url


@pytest.fixture(scope="module")
def url_of_two(checkpoints):
    text, other = checkpoints["text"], checkpoints["other"]
    with served(f"checkpoint={text}", f"checkpoint2={other}") as page:
        yield page.url


@pytest.fixture
def opened(browser, tmp_path, request):
    """Opens a page, whose every request must stay with it, and on which no script may fail."""
    kept = []

    def open_page(url, width=1000):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(WAIT_MS)
        requests, faults = [], []
        page.on("request", lambda asked: requests.append(asked.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        kept.append((page, url, requests, faults))
        page.goto(url)
        page.wait_for_selector("#status [data-search]", state="attached")
        return page

    yield open_page
    folder = Path(os.environ.get("GPT2LAB_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for number, (page, url, requests, faults) in enumerate(kept):
        page.screenshot(path=folder / f"{request.node.name}-{number}.png", full_page=True)
        page.close()
        assert faults == []
        elsewhere = [r for r in requests if urlsplit(r).netloc != urlsplit(url).netloc]
        assert [r for r in elsewhere if not r.startswith(("data:", "blob:"))] == []
        assert len(requests) > 10


def read(page, text):
    """Type a text, and wait until the model has read it."""
    page.fill("#text textarea", text)
    page.wait_for_function("t => new URLSearchParams(location.search).get('text') === t", arg=text)
    page.wait_for_selector("#now0 button[data-token]")


def shown(page):
    """The next tokens by their ids, with their probabilities."""
    buttons = page.query_selector_all("#now0 button[data-token]")
    return {
        int(b.get_attribute("data-token")): float(b.query_selector(".p").inner_text())
        for b in buttons
    }


def text_of(page):
    return page.input_value("#text textarea")


def wait_for_text(page, length):
    page.wait_for_function(
        "n => document.querySelector('#text textarea').value.length === n", arg=length
    )


def test_type_click_undo_and_read_the_numbers(opened, url, checkpoints):
    model = load(checkpoints["text"], precision="fp32")
    page = opened(url)
    read(page, "ab c")

    def own():
        with torch.no_grad():
            return model(torch.tensor([model.speech.encode(text_of(page))]))[0, -1].softmax(-1)

    assert list(shown(page)) == own().topk(10).indices.tolist()
    assert all(abs(p - own()[i]) <= HALF for i, p in shown(page).items())
    end = model.speech.tokenizer.end_of_text
    token = next(i for i in shown(page) if i != end)
    page.click(f"#now0 button[data-token='{token}']")
    wait_for_text(page, 5)
    assert text_of(page) == "ab c" + model.speech.tokenizer.decode([token])
    assert "6 tokens" in page.inner_text("#now0")
    page.wait_for_function("() => new URLSearchParams(location.search).get('text').length === 5")
    assert list(shown(page)) == own().topk(10).indices.tolist()
    assert all(abs(p - own()[i]) <= HALF for i, p in shown(page).items())
    page.click("#undo")
    wait_for_text(page, 4)


def test_the_address_can_be_shared(opened, url):
    page = opened(url)
    read(page, "abcd")
    again = opened(page.url)
    again.wait_for_selector("#now0 button[data-token]")
    assert text_of(again) == "abcd"
    assert shown(again) == shown(page)


def test_attention_of_another_head_is_the_models_own(opened, url, checkpoints):
    model = load(checkpoints["text"], precision="fp32")
    page = opened(url)
    read(page, "ab c")
    weights = attention(model, model.speech.encode("ab c")).weights
    for name, choice in (("layer", "0"), ("head", "1")):
        page.click(f"#{name}0 input")
        page.get_by_role("option", name=choice, exact=True).click()
    page.wait_for_selector("#attention0 >> text=Layer 0, head 1.")
    page.hover("#attention0 [data-t='3']")
    page.wait_for_selector("#attention0 [data-t='3'].looks")
    below = page.eval_on_selector_all("#attention0 [data-t] small", "s => s.map(x => x.innerText)")
    assert below[4] == "\N{EN DASH}"  # ahead
    for found, own in zip(below[:4], weights[0, 1, 3].tolist(), strict=False):
        assert abs(float(found) - own) <= HALF
    box = page.locator("#attention0 svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.9)
    says = page.inner_text("#attention0 .says")
    assert says.endswith(f"{weights[0, 1, 4, 0]:.4f}"), says


def test_lens_and_tokens_have_tabs(opened, url):
    page = opened(url)
    read(page, "ab c")
    page.get_by_role("tab", name="Logit lens").click()
    page.wait_for_selector("#lens0 td")
    first = page.eval_on_selector_all(
        "#lens0 tbody tr:last-child td small", "all => all.map(x => x.innerText)"
    )
    assert float(first[-1]) == max(shown(page).values())
    page.hover("#lens0 td >> nth=0")
    assert re.search(r"\d\.\d{4}", page.inner_text("#lens0 .says"))
    page.get_by_role("tab", name="Tokens").click()
    page.wait_for_selector("#tokenizer0 >> text=one character at a time")


def test_a_sample_grows_before_ones_eyes_and_stops(opened, endless_url):
    page = opened(endless_url)
    read(page, "ab")
    page.evaluate(
        """() => { window.seen = new Set(); setInterval(() =>
        window.seen.add(document.querySelector('#text textarea').value), 5); }"""
    )
    page.click("#sampling button")
    page.fill("#count input[type=number]", "1000")
    page.keyboard.press("Tab")
    page.click("#sample0")
    page.wait_for_function("() => window.seen.size >= 4")
    page.click("#stop")
    page.wait_for_timeout(2000)
    stopped = text_of(page)
    page.wait_for_timeout(1000)
    assert text_of(page) == stopped
    assert len(stopped) < 1000
    page.click("#undo")
    wait_for_text(page, 2)


def test_the_keyboard_is_enough(opened, url):
    page = opened(url)
    page.focus("body")

    def step_to(selector, most=60):
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement?.matches(s) ?? false", selector):
                return
        raise AssertionError(f"{selector}: is not reached by Tab")

    if not page.evaluate("document.activeElement.matches('textarea')"):
        step_to("textarea")
    page.keyboard.type("abc")
    page.wait_for_selector("#now0 button[data-token]")
    page.wait_for_function("() => new URLSearchParams(location.search).get('text') === 'abc'")
    step_to("#now0 button[data-token]")
    page.keyboard.press("ArrowDown")  # moves nothing
    token = page.evaluate("document.activeElement.dataset.token")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "t => (new URLSearchParams(location.search).get('text') ?? '') !== 'abc'"
        " || location.search.includes('ids=')"
    )
    assert token
    assert page.evaluate("document.activeElement.matches('#now0 button[data-token]')")
    step_to("[role=tab]")
    step_to("#head0 input")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#attention0 >> text=head ")
    step_to("#attention0 [data-t]")
    page.wait_for_selector("#attention0 [data-t='0'].looks")


@pytest.mark.parametrize("tab", ["Attention", "Logit lens", "Tokens"])
def test_it_is_readable_on_a_small_screen(opened, url, tab):
    page = opened(url, width=400)
    read(page, "abcd " * 12)
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(1500)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_ten_megabytes_are_refused_politely(opened, url):
    page = opened(url)
    page.evaluate(
        """() => { const area = document.querySelector('#text textarea');
        area.value = 'a'.repeat(10000000); area.dispatchEvent(new Event('input')); }"""
    )
    page.wait_for_selector("#now0 .problem >> text=is longer than 100,000 characters")
    # By hand: a browser takes long to replace so much text in the way of a user.
    page.evaluate(
        """() => { const area = document.querySelector('#text textarea');
        area.value = 'ab'; area.dispatchEvent(new Event('input')); }"""
    )
    page.wait_for_selector("#now0 button[data-token]")  # and it goes on


def test_a_model_that_sorts_answers(opened, sort_url):
    page = opened(sort_url)
    page.wait_for_selector("#now0 .verdict")
    for _ in range(4):
        before = page.inner_text("#now0 h3 >> nth=0")
        page.click("#now0 button[data-token] >> nth=0")
        page.wait_for_function(
            "b => document.querySelector('#now0 h3').innerText !== b", arg=before
        )
    assert page.query_selector("#now0 button[data-token]") is None
    assert text_of(page) == "2 0 1 1"


def test_two_models_side_by_side_read_the_same_text(opened, url_of_two, checkpoints):
    page = opened(url_of_two)
    read(page, "ab")
    page.wait_for_selector("#now1 button[data-token]")
    left, right = (page.locator(f"#now{i}").bounding_box() for i in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    end = load(checkpoints["text"]).speech.tokenizer.end_of_text
    page.click(f"#now1 button[data-token]:not([data-token='{end}']) >> nth=0")
    wait_for_text(page, 3)
    for i in (0, 1):
        page.wait_for_selector(f"#now{i} >> text=It reads 4 tokens")
