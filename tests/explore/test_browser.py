"""The page in a real browser, clicked through and typed through.

GPT2LAB_SCREENSHOTS names a folder that keeps the pictures.
"""

import re
from urllib.parse import urlsplit

import pytest
import torch

from gpt2lab.explorer.views import DIGITS
from gpt2lab.generation import Speech
from gpt2lab.insight import attention
from gpt2lab.loading import load
from gpt2lab.tokenizer import CharTokenizer
from tests.browser import NEEDED, keep_picture, opened_at
from tests.explore.served import save, served
from tests.insight.models import CHARACTERS, made, sort_model, text_model

pytest.importorskip("gradio", reason="the page needs gpt2lab[ui]")
pytestmark = NEEDED
HALF = 0.5 * 10**-DIGITS + 1e-6
"""Rounding, and sums in another order."""


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
        kept.append((url, opened_at(browser, url, width)))
        page = kept[-1][1].page
        page.wait_for_selector("#status [data-search]", state="attached")
        return page

    yield open_page
    for number, (url, opened) in enumerate(kept):
        keep_picture(opened.page, f"{request.node.name}-{number}", tmp_path)
        opened.page.close()
        assert opened.faults == []
        elsewhere = [r for r in opened.requests if urlsplit(r).netloc != urlsplit(url).netloc]
        assert [r for r in elsewhere if not r.startswith(("data:", "blob:"))] == []
        assert len(opened.requests) > 10


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


def wait_for_line(page, place, pattern):
    """Wait until a text matches, and give the match."""
    page.wait_for_function(
        "([place, pattern]) => new RegExp(pattern).test(document.querySelector(place)?.innerText)",
        arg=[place, pattern],
    )
    return re.search(pattern, page.inner_text(place))


def looked_into(page, token_ids):
    """Wait until the attention is that of a text, so that nothing is about to be shown anew."""
    page.wait_for_function(
        "n => document.querySelectorAll('#attention0 [data-t]').length === n", arg=token_ids
    )


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
    wait_for_line(page, "#now0", "6 tokens")
    page.wait_for_function("() => new URLSearchParams(location.search).get('text').length === 5")
    assert list(shown(page)) == own().topk(10).indices.tolist()
    assert all(abs(p - own()[i]) <= HALF for i, p in shown(page).items())
    page.click("#undo")
    wait_for_text(page, 4)
    # Typed before the choice is answered: that answer is to change nothing any more.
    page.evaluate(
        """token => {
        document.querySelector(`#now0 button[data-token='${token}']`).click();
        const area = document.querySelector('#text textarea');
        area.value = 'dd'; area.dispatchEvent(new Event('input')); }""",
        token,
    )
    page.wait_for_function("() => new URLSearchParams(location.search).get('text') === 'dd'")
    looked_into(page, 3)
    assert text_of(page) == "dd"


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
        page.wait_for_selector("[role=option]", state="detached")  # it fades, beside the next one's
    wait_for_line(page, "#attention0 .caption", r"^Layer 0, head 1\.")
    looked_into(page, 5)
    page.hover("#attention0 [data-t='3']")
    page.wait_for_selector("#attention0 [data-t='3'].looks")
    below = page.eval_on_selector_all("#attention0 [data-t] small", "s => s.map(x => x.innerText)")
    assert below[4] == "\N{EN DASH}"  # ahead
    for found, own in zip(below[:4], weights[0, 1, 3].tolist(), strict=False):
        assert abs(float(found) - own) <= HALF
    picture = page.locator("#attention0 svg")
    picture.scroll_into_view_if_needed()  # the mouse reaches nothing beyond the window
    box = picture.bounding_box()
    picture.hover(position={"x": box["width"] * 0.1, "y": box["height"] * 0.9})
    found = wait_for_line(page, "#attention0 .says", r" \(4\) looks at .* \(0\): (\d\.\d{4})$")
    assert abs(float(found[1]) - weights[0, 1, 4, 0]) <= HALF


def test_lens_and_tokens_have_tabs(opened, url):
    page = opened(url)
    read(page, "ab c")
    looked_into(page, 5)
    page.get_by_role("tab", name="Logit lens").click()
    page.wait_for_function("() => document.querySelectorAll('#lens0 tbody tr').length === 5")
    first = page.eval_on_selector_all(
        "#lens0 tbody tr:last-child td small", "all => all.map(x => x.innerText)"
    )
    assert abs(float(first[-1]) - max(shown(page).values())) <= 2 * HALF
    page.hover("#lens0 td >> nth=0")
    wait_for_line(page, "#lens0 .says", r"\d\.\d{4}")
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


def test_the_keyboard_is_enough(opened, url, checkpoints):
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
    speech = load(checkpoints["text"]).speech
    ids = [*speech.encode("abc"), int(token)]
    page.keyboard.press("Enter")
    page.wait_for_function(
        """([text, ids]) => { const fields = new URLSearchParams(location.search);
        return fields.get('text') === text && [null, ids].includes(fields.get('ids')); }""",
        arg=[speech.decode(ids), ".".join(map(str, ids))],
    )
    looked_into(page, 5)
    assert token
    assert page.evaluate("document.activeElement.matches('#now0 button[data-token]')")
    step_to("[role=tab]")
    step_to("#head0 input")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for_line(page, "#attention0 .caption", r"^Layer 1, head \d\.")
    step_to("#attention0 [data-t]")
    page.wait_for_selector("#attention0 [data-t='0'].looks")


@pytest.mark.parametrize(
    ("tab", "place"),
    [
        ("Attention", "#attention0 svg"),
        ("Logit lens", "#lens0 td"),
        ("Tokens", "#tokenizer0 .token"),
    ],
)
def test_it_is_readable_on_a_small_screen(opened, url, tab, place):
    page = opened(url, width=400)
    read(page, "abcd " * 12)
    page.get_by_role("tab", name=tab).click()
    box = page.wait_for_selector(place).bounding_box()
    assert 0 <= box["x"] < box["x"] + box["width"] <= 400
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_white_on_orange_can_be_read_and_one_letter_leaves_room_for_its_bar(opened, url):
    page = opened(url, width=400)
    read(page, "ab")
    ratio = page.evaluate(
        """() => { const style = getComputedStyle(document.querySelector('#sample0'));
        const light = (colour) => { const [r, g, b] = colour.match(/\\d+/g).map((x) => x / 255)
          .map((x) => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
          return .2126 * r + .7152 * g + .0722 * b + .05; };
        return light(style.color) / light(style.backgroundColor); }"""
    )
    assert ratio >= 4.5  # WCAG 2.2
    page.evaluate(
        """() => document.querySelectorAll('#now0 .next .token').forEach((e) =>
        { e.textContent = 'a'; })"""
    )
    assert page.locator("#now0 .bar >> nth=0").bounding_box()["width"] > 200


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
    for count in range(5, 9):
        page.click("#now0 button[data-token] >> nth=0")
        wait_for_line(page, "#now0", f"It reads {count} tokens")
    page.wait_for_selector("#now0 button[data-token]", state="detached")
    assert text_of(page) == "2 0 1 1"


def test_choices_in_one_breath_all_count(opened, sort_url):
    page = opened(sort_url)
    page.wait_for_selector("#now0 button[data-token]")
    page.evaluate(
        "() => { const first = document.querySelector('#now0 button[data-token]');"
        " for (let i = 0; i < 4; i++) first.click(); }"
    )
    wait_for_line(page, "#now0", "It reads 8 tokens")


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
