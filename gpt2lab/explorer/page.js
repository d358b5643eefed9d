// Each section runs within one part of the page: `element` is the part, `trigger` tells the server
// of an event, `watch` calls back when the server has sent something else.
// --- status
const follow = () => {
  const shown = element.querySelector("[data-search]");
  if (shown) history.replaceState(null, "", location.pathname + (shown.dataset.search === "?" ? "" : shown.dataset.search));
};
watch("value", follow);
follow();
// --- text
const area = element.querySelector("textarea");
// The value is "3:text": how often a text was sent from here, as far as the sender knows, and the text.
// What is longer than MOST is refused: it need not be sent.
let waiting = null, count = 0;
const own = () => `${count}:${area.value.slice(0, MOST)}`;
area.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    waiting = null;
    count += 1;
    props.value = own();
    trigger('input');
  }, 60);
});
watch("value", () => {
  const [, known, text] = /^(\d+):([^]*)$/.exec(props.value ?? "") ?? [null, "0", ""];
  // An answer to what was done before the text that is on its way: that is to be read still.
  if (Number(known) < count) props.value = own();
  // Not while it is typed, and not what was typed: the cursor would go to its end.
  else if (waiting === null && props.value !== own()) area.value = text;
});
// --- now
element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button[data-token]");
  if (chosen) trigger('select', { token: Number(chosen.dataset.token) });
});
// --- attention
let rows = [], names = [], of = null, chosen = -1;
const show = (t, s) => {
  if (!rows[t]) return;
  chosen = t;
  element.querySelectorAll("[data-t]").forEach((chip, i) => {
    const weight = rows[t][i];
    chip.style.setProperty("--w", Math.sqrt(weight ?? 0));
    chip.classList.toggle("ahead", weight === undefined);
    chip.classList.toggle("looks", i === t);
    chip.querySelector("small").textContent = weight === undefined ? "–" : weight.toFixed(4);
  });
  element.querySelector(".row")?.setAttribute("y", t);
  const most = rows[t].map((weight, i) => [weight, i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  element.querySelector(".says").textContent = s === undefined
    ? `${names[t]} (${t}) looks most at ` + most.map(([weight, i]) => `${names[i]} (${i}) ${weight.toFixed(4)}`).join(", ")
    : `${names[t]} (${t}) looks at ${names[s]} (${s}): ${rows[t][s] === undefined ? "it is ahead" : rows[t][s].toFixed(4)}`;
};
const read = () => {
  const root = element.querySelector(".attention");
  if (!root) { rows = []; return; }
  const last = names.join("\n");
  rows = JSON.parse(root.dataset.rows);
  names = JSON.parse(root.dataset.names);
  show(names.join("\n") === last && chosen >= 0 ? chosen : rows.length - 1);
};
const point = (event) => {
  const chip = event.target.closest("[data-t]");
  if (chip) show(Number(chip.dataset.t));
  const picture = event.target.closest("svg");
  if (picture && event.type === "mousemove") {
    const box = picture.querySelector(".ground").getBoundingClientRect(), T = rows.length;
    const at = (x) => Math.min(T - 1, Math.max(0, Math.floor(x * T)));
    show(at((event.clientY - box.top) / box.height), at((event.clientX - box.left) / box.width));
  }
};
for (const kind of ["mouseover", "mousemove", "focusin", "click"]) element.addEventListener(kind, point);
watch("value", read);
read();
// --- lens
const tell = (event) => {
  const cell = event.target.closest("[data-says]");
  if (cell) element.querySelector(".says").textContent = cell.dataset.says;
};
for (const kind of ["mouseover", "focusin", "click"]) element.addEventListener(kind, tell);
const hint = () => {
  const wide = element.querySelector(".wide");
  wide?.classList.toggle("scrolls", wide.scrollWidth > wide.clientWidth);
};
new ResizeObserver(hint).observe(element);
watch("value", hint);
// --- tokenizer
// It answers to nothing.
