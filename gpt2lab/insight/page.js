"use strict";
const found = JSON.parse(document.getElementById("numbers").textContent);
const T = found.tokens.length, L = found.attention.length, H = found.attention[0].length;
const state = { layer: found.layer, head: found.head, token: found.token };
const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Plotly reads tags and entities in its texts; a token is text.
const safe = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const BRIEF = { "<|endoftext|>": "⟨end⟩" };  // whose beginning does not tell what it is
const cut = (text, most) => text.length > most ? text.slice(0, most - 1) + "…" : text;
const short = (text, most) => safe(cut(BRIEF[text] ?? text, most));
const places = [...Array(T).keys()];
const labels = found.tokens.map((token) => short(token, 14));
const numbered = found.tokens.map((token, t) => `${t}: ${safe(token)}`);
const OPTIONS = { displayModeBar: false, responsive: true };
/** How wide a picture is: no narrower, so that it scrolls on a small screen; no wider. */
function widths(id, least, most) {
  byId(id).parentElement.style.setProperty("--least", `${least}px`);
  byId(id).style.maxWidth = most ? `${most}px` : "";
}

/** On a screen that is narrower than a picture a line above it says that there is more. */
const wides = new ResizeObserver((changes) => changes.forEach(({ target: { parentElement: wide } }) =>
  wide.classList.toggle("scrolls", wide.scrollWidth > wide.clientWidth)));
document.querySelectorAll(".wide > .plot").forEach((plot) => wides.observe(plot));

function layout(height, more) {
  const font = { color: colour("--ink"), size: 12 };
  const paper = "rgba(0,0,0,0)";
  return { height, font, paper_bgcolor: paper, plot_bgcolor: paper, margin: { l: 8, r: 8, t: 30, b: 8 },
    dragmode: false, hoverlabel: { font: { family: "monospace" } }, ...more };
}
const axis = (more) => ({ automargin: true, exponentformat: "none", showgrid: false, zeroline: false, fixedrange: true,
  linecolor: colour("--line"), ...more });
const scale = () => [[0, colour("--none")], [.5, colour("--some")], [1, colour("--most")]];

// The square root of a weight is its colour: small ones, which most are, can be told apart.
const roots = (rows) => rows.map((row) => row.map((weight) => weight === null ? null : Math.sqrt(weight)));
const TICKS = [0, .1, .25, .5, 1];
const ofWeights = (title = "weight") => ({ zmin: 0, zmax: 1, colorscale: scale(), colorbar: { thickness: 12,
  title: { text: title, side: "right" }, tickvals: TICKS.map(Math.sqrt), ticktext: TICKS.map(String) } });

/**
 * Labels of tokens along the x axis, at the top or the bottom. Where no more than a third are long, those are turned
 * alone, which an axis cannot: they stand beside it, in `room`.
 */
function tokenTicks(tokens, side) {
  const texts = tokens.map((token) => cut(BRIEF[token] ?? token, 14)), long = texts.filter((text) => text.length > 2);
  const isAxis = 3 * long.length > texts.length, size = tokens.length > 24 ? 10 : 12;
  const ticks = { tickvals: texts.map((_, i) => i), tickfont: { size }, tickangle: isAxis ? -90 : 0,
    ticktext: texts.map((text) => isAxis || text.length <= 2 ? safe(text) : "") };
  const annotations = isAxis ? [] : texts.flatMap((text, i) => text.length <= 2 ? [] : [{ x: i, yref: "paper",
    y: side === "top" ? 1 : 0, yanchor: side === "top" ? "bottom" : "top", yshift: side === "top" ? 4 : -4,
    text: safe(text), hovertext: safe(tokens[i]), textangle: -90, showarrow: false, font: { size } }]);
  const room = isAxis || !long.length ? 0 : 12 + .65 * size * Math.max(...long.map((text) => text.length));
  return { ticks, annotations, room };
}

/** Attention of a head as a square, with nothing behind the token that looks. */
const square = (rows) => rows.map((row) => [...row, ...Array(T - row.length).fill(null)]);
const ofHead = () => found.attention[state.layer][state.head];

