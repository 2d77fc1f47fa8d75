// One training run on screen: status, grids with their history, and curves. props.value is what run_view.py made;
// server.picture brings a grid. Text is only ever set as text.
const {h, button} = studio;
const SVG = "http://www.w3.org/2000/svg", KEEP = 200, FRAME_MS = 140, GUTTER = 34;
const root = element.firstElementChild;

const chip = h("span", {class: "tr-chip"}), name = h("span", {class: "tr-name"}), goal = h("span", {class: "tr-goal"});
const fill = h("div", {class: "tr-fill"});
const bar = h("div", {class: "tr-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Progress"}, fill);
const facts = h("dl", {class: "tr-facts"}), said = h("p", {class: "tr-said", role: "status"});
const fake = h("img", {alt: "", class: "tr-grid", id: "train-fakes"}), real = h("img", {alt: "", class: "tr-grid", id: "train-reals"});
function put(image, src, words) {   // without a picture there is nothing to describe
  if (!src) image.removeAttribute("src"); else if (image.src !== src) image.src = src;
  image.alt = src ? words : "";
}
const when = h("b", {});
const range = h("input", {type: "range", min: 0, max: 0, step: 1, value: 0, id: "train-scrub", "aria-label": "History of the generated grid"});
const first = h("span", {class: "tr-end"}), last = h("span", {class: "tr-end"});
const play = button(null, "Play the history", () => timer ? stopPlaying() : startPlaying(), "Play", "tr-play");
const open = button(null, "Open the saved model nearest to this grid in Explore", openModel, "Open in Explore", "tr-open");
open.id = "train-open";
const charts = h("div", {class: "tr-charts"});
const verdict = h("b", {class: "tr-word"}), because = h("span", {}), advice = h("span", {class: "tr-advice"});
const judged = h("p", {class: "tr-verdict", id: "train-verdict", role: "status"}, verdict, because, " ", advice);
const SHEETS = {reals: "Training pictures", augmented: "What the discriminator sees", nearest: "Generated | nearest training picture"};
const choice = h("select", {class: "tr-sheet", id: "train-sheet", "aria-label": "Pictures beside the generated grid"});
choice.addEventListener("change", () => showReals());
const LIVE = {gamma: ["R1 gamma", 0.01], lr: ["Learning rate", 0.0001], ada_target: ["ADA target", 0.05], ada_cap: ["ADA limit", 0.05]};
const knobs = Object.fromEntries(Object.entries(LIVE).map(([key, [, step]]) => [key, h("input", {type: "number", min: 0, step: "any", "data-step": step, id: `train-live-${key}`})]));
const apply = button(null, "Change these settings of the run at its next tick", change, "Apply", "tr-apply");
apply.id = "train-live-apply";
const answered = h("span", {class: "tr-answer", role: "status"});
const live = h("details", {class: "tr-live", id: "train-live"}, h("summary", {}, "Change while it trains"),
  h("div", {class: "tr-knobs"}, ...Object.entries(LIVE).map(([key, [label]]) => h("label", {}, label, knobs[key])), apply, answered));
async function change() {
  const values = {};
  for (const [key, knob] of Object.entries(knobs)) if (knob.value !== "" && Number(knob.value) !== view.live?.[key]) values[key] = Number(knob.value);
  const answer = await server.change({run: view.run, values}).catch(() => ({error: "The page has lost its connection; reload it."}));
  answered.textContent = answer.error || answer.words; answered.classList.toggle("tr-alarm", Boolean(answer.error));
}
const body = h("div", {class: "tr-body"},
  h("div", {class: "tr-head"}, chip, name, goal), bar, facts, said, judged,
  h("div", {class: "tr-pictures"},
    h("figure", {class: "tr-left"}, h("figcaption", {}, "Generated, always the same seeds ", when), fake),
    h("figure", {class: "tr-right"}, h("figcaption", {}, choice), real)),
  h("div", {class: "tr-scrub"}, play, first, range, last, open), live, charts);
const empty = h("div", {class: "tr-empty"}, h("b", {}), h("span", {}));
function sayEmpty(title, words) { empty.firstChild.textContent = title; empty.lastChild.textContent = words; }
root.replaceChildren(empty, body);

// --- pictures: fetched once, kept for the scrubber -------------------------------------------------------------------
let view = {run: null}, pictures = new Map(), at = -1, follow = true, timer = 0, loading = 0;

