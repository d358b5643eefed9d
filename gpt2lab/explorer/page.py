"""The page: what is where, and which act of a user shows what."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from gpt2lab.config import SamplingConfig
from gpt2lab.errors import DataError
from gpt2lab.explorer import views
from gpt2lab.explorer.session import MOST_CHARACTERS, MOST_NEW_TOKENS, Explorer, Session

HERE = Path(__file__).parent
FONTS: dict[str, Any] = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["ui-monospace", "monospace"],
}
"""The reader's own: gradio's themes would fetch theirs from elsewhere."""
VIEWS = ("attention", "lens", "tokenizer")
MOST_UNITS = 2 * (MOST_CHARACTERS + 1)
"""Of UTF-16, in which a browser counts; a character has one or two."""
MOST_WAITING = 500
"""Acts of all browsers that are put in line; hardly more than one browser's."""
MOST_SESSIONS = 50
"""Browser windows whose texts are kept; gradio's 10,000 would fill the memory."""
TEXT_BOX = """\
<label>Text<textarea rows="3" spellcheck="false" autocomplete="off" autofocus
placeholder="{placeholder}"></textarea></label>"""


def theme() -> Any:
    """Orange so dark that white on it, and it on white, can be read."""
    default = gr.themes.Default(primary_hue="orange", neutral_hue="gray", **FONTS)
    return default.set(
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def page(explorer: Explorer, title: str) -> gr.Blocks:
    """The page as gradio serves it."""
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as blocks:
        Page(explorer, title, blocks)
    blocks.queue(api_open=False, max_size=MOST_WAITING)
    blocks.state_session_capacity = MOST_SESSIONS
    return blocks


class Page:
    """Built within a `gr.Blocks`."""

    def __init__(self, explorer: Explorer, title: str, blocks: gr.Blocks) -> None:
        self.explorer = explorer
        self.is_alone = len(explorer.sides) == 1
        self.tabs: list[tuple[gr.Tab, str]] = []
        self.session = gr.State(Session(explorer.text_of("")))
        self.view = gr.State(VIEWS[0])
        gr.HTML(f"<h1>{views.escape(title)}</h1>", elem_id="title")
        # gradio's own box tells of keys alone, not of what is pasted or deleted
        self.text = gr.HTML(
            "",
            elem_id="text",
            html_template=TEXT_BOX.format(placeholder=views.escape(self._placeholder())),
            js_on_load=_script("text").replace("MOST)", f"{MOST_UNITS})"),
        )
        self.search = gr.Textbox(visible=False)
        self.status = gr.HTML(elem_id="status", js_on_load=_script("status"))
        with gr.Row(elem_id="acts"):
            self.samples = [
                gr.Button(
                    self._sample_name(i), variant="primary", elem_id=f"sample{i}", min_width=90
                )
                for i in range(len(explorer.sides))
            ]
            self.stop = gr.Button("Stop", elem_id="stop", min_width=90)
            self.undo = gr.Button("Undo", elem_id="undo", min_width=90)
        with gr.Accordion("How it samples", open=False, elem_id="sampling"):
            self.sampling = self._sampling()
        with gr.Row(elem_id="now"):
            self.nows = [self._side(i, "now") for i in range(len(explorer.sides))]
        with gr.Tabs(elem_id="views"):
            self._attention_tab()
            self.lenses = self._tab("Logit lens", "lens")
            self.stages = self._tab("Tokens", "tokenizer")
        self._wire(blocks)

    def _placeholder(self) -> str:
        speech = self.explorer.sides[0].speech
        if speech.question_tokens is None:
            return "Type a text"
        top = speech.tokenizer.vocab_size
        digits = [(7 * i + 2) % top for i in range(speech.question_tokens)]
        return f"Type {speech.question_tokens} digits, such as {speech.tokenizer.decode(digits)}"

    def _sample_name(self, index: int) -> str:
        return "Sample" if self.is_alone else f"Sample with {self.explorer.sides[index].name}"

    def _sampling(self) -> list[Any]:
        with gr.Row():
            return [
                gr.Slider(
                    1, MOST_NEW_TOKENS, 20, step=1, label="Tokens", info="at most", elem_id="count"
                ),
                gr.Slider(0, 3, 1, step=0.05, label="Temperature", info="0: the likeliest"),
                gr.Slider(0, 200, 40, step=1, label="Top-k", info="0: all"),
                gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", info="1: all"),
            ]

    def _side(self, index: int, kind: str) -> gr.HTML:
        with gr.Column(min_width=300):
            if not self.is_alone:
                gr.HTML(f"<h2>{views.escape(self.explorer.sides[index].name)}</h2>")
            return gr.HTML(elem_id=f"{kind}{index}", js_on_load=_script(kind))

    def _tab(self, title: str, kind: str) -> list[gr.HTML]:
        with gr.Tab(title, elem_id=f"{kind}-tab") as tab, gr.Row():
            found = [self._side(i, kind) for i in range(len(self.explorer.sides))]
        self.tabs.append((tab, kind))
        return found

    def _attention_tab(self) -> None:
        self.layers: list[Any] = []
        self.heads: list[Any] = []
        self.attentions: list[gr.HTML] = []
        with gr.Tab("Attention", elem_id="attention-tab") as tab, gr.Row():
            for i, side in enumerate(self.explorer.sides):
                config = side.model.config
                with gr.Column(min_width=300):
                    with gr.Row(elem_classes="pair"):
                        layers = [str(n) for n in range(config.n_layer)]
                        heads = [views.MEAN, *(str(n) for n in range(config.n_head))]
                        for choices, value, name, kept in (
                            (layers, layers[-1], "layer", self.layers),
                            (heads, heads[0], "head", self.heads),
                        ):
                            chosen = gr.Dropdown(
                                choices, value=value, label=name.capitalize(), filterable=False,
                                min_width=100, elem_id=f"{name}{i}", interactive=True,
                            )  # fmt: skip
                            kept.append(chosen)
                    self.attentions.append(self._side(i, "attention"))
        self.tabs.append((tab, "attention"))

    def _wire(self, blocks: gr.Blocks) -> None:
        """Which act shows what. All of them wait for one another.

        gradio passes over an act that comes before the same one is done ("once"), unless it is told
        to take them all, or the last one.
        """
        alone: dict[str, Any] = {
            "concurrency_id": "model",
            "concurrency_limit": 1,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        every: dict[str, Any] = {"trigger_mode": "multiple"}
        last: dict[str, Any] = {"trigger_mode": "always_last"}
        shown = [self.text, *self._shown_without_text()]
        samples: list[Any] = [
            button.click(self._sampling_with(i), [self.session, *self.sampling], shown, **alone)
            for i, button in enumerate(self.samples)
        ]
        acts: list[Any] = [
            *samples,
            blocks.load(self._opened, self.search, shown, js="() => [location.search]", **alone),
            self.text.input(
                self._typed,
                [self.session, self.text],
                self._shown_without_text(),
                cancels=samples,
                **last,
                **alone,
            ),
            self.undo.click(self._undone, self.session, shown, cancels=samples, **every, **alone),
            *(
                now.select(
                    self._choosing(i), self.session, shown, cancels=samples, **every, **alone
                )
                for i, now in enumerate(self.nows)
            ),
        ]
        self.stop.click(None, cancels=samples, api_visibility="private")
        acts += [
            tab.select(lambda kind=kind: kind, None, self.view, **every, **alone)
            for tab, kind in self.tabs
        ]
        seen = [self.session, self.view, *self.layers, *self.heads]
        looked_into = [*self.attentions, *self.lenses, *self.stages]
        for act in acts:
            act.then(self._looked, seen, looked_into, **last, **alone)
        for chosen in [*self.layers, *self.heads]:
            chosen.change(self._looked, seen, looked_into, **last, **alone)

    def _shown_without_text(self) -> list[Any]:
        """While it is typed, the text stays as the browser has it."""
        return [self.session, self.status, *self.nows]

    def _show(self, session: Session, problem: str | None = None) -> list[Any]:
        said = problem or session.note
        address = views.escape(self.explorer.address(session))
        status = f'<div role="status" data-search="{address}">' + (
            f"{views.note(said, problem is not None) if said else ''}</div>"
        )
        sides = enumerate(self.explorer.sides)
        return [session, status, *(views.now(side, session.now, i) for i, side in sides)]

    def _showing(self, session: Session, problem: str | None = None) -> list[Any]:
        # Half a character, of which JSON knows nothing, becomes a question mark.
        text = session.now.text.encode(errors="replace").decode()
        return [f"{session.num_typed}:{text}", *self._show(session, problem)]

    def _opened(self, search: str) -> list[Any]:
        return self._showing(self.explorer.opened(search))

    def _typed(self, session: Session, value: str) -> list[Any]:
        num_typed, _, text = value.partition(":")
        return self._show(self.explorer.typed(session, text, int(num_typed)))

    def _undone(self, session: Session) -> list[Any]:
        return self._showing(self.explorer.undone(session))

    def _choosing(self, index: int) -> Callable[..., list[Any]]:
        def chosen(session: Session, event: gr.EventData) -> list[Any]:
            token = (event._data or {}).get("token")
            try:
                if not isinstance(token, int):
                    raise DataError("token: is no number; choose one that is shown")
                return self._showing(self.explorer.chosen(session, index, token))
            except DataError as error:
                return self._showing(session, str(error))

        return chosen

    def _sampling_with(self, index: int) -> Callable[..., Iterator[list[Any]]]:
        def sampled(
            session: Session, count: float, temperature: float, top_k: float, top_p: float
        ) -> Iterator[list[Any]]:
            sampling = SamplingConfig(
                temperature=temperature, top_k=int(top_k) or None, top_p=top_p
            )
            try:
                for after in self.explorer.sampled(session, index, int(count), sampling):
                    yield self._showing(after)
            except DataError as error:
                yield self._showing(session, str(error))

        return sampled

    def _looked(self, session: Session, view: str, *chosen: str) -> list[Any]:
        """What the open tab shows; the others wait until they are open."""
        sides = list(enumerate(self.explorer.sides))
        layers, heads = chosen[: len(sides)], chosen[len(sides) :]
        shown: dict[str, list[Any]] = {kind: [gr.skip()] * len(sides) for kind in VIEWS}
        if view == "attention":
            shown[view] = [
                views.attention_view(side, session.now, i, int(layers[i]), heads[i])
                for i, side in sides
            ]
        elif view == "lens":
            shown[view] = [views.lens_view(side, session.now, i) for i, side in sides]
        else:
            shown[view] = [views.tokenizer_view(side, session.now, i) for i, side in sides]
        return [part for kind in VIEWS for part in shown[kind]]


def style() -> str:
    return (HERE / "page.css").read_text("utf-8")


def _script(kind: str) -> str:
    """What runs within one part of the page: a section of page.js that bears its name."""
    _, *sections = (HERE / "page.js").read_text("utf-8").split("// --- ")
    scripts = dict(section.split("\n", 1) for section in sections)
    return scripts[kind]