function drawSquare(id, rows) {
  const isWritten = T <= 16;
  const cell = isWritten ? 30 : T > 24 ? 13 : 20;  // a number has room, or a label
  const side = Math.max(300, cell * T + 140);
  const trace = { type: "heatmap", z: roots(square(rows)), ...ofWeights(), hoverongaps: false,
    hovertext: rows.map((row, t) => row.map((weight, s) => `${numbered[t]} looks at ${numbered[s]}<br>${weight.toFixed(4)}`)),
    hovertemplate: "%{hovertext}<extra></extra>", text: rows.map((row) => row.map((weight) => weight.toFixed(2))) };
  if (isWritten) { trace.texttemplate = "%{text}"; }
  const q = found.question_tokens, line = { color: colour("--accent"), width: 1.5 };
  const shapes = q === null || q >= T ? [] : [{ type: "line", line, x0: -.5, x1: q - .5, y0: q - .5, y1: q - .5 },
    { type: "line", line, x0: q - .5, x1: q - .5, y0: q - .5, y1: T - .5 }];  // between question and answer
  const { ticks, annotations, room } = tokenTicks(found.tokens, "top");
  widths(id, cell * T + 170, side + 90);
  Plotly.react(id, [trace], layout(side, { annotations, shapes,
    xaxis: axis({ ...ticks, side: "top", title: { text: "is looked at", standoff: Math.max(6, room - 12) } }),
    yaxis: axis({ tickvals: places, ticktext: labels, tickfont: ticks.tickfont, autorange: "reversed", title: { text: "looks" } }) }), OPTIONS);
}

function drawHeads() {
  const step = T + Math.max(1, Math.floor(T / 12));
  const z = Array.from({ length: L * step }, () => Array(H * step).fill(null));
  found.attention.forEach((heads, l) => heads.forEach((rows, h) => rows.forEach((row, t) =>
    row.forEach((weight, s) => { z[l * step + t][h * step + s] = weight; }))));
  const middles = (count) => [...Array(count).keys()].map((i) => i * step + (T - 1) / 2);
  const names = (count) => [...Array(count).keys()].map(String);
  const frames = [];
  for (let l = 0; l < L; l++) for (let h = 0; h < H; h++) {
    const chosen = l === state.layer && h === state.head;
    frames.push({ type: "rect", x0: h * step - .5, x1: h * step + T - .5, y0: l * step - .5, y1: l * step + T - .5,
      line: { color: colour(chosen ? "--accent" : "--line"), width: chosen ? 3 : 1 } });
  }
  const trace = { type: "heatmap", z: roots(z), customdata: z, ...ofWeights(), hoverongaps: false,
    hovertemplate: "%{customdata:.4f}<extra></extra>" };
  const node = byId("heads"), side = Math.max(40, Math.min(150, 1000 / Math.max(L, H)));
  widths("heads", side * H + 130, side * H + 130);
  Plotly.react(node, [trace], layout(side * L + 60, { shapes: frames,
    xaxis: axis({ tickvals: middles(H), ticktext: names(H), side: "top", title: { text: "head" } }),
    yaxis: axis({ tickvals: middles(L), ticktext: names(L), autorange: "reversed", title: { text: "layer" } }) }), OPTIONS);
  node.removeAllListeners("plotly_click");
  node.on("plotly_click", (event) => {
    const { x, y } = event.points[0];
    choose({ layer: Math.floor(y / step), head: Math.floor(x / step) });
  });
}

function drawArcs() {
  widths("arcs", 16 * T, 90 * T);
  const weights = ofHead()[state.token], t = state.token, shapes = [];
  weights.forEach((weight, s) => {
    if (s === t || weight < .005) return;
    shapes.push({ type: "path", path: `M ${t},0 C ${t},${(t - s) * .75} ${s},${(t - s) * .75} ${s},0`,
      line: { color: colour("--most"), width: .5 + 7 * weight }, opacity: .2 + .8 * weight });
  });
  const trace = { type: "scatter", mode: "markers", x: weights.map((_, s) => s), y: weights.map(() => 0),
    marker: { size: weights.map((weight) => 4 + 14 * weight), color: colour("--most"), opacity: 1 },
    customdata: weights, text: numbered.slice(0, t + 1), hovertemplate: "%{text}<br>%{customdata:.4f}<extra></extra>" };
  const { ticks, annotations, room } = tokenTicks(found.tokens, "bottom");
  Plotly.react("arcs", [trace], layout(340, { shapes, annotations, showlegend: false, margin: { l: 8, r: 8, t: 30, b: 8 + room },
    xaxis: axis({ ...ticks, range: [-.7, T - .3] }),
    yaxis: axis({ visible: false, range: [-.04 * Math.max(t, 1), .62 * Math.max(t, 1)] }) }), OPTIONS);
  const scrolled = byId("arcs").parentElement;
  scrolled.scrollLeft = scrolled.scrollWidth * (t + .5) / T - scrolled.clientWidth / 2;
}

