"""The pictures and the page: they are there, say what is so, and ask no network."""

import io
import json
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from gpt2lab.config import InsightConfig
from gpt2lab.insight import page as page_module
from gpt2lab.insight.captions import CAPTIONS
from gpt2lab.insight.findings import findings
from gpt2lab.insight.page import page
from gpt2lab.insight.pictures import canvas, pictures
from gpt2lab.insight.pictures.answer import answer
from gpt2lab.insight.pictures.arcs import apart, arcs, worth_naming
from gpt2lab.insight.pictures.canvas import WEIGHT_TICKS, short, turns
from gpt2lab.insight.pictures.predictions import loss, next_token
from gpt2lab.insight.pictures.scores import compact, scores
from gpt2lab.insight.pictures.squares import head, heads, last_block
from tests.insight.models import sort_model, text_model

ALL = {"arcs.png", "head.png", "heads.png", "last_block.png", "lens.png", "loss.png", "next.png"}
ALL |= {"scores.png"}


def shown(model, prompt, **settings):
    return findings(model, InsightConfig(prompt=prompt, **settings))


@pytest.fixture
def drawn():
    return pictures(shown(sort_model(), "2 0 1 0"))


def test_each_picture_shows_something_at_a_size_that_can_be_read(drawn):
    assert {*drawn} == ALL | {"answer.png"}
    for name, png in drawn.items():
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("RGB"))
        height, width, _ = pixels.shape
        assert 150 <= height <= 1200, name
        assert 400 <= width <= 1800, name
        assert pixels.std() > 5, name  # a blank one has 0


def test_text_has_no_answer_and_a_single_token_no_loss():
    assert {*pictures(shown(text_model(), "ab$c $a"))} == ALL
    single = pictures(shown(text_model(block_size=3), None))
    assert {*single} == ALL - {"loss.png", "scores.png"}


def test_signs_that_mean_something_elsewhere_are_drawn_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pictures(shown(text_model(), "$a$ <b>&é"))


def test_a_few_long_labels_are_turned_alone_and_many_take_the_others_along():
    assert turns(["2", "10"]) == [0, 0]
    assert turns(["⟨end⟩", "a", "b"]) == [90, 0, 0]
    assert turns(["the", "a", ","]) == [90, 0, 0]
    assert turns(["the", "cat", ","]) == [90, 90, 90]
    for draw in (head, arcs):
        axes = draw(shown(text_model(), "abc$a")).axes[0]
        labels = [(text.get_text(), text.get_rotation()) for text in axes.get_xticklabels()]
        assert labels == [("⟨end⟩", 90), *((sign, 0) for sign in "abc$a")]


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ([0.1, 0.6, 0.05, 0.2, 0.05], [1, 3, 0]),
        ([0.504, 0.248, 0.248, 0, 0], [0, 1, 2]),
        ([0.4, 0.2, 0.2, 0.2, 0], [0]),
        ([0.25, 0.25, 0.25, 0.25, 0], []),
        ([0.9, 0.04, 0.03, 0.03, 0], [0]),
    ],
)
def test_of_equal_weights_none_is_named_by_chance(weights, named):
    assert worth_naming(np.array(weights, np.float32)) == named


def test_a_written_weight_touches_no_larger_one():
    places = np.array([[0, 0], [20, 5], [28, 5], [20, 19], [30, 0]])
    assert apart(places, 28, 14) == [0, 2, 3]
    found = shown(text_model(block_size=64), "abcd" * 15, layer=0, head=0)
    weights = found.weights[0, 0, -1]
    weights[:], weights[0], weights[1], weights[40] = 0.001, 0.5, 0.3, 0.14
    texts = [text.get_text() for text in arcs(found).axes[0].texts]
    assert texts == ["0.50", "0.14"]


def test_labels_and_numbers_are_short():
    assert [short(text, 8) for text in ("<|endoftext|>", "function", "functions")] == [
        "⟨end⟩",
        "function",
        "functio…",
    ]
    shown = [compact(x, 2) for x in (0.123, -0.004, -0.5, 1.25)]
    assert shown == [".12", ".00", "-.50", "1.2"]
    assert [compact(x, 3) for x in (-0.0042, 1.25)] == ["-.004", "1.25"]


def test_a_small_weight_is_seen_in_every_map_and_the_colour_bar_is_true_of_it():
    found = shown(text_model(), "abc$a")
    for draw, number in ((head, 1), (heads, 1), (last_block, 1), (scores, 2)):
        axes = draw(found).axes
        images = [a.images[0] for a in axes if a.images][:number]
        assert [float(image.norm(0.25)) for image in images] == [0.5] * number
        bars = [image.colorbar for image in images]
        assert all(bar.get_ticks().tolist() == WEIGHT_TICKS for bar in bars)
    ours = (page_module.HERE / "page.js").read_text()
    (ticks,) = re.findall(r"const TICKS = (.*);", ours)
    assert [float(x) for x in ticks.strip("[]").split(",")] == WEIGHT_TICKS


def test_the_page_has_the_colours_of_the_pictures():
    style = (page_module.HERE / "page.css").read_text().split("@media")[0]
    for name in ("ink", "pale", "accent", "green", "red", "none", "some", "most", "less", "more"):
        assert re.findall(rf"--{name}: (#\w+);", style) == [getattr(canvas, name.upper())]