async function picture(key, question) {
  if (!pictures.has(key)) {
    const answer = await server.picture(question);
    if (!answer.src) return null;
    pictures.set(key, answer.src);
    if (pictures.size > KEEP) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(key);
}
async function show(index) {
  const samples = view.samples || [];
  at = Math.max(0, Math.min(index, samples.length - 1));
  range.value = at;
  range.style.setProperty("--to", `${samples.length > 1 ? 100 * at / (samples.length - 1) : 100}%`);
  if (!samples.length) { put(fake, null); when.textContent = ""; return; }
  const [nimg, words] = samples[at], ticket = ++loading, newest = at === samples.length - 1;
  const src = await picture(`${view.run}/${nimg}/${newest ? view.newest : ""}`, {run: view.run, nimg}).catch(() => null);
  if (ticket !== loading || !src) return;
  put(fake, src, "Pictures generated from fixed seeds");
  when.textContent = `at ${words}`;
  element.dataset.nimg = nimg;
  drawCharts();
}
async function showReals() {
  const run = view.run, sheet = choice.value || "reals", key = `${run}/${sheet}${sheet === "reals" ? "" : `/${view.snapshots.length}`}`;
  const src = (view.sheets || []).includes(sheet) ? await picture(key, {run, sheet}).catch(() => null) : null;
  if (run === view.run && sheet === (choice.value || "reals")) put(real, src, SHEETS[sheet]);
}
function startPlaying() {
  const num = view.samples.length;
  if (num < 2) return;
  let place = at >= num - 1 ? 0 : at;
  play.textContent = "Pause"; follow = false;
  const step = async () => {
    await show(place++);
    if (place < view.samples.length) timer = setTimeout(step, FRAME_MS); else { follow = true; stopPlaying(); }
  };
  timer = setTimeout(step, 0);
}
function stopPlaying() { clearTimeout(timer); timer = 0; play.textContent = "Play"; }
range.addEventListener("input", () => {
  stopPlaying();
  follow = Number(range.value) === view.samples.length - 1;
  show(Number(range.value));
});
function openModel() { trigger("open_model", {nimg: view.samples.length ? view.samples[at][0] : 0}); }

// --- curves: small multiples over images seen, one crosshair for all ---------------------------------------------------
const node = (tag, attributes) => {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const short = v => v === 0 ? "0" : Math.abs(v) >= 1000 ? `${+(v / 1000).toFixed(1)}k` : String(+v.toPrecision(Math.abs(v) < 0.1 ? 2 : 3));
const shortX = v => v < 1 ? String(Math.round(v * 1000)) : `${+v.toFixed(v < 10 ? 1 : 0)}k`;
let hover = null;

function limits(chart) {
  const values = chart.lines.flatMap(line => line.y.filter(v => v !== null)).sort((a, b) => a - b);
  const cut = Math.floor(values.length / 100);   // one wild point in a hundred may leave the frame
  let low = chart.low ?? values[cut], high = chart.high ?? values[values.length - 1 - cut];
  if (chart.high === undefined) for (const mark of chart.marks) high = Math.max(high, mark.y);
  if (!(high > low)) { high = low + Math.max(Math.abs(low) * 0.1, 0.1); if (chart.low === undefined) low -= high - low; }
  return [low, high];
}
function drawChart(chart, card) {
  const width = Math.max(card.clientWidth, 120), height = 84, left = GUTTER, right = width - 2, top = 6, bottom = height - 15;
  const [low, high] = limits(chart), lastX = chart.x[chart.x.length - 1] || 1, firstX = chart.x.length > 1 ? chart.x[0] : 0;
  const px = x => left + (right - left) * (x - firstX) / ((lastX - firstX) || 1);
  const py = y => Math.max(top - 3, Math.min(bottom + 3, bottom - (bottom - top) * (y - low) / (high - low)));
  const svg = node("svg", {width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"});
  for (const y of [low, high]) svg.append(node("line", {class: "tr-rule", x1: left, x2: right, y1: py(y), y2: py(y)}));
  for (const mark of chart.marks) if (mark.y >= low && mark.y <= high)
    svg.append(node("line", {class: `tr-mark tr-${mark.ink}`, x1: left, x2: right, y1: py(mark.y), y2: py(mark.y)}));
  for (const line of chart.lines) {
    let path = "", pen = false;
    line.y.forEach((y, i) => { if (y !== null) { path += `${pen ? "L" : "M"}${px(chart.x[i]).toFixed(1)} ${py(y).toFixed(1)}`; pen = true; } });
    svg.append(node("path", {class: `tr-line tr-${line.ink}`, d: path}));
    const i = line.y.findLastIndex(y => y !== null);
    svg.append(node("circle", {class: `tr-dot tr-${line.ink}`, cx: px(chart.x[i]), cy: py(line.y[i]), r: 2.5}));
  }
  const label = (x, y, text, anchor) => { const t = node("text", {x, y, class: "tr-axis", "text-anchor": anchor}); t.textContent = text; svg.append(t); };
  label(left, height - 3, shortX(firstX), "start"); label(right, height - 3, shortX(lastX), "end");
  label(left - 5, top + 4, short(high), "end"); label(left - 5, bottom + 3, short(low), "end");
  const scrubbed = !follow && view.samples.length ? view.samples[at][0] / 1000 : null, place = hover ?? scrubbed;
  if (place !== null && place >= firstX && place <= lastX)
    svg.append(node("line", {class: "tr-cross", x1: px(place), x2: px(place), y1: top, y2: bottom}));
  card.lastElementChild.replaceWith(svg);
  legend(chart, card.querySelector(".tr-legend"), place);
}
function point(event) {
  const card = event.target.closest(".tr-chart"), chart = card && view.charts[[...charts.children].indexOf(card)];
  const box = card?.lastElementChild.getBoundingClientRect(), firstX = chart?.x.length > 1 ? chart.x[0] : 0;
  const wanted = !card || event.type === "pointerleave" || event.clientY < box.top ? null
    : firstX + (chart.x[chart.x.length - 1] - firstX) * Math.max(0, Math.min(1, (event.clientX - box.left - GUTTER) / (box.width - GUTTER)));
  if (wanted !== hover) { hover = wanted; drawCharts(); }
}
for (const kind of ["pointermove", "pointerleave"]) charts.addEventListener(kind, point);
function legend(chart, place, x) {
  let i = chart.x.length - 1;
  if (x !== null) { const after = chart.x.findIndex(value => value >= x); if (after >= 0) i = after; }
  place.replaceChildren(...chart.lines.map(line => {
    const value = line.y[i] ?? (x === null ? line.y.findLast(y => y !== null) : null);
    return h("span", {class: `tr-value tr-${line.ink}`}, chart.lines.length > 1 ? h("i", {}, line.name) : null, value == null ? "–" : short(value));
  }), ...chart.marks.map(mark => h("span", {class: `tr-value tr-goal-mark tr-${mark.ink}`}, h("i", {}, mark.name), short(mark.y))));
}
let due = 0;
function drawCharts() {
  if (due) return;
  due = requestAnimationFrame(() => {
    due = 0;
    if (!element.offsetParent) return;
    (view.charts || []).forEach((chart, i) => drawChart(chart, charts.children[i]));
  });
}
function layCharts() {
  const ids = (view.charts || []).map(chart => chart.id).join();
  if (charts.dataset.ids !== ids) {
    charts.dataset.ids = ids;
    charts.replaceChildren(...(view.charts || []).map(chart => h("div", {class: "tr-chart", title: chart.meaning, id: `curve-${chart.id}`},
      h("div", {class: "tr-title"}, h("span", {}, chart.title), h("span", {class: "tr-legend"})), h("div", {}))));
  }
  drawCharts();
}
new ResizeObserver(drawCharts).observe(charts);

// --- the whole -------------------------------------------------------------------------------------------------------
function update() {
  const before = view.run;
  view = props.value || {run: null};
  if (props.value) sayEmpty("No run yet", "Choose pictures and press Start training: the first grid is here within seconds. Closing the page stops nothing.");
  else sayEmpty("", "Looking for runs…");
  root.classList.toggle("tr-none", !view.run);
  element.dataset.run = view.run || ""; element.dataset.state = view.state || "";
  if (view.run !== before) { stopPlaying(); follow = true; at = -1; pictures = new Map(); }
  if (!view.run) return;
  chip.textContent = view.word; chip.dataset.state = view.state;
  name.textContent = view.run; goal.textContent = view.goal; said.textContent = view.said;
  const percent = Math.round(100 * view.fraction);
  fill.style.width = `${Math.max(100 * view.fraction, 0.4)}%`; bar.dataset.state = view.state; bar.setAttribute("aria-valuenow", percent);
  facts.replaceChildren(...view.facts.map(([what, value, meaning]) =>
    h("div", {title: meaning, class: what === "NaN" && value !== "0" ? "tr-alarm" : ""}, h("dt", {}, what), h("dd", {}, value))));
  const num = view.samples.length;
  range.max = Math.max(num - 1, 0);
  first.textContent = num > 1 ? view.samples[0][1] : ""; last.textContent = num > 1 ? view.samples[num - 1][1] : "";
  root.classList.toggle("tr-short", num < 2); root.classList.toggle("tr-unsaved", !view.snapshots.length);
  root.classList.toggle("tr-blank", !num);
  judged.dataset.verdict = view.verdict?.name || "";
  verdict.textContent = view.verdict?.name || ""; because.textContent = view.verdict?.reason || ""; advice.textContent = view.verdict?.advice || "";
  const settings = view.live || {};
  live.hidden = !Object.keys(settings).length;
  if (!live.contains(document.activeElement)) for (const [key, knob] of Object.entries(knobs)) knob.value = settings[key] == null ? "" : +settings[key].toPrecision(6);
  if (view.run !== before) answered.textContent = "";
  const sheets = view.sheets || [], chosen = choice.value;
  if ([...choice.options].map(option => option.value).join() !== sheets.join()) {
    choice.replaceChildren(...sheets.map(sheet => h("option", {value: sheet}, SHEETS[sheet])));
    choice.value = sheets.includes(chosen) ? chosen : sheets[0] || "";
  }
  show(follow ? num - 1 : at);
  showReals();
  layCharts();
}
watch("value", update);
update();