function drawNext() {
  const tokens = found.lens.tokens[L][state.token], p = found.lens.probabilities[L][state.token];
  const ids = found.lens.token_ids[L][state.token], wanted = found.target_ids[state.token];
  const rows = tokens.map((_, i) => i);
  const trace = { type: "bar", orientation: "h", x: p, y: rows, text: p.map((x) => x.toFixed(4)), textposition: "outside",
    cliponaxis: false, hoverinfo: "skip",
    marker: { color: ids.map((id) => colour(id === wanted ? "--green" : "--most")) } };
  Plotly.react("next", [trace], layout(34 * rows.length + 70, { margin: { l: 8, r: 56, t: 30, b: 8 },
    xaxis: axis({ range: [0, Math.min(1, 1.25 * Math.max(...p, 1e-4))], title: { text: "probability" } }),
    yaxis: axis({ tickvals: rows, ticktext: tokens.map((token) => short(token, 18)), autorange: "reversed" }) }), OPTIONS);
  byId("next-of").textContent = `after token ${state.token}, “${found.tokens[state.token]}”`
    + (wanted === null ? ""
      : `; the ${found.wanted} is “${found.targets[state.token]}”, rank ${found.rank[state.token].toLocaleString("en")}`);
}

function drawLens() {
  const { tokens, token_ids: ids, probabilities } = found.lens;
  const pick = (what) => places.map((t) => what.map((layer) => layer[t][0]));
  const hover = places.map((t) => tokens.map((layer, l) => `after ${numbered[t]}<br>` + layer[t].slice(0, 5)
    .map((token, i) => `${probabilities[l][t][i].toFixed(4)} ${safe(token)}`).join("<br>")));
  const columns = tokens.map((_, l) => l);
  widths("lens", 74 * columns.length + 170, 130 * columns.length + 200);
  const written = pick(tokens).map((row, t) => row.map((token, l) =>
    ids[l][t][0] === found.target_ids[t] ? `<b>${short(token, 10)}</b>` : short(token, 10)));
  const trace = { type: "heatmap", z: pick(probabilities), zmin: 0, zmax: 1, colorscale: scale(), text: written,
    texttemplate: "%{text}", textfont: { size: 11 }, hovertext: hover, hovertemplate: "%{hovertext}<extra></extra>",
    colorbar: { title: { text: "probability", side: "right" }, thickness: 12 } };
  Plotly.react("lens", [trace], layout(26 * T + 90, {
    xaxis: axis({ tickvals: columns, ticktext: columns.map((l) => l ? `layer ${l - 1}` : "embedding"), side: "top" }),
    yaxis: axis({ tickvals: places, ticktext: labels, autorange: "reversed", title: { text: "after this token" } }) }), OPTIONS);
}

function drawLoss() {
  const shown = places.filter((t) => found.loss[t] !== null);
  widths("loss", 16 * shown.length, 90 * shown.length + 80);
  const { ticks, annotations, room } = tokenTicks(shown.map((t) => found.targets[t]), "bottom");
  const trace = { type: "bar", x: shown.map((_, i) => i), y: shown.map((t) => found.loss[t]),
    text: shown.map((t) => found.rank[t].toLocaleString("en")), textposition: "outside", cliponaxis: false,
    marker: { color: colour("--accent") },
    customdata: shown.map((t) => `${safe(found.targets[t])} after ${numbered[t]}`),
    hovertemplate: "%{customdata}<br>%{y:.4f} nats, rank %{text}<extra></extra>" };
  Plotly.react("loss", [trace], layout(300, { annotations,
    xaxis: axis({ ...ticks, title: { text: `the ${found.wanted}`, standoff: Math.max(6, room - 12) } }),
    yaxis: axis({ title: { text: "loss (nats)", standoff: 12 } }) }), OPTIONS);
}