def test_right_and_wrong_differ_by_more_than_green_and_red():
    found = shown(sort_model(), "2 0 1 0")
    found.text.answer, found.text.right = [0, 1, 1, 2], [0, 0, 1, 2]
    for axes in answer(found).axes:
        assert [text.get_text() for text in axes.texts if text.get_text() in "✓✗"] == [*"✓✗✓✓"]
    style = (page_module.HERE / "page.css").read_text()
    assert re.findall(r"\.(right|wrong)::after { content: \" (.)\"", style) == [
        ("right", "✓"),
        ("wrong", "✗"),
    ]


def test_axes_end_with_what_can_be_and_say_what_they_are():
    found = shown(text_model(), "abc")
    found.said.probabilities[-1, found.token, 0] = 0.99
    assert next_token(found).axes[0].get_xlim() == (0, 1)
    assert loss(found).axes[0].get_xlabel() == "the actual next token"
    ours = (page_module.HERE / "page.js").read_text()
    assert "range: [0, Math.min(1, " in ours


def contrast(one, other):
    """WCAG 2.2, of #rrggbb."""

    def luminance(colour):
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["INK", "PALE", "ACCENT", "GREEN", "RED", "MOST"])
def test_what_is_written_can_be_read_on_white(name):
    assert contrast(getattr(canvas, name), "#ffffff") >= 4.5


@pytest.mark.filterwarnings("ignore:prompt:")
def test_the_page_says_that_a_prompt_is_cut():
    told = "Of the prompt's 14 tokens it read the last 11."
    assert told in page(shown(text_model(), "abcabcabcabcab"), "a", "", "mean")
    assert "it read the last" not in page(shown(text_model(), "abc"), "a", "", "mean")


class Reader(HTMLParser):
    """What a browser would make of a page: ids, texts of scripts, and what it would fetch."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.fetched, self.links, self.texts = [], [], [], []
        self.scripts, self.open = {}, None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        for name in ("src", "href", "srcset", "data"):
            if name in attributes:
                (self.links if tag == "a" else self.fetched).append(attributes[name])
        if tag == "script":
            self.open = attributes.get("id", len(self.scripts))
            self.scripts[self.open] = ""

    def handle_endtag(self, tag):
        if tag == "script":
            self.open = None

    def handle_data(self, data):
        if self.open is None:
            self.texts.append(data)
        else:
            self.scripts[self.open] += data


def read(found):
    return Reader(page(found, "a <b> & c", "2 layers", "mean"))


def test_the_page_fetches_nothing():
    for found in (shown(sort_model(), "2 0 1 0"), shown(text_model(), "abc")):
        seen = read(found)
        assert seen.fetched == ["data:,"]
        assert {*seen.links} <= ALL | {"answer.png"}
        style = (page_module.HERE / "page.css").read_text()
        assert not re.search(r"url\(|@import|https?:", style)
        ours = (page_module.HERE / "page.js").read_text()
        assert not re.search(r"https?:|fetch|XMLHttp|import\(", ours)


def test_its_numbers_are_those_of_the_findings():
    found = shown(text_model(), "a<b>&c\n")
    seen = read(found)
    assert json.loads(seen.scripts["numbers"]) == json.loads(json.dumps(found.numbers()))
    assert len(seen.scripts) == 3
    assert "<" not in seen.scripts["numbers"]  # <!-- is a token, and would hide what follows


def test_every_part_has_its_place_and_caption():
    seen = read(shown(sort_model(), "2 0 1 0"))
    assert {*CAPTIONS} <= {*seen.ids}
    assert {"layer", "of-head", "of-token", "numbers"} <= {*seen.ids}
    assert len(seen.ids) == len({*seen.ids})
    text = " ".join(" ".join(seen.texts).split())
    for title, _ in CAPTIONS.values():
        assert title in text
    assert "Inside a <b> & c" in text
    assert "its mean over the text stands in the place" in text


def test_ids_that_the_script_asks_for_are_those_of_the_page():
    ours = (page_module.HERE / "page.js").read_text()
    asked = {*re.findall(r'byId\("([\w-]+)"\)', ours), *re.findall(r'Plotly.react\("(\w+)"', ours)}
    assert asked <= {*read(shown(sort_model(), "2 0 1 0")).ids}


def test_question_answer_and_right_answer_stand_in_a_table():
    found = shown(sort_model(), "2 0 1 0")
    found.text.answer, found.text.right = [0, 1, 1, 2], [0, 0, 1, 2]
    html = page(found, "sort", "", "mean")
    (row,) = re.findall(r"<th>answer</th>.*", html)
    assert re.findall(r'token (right|wrong)">(\d)', row) == [
        ("right", "0"),
        ("wrong", "1"),
        ("right", "1"),
        ("right", "2"),
    ]


def test_without_plotly_the_page_shows_the_pngs(monkeypatch):
    monkeypatch.setattr(page_module, "has_plotly", lambda: False)
    seen = read(shown(sort_model(), "2 0 1 0"))
    assert not seen.scripts
    assert {*seen.fetched} == {"data:,", *ALL, "answer.png"}
    assert seen.fetched.count("scores.png") == 1