const rounded = (value, digits) => (Number(value.toFixed(digits)) + 0).toFixed(digits);  // no -0.000
function drawScores() {
  for (const [id, table] of [["previous", found.previous_token], ["induction", found.induction], ["cost", found.ablation_cost]]) {
    if (!byId(id)) continue;
    widths(id, 34 * H + 120, 62 * H + 130);
    const isCost = id === "cost", most = Math.max(...table.flat().map(Math.abs), 1e-6);
    const colours = isCost ? { zmin: -most, zmax: most,
      colorscale: [[0, colour("--less")], [.5, colour("--none")], [1, colour("--more")]],
      colorbar: { thickness: 12, title: { text: "nats per token", side: "right" } } } : ofWeights("mean weight");
    const trace = { type: "heatmap", z: isCost ? table : roots(table), ...colours, customdata: table,
      text: table.map((row) => row.map((value) => rounded(value, isCost ? 3 : 2))),
      hovertemplate: "layer %{y}, head %{x}<br>%{customdata:.4f}<extra></extra>" };
    if (H <= 16) { trace.texttemplate = "%{text}"; }
    Plotly.react(id, [trace], layout(Math.max(180, 34 * L + 80), {
      shapes: [{ type: "rect", x0: state.head - .5, x1: state.head + .5, y0: state.layer - .5, y1: state.layer + .5,
        line: { color: colour("--accent"), width: 3 } }],
      xaxis: axis({ dtick: 1, side: "top", title: { text: "head" } }),
      yaxis: axis({ dtick: 1, autorange: "reversed", title: { text: "layer" } }) }), OPTIONS);
    byId(id).removeAllListeners("plotly_click");
    byId(id).on("plotly_click", (event) => choose({ layer: event.points[0].y, head: event.points[0].x }));
  }
}

function drawAnswer() {
  widths("answer", 28 * T, 80 * T);
  const rows = ofHead(), q = found.question_tokens, shapes = [], said = found.answer.map((_, i) => q + i);
  said.forEach((x) => rows[x - 1].forEach((weight, s) => {
    if (weight < .03) return;
    shapes.push({ type: "line", x0: x, x1: s, y0: .1, y1: .9,
      line: { color: colour("--most"), width: .4 + 8 * weight }, opacity: .08 + .92 * weight });
  }));
  const words = (x, y, text, colours) => ({ type: "scatter", mode: "text", x, y: x.map(() => y), hoverinfo: "skip",
    text: text.map((token) => `<b>${short(token, 8)}</b>`), textfont: { size: 15, color: colours } });
  const marks = { right: "--green", wrong: "--red", "": "--ink" }, signs = { right: "✓", wrong: "✗", "": "" };
  Plotly.react("answer", [
    words(places, 1, found.tokens, places.map((t) => colour(t < q ? "--ink" : "--pale"))),
    words(said, 0, found.answer, found.answer_marks.map((mark) => colour(marks[mark]))),
    words(said, -.13, found.answer_marks.map((mark) => signs[mark]), found.answer_marks.map((mark) => colour(marks[mark]))) ],
  layout(300, { shapes, showlegend: false,
    xaxis: axis({ visible: false, range: [-.7, T + .7] }),
    yaxis: axis({ tickvals: [0, 1], ticktext: ["said", "read"], range: [-.2, 1.15], showline: false }) }), OPTIONS);
}

function draw() {
  document.querySelectorAll(".text button").forEach((button, t) =>
    button.setAttribute("aria-pressed", String(t === state.token)));
  byId("layer").value = state.layer;
  byId("of-head").value = state.head;
  byId("of-token").value = state.token;
  document.querySelectorAll(".chosen").forEach((node) => { node.textContent = `layer ${state.layer}, head ${state.head}`; });
  drawNext();
  drawArcs();
  drawSquare("head", ofHead());
  drawHeads();
  drawScores();
  if (byId("answer")) drawAnswer();
}
function drawAll() {
  drawSquare("last_block", found.last_block);
  drawLens();
  if (byId("loss")) drawLoss();
  draw();
}
function choose(changes) {
  Object.assign(state, changes);
  draw();
}

function options(id, names, key) {
  byId(id).append(...names.map((name, i) => new Option(name, i)));
  byId(id).addEventListener("change", (event) => choose({ [key]: Number(event.target.value) }));
}
options("layer", [...Array(L).keys()].map(String), "layer");
options("of-head", [...Array(H).keys()].map(String), "head");
options("of-token", found.tokens.map((token, t) => `${t}: ${token}`), "token");
document.querySelectorAll(".text button").forEach((button, t) => button.addEventListener("click", () => choose({ token: t })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
