// One training run on screen: status, grids with their history, and curves. props.value is what run_view.py made;
// server.picture brings a grid. Text is only ever set as text.
const {h, button} = studio;
const SVG = "http://www.w3.org/2000/svg", KEEP = 200, FRAME_MS = 140, LOOK_MS = 500;
const GUTTER = 34, LOW = 84, HIGH = 230, NARROW = 190, SLIM = 150, TITLE = 20, GAP = 12, FOOT = 20;   // of charts, in pixels
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
const range = h("input", {type: "range", min: 0, max: 0, step: 1, value: 0, id: "train-scrub", "aria-label": "History of the generated grid"});
const first = h("span", {class: "tr-end"}), last = h("span", {class: "tr-end"});
const play = button(null, "Play the history", () => timer ? stopPlaying() : startPlaying(), "Play", "tr-play");
const open = button(null, "Open the saved model nearest to this grid in Explore", openModel, "Open in Explore", "tr-open");
open.id = "train-open";
const branch = button(null, "", branchHere, "Branch from here", "tr-branch");
branch.id = "train-branch";
const charts = h("div", {class: "tr-charts"});
const verdict = h("b", {class: "tr-word"}), because = h("span", {}), advice = h("span", {class: "tr-advice"});
const judged = h("p", {class: "tr-verdict", id: "train-verdict", role: "status"}, verdict, because, " ", advice);
const SHEETS = {reals: "Training pictures", augmented: "What the discriminator sees", nearest: "Generated | nearest training picture"};
const choice = h("select", {class: "tr-choice", id: "train-sheet", "aria-label": "Pictures beside the generated grid"});
choice.addEventListener("change", () => showReals());
const LIVE = {gamma: ["R1 gamma", 0.01], lr: ["Learning rate", 0.0001], ada_target: ["ADA target", 0.05], ada_cap: ["ADA limit", 0.05]};
const knobs = Object.fromEntries(Object.entries(LIVE).map(([key, [, step]]) => [key, h("input", {type: "number", min: 0, step: "any", "data-step": step, id: `train-live-${key}`})]));
const typed = new Set();   // what a person has typed stays until the run has it
for (const [key, knob] of Object.entries(knobs)) knob.addEventListener("input", () => typed.add(key));
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
const REELS = {grid: ["Grid", "The generated pictures, with their history"], walk: ["Walk", "Faces in motion: a walk through the latent space of the snapshot at this moment"],
  film: ["Film", "All grids of the run so far, one after the other"]};
const MAKING = {walk: "Drawing the walk", film: "Filming the grids"}, MADE = {walk: "Walk through latent space ", film: "All grids "};
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const reel = h("video", {class: "tr-grid", id: "train-reel", muted: true, loop: true, autoplay: !still, playsInline: true, controls: true, hidden: true});
const pace = h("progress", {max: 1, "aria-label": "Progress of the film"}), paceWords = h("span", {});
const making = h("div", {class: "tr-making", id: "train-making", role: "status", hidden: true}, paceWords, pace);
const keep = h("a", {class: "sg-button", id: "train-reel-download", title: "Download this film as mp4"}, studio.icon("download"), "mp4");
const anew = button(null, "There is something newer: make this film again", () => roll(shown.kind, true), "Newer", "tr-anew");
anew.id = "train-reel-anew";
const reelSaid = h("span", {class: "tr-answer tr-alarm", role: "status"});
const reels = Object.fromEntries(Object.entries(REELS).map(([kind, [text, title]]) =>
  [kind, h("button", {type: "button", class: "sg-choice", id: `train-reel-${kind}`, title, onclick: () => roll(kind)}, text)]));
const what = h("span", {}), when = h("b", {});
const body = h("div", {class: "tr-body"},
  h("div", {class: "tr-head"}, chip, name, goal), bar, facts, said, judged,
  h("div", {class: "tr-pictures"},
    h("figure", {class: "tr-left"}, h("figcaption", {}, h("span", {}, what, when),
        h("div", {class: "sg-segments", role: "group", "aria-label": "What is shown of the run"}, ...Object.values(reels))),
      h("div", {class: "tr-place"}, fake, reel, making), h("div", {class: "tr-reel-line"}, keep, anew), reelSaid),
    h("figure", {class: "tr-right"}, h("figcaption", {}, choice), real)),
  h("div", {class: "tr-scrub"}, play, first, range, last, branch, open), live, charts);
const empty = h("div", {class: "tr-empty"}, h("b", {}), h("span", {}));
function sayEmpty(title, words) { empty.firstChild.textContent = title; empty.lastChild.textContent = words; }
root.replaceChildren(empty, body);

// --- pictures: fetched once, kept for the scrubber -------------------------------------------------------------------
let view = {run: null}, pictures = new Map(), at = -1, follow = true, timer = 0, loading = 0, moment = "";

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
  if (!samples.length) { put(fake, null); moment = ""; paintReel(); return; }
  const [nimg, words] = samples[at], ticket = ++loading, newest = at === samples.length - 1;
  const src = await picture(`${view.run}/${nimg}/${newest ? view.newest : ""}`, {run: view.run, nimg}).catch(() => null);
  if (ticket !== loading || !src) return;
  put(fake, src, "Pictures generated from fixed seeds");
  const saved = view.snapshots.findLast(([seen]) => seen <= nimg) || view.snapshots[0];
  branch.title = saved ? `Fill the form with a new run that starts from the model saved at ${saved[1]}` : "";
  element.dataset.nimg = nimg; moment = `at ${words}`;
  paintReel();
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
  showGrid();
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
  showGrid();
  follow = Number(range.value) === view.samples.length - 1;
  show(Number(range.value));
});
function branchHere() {
  trigger("branch", {nimg: view.samples.length ? view.samples[at][0] : 0});
  const look = tries => {   // the field is made when its settings open
    const field = document.querySelector("#train-transfer");
    if (field) field.scrollIntoView({block: "center", behavior: "smooth"}); else if (tries) setTimeout(look, 100, tries - 1);
  };
  look(100);
}
function openModel() { trigger("open_model", {nimg: view.samples.length ? view.samples[at][0] : 0}); }

// --- walk and film: made once on the server, then in the grid's place until the person wants the grid back --------------
let shown = null;   // {kind}, and once it is there {nimg, words, path, name}

async function roll(kind, newest = false) {
  stopPlaying();
  if (kind === "grid") return showGrid();
  if (newest && !follow) { follow = true; show(view.samples.length - 1); }
  const nimg = kind === "walk" && !follow && view.samples.length ? view.samples[at][0] : null;
  const mine = shown = {kind}, lost = {error: "The page has lost its connection; reload it."};
  paintReel();
  let answer = await server.film_begin({run: view.run, kind, nimg}).catch(() => lost);
  while (mine === shown && element.isConnected && answer.state === "making") {
    sayMaking(kind, answer);
    await new Promise(done => setTimeout(done, LOOK_MS));
    answer = await server.film_look({key: answer.key}).catch(() => answer);
  }
  if (mine !== shown) return;
  if (answer.error) { showGrid(); reelSaid.textContent = answer.error; return; }
  Object.assign(shown, answer);
  reel.src = keep.href = studio.fileAddress(answer.path);
  keep.download = answer.name;
  paintReel();
}
function sayMaking(kind, {done, total}) {
  making.hidden = false; reelSaid.textContent = "";
  pace.value = total ? done / total : 0;
  paceWords.textContent = total ? `${MAKING[kind]}: ${done} of ${total} frames` : `${MAKING[kind]}…`;
}
function showGrid() {
  shown = null;
  reelSaid.textContent = "";
  if (reel.src) { reel.pause(); reel.removeAttribute("src"); reel.load(); }
  paintReel();
}
function paintReel() {   // everything but the film itself, which plays on while the view is renewed
  const there = Boolean(shown?.path), samples = view.samples || [], kind = shown?.kind || "grid";
  fake.hidden = there; reel.hidden = !there;
  if (there || !shown) making.hidden = true;
  for (const [each, node] of Object.entries(reels)) node.setAttribute("aria-pressed", String(each === kind));
  reels.walk.disabled = !view.snapshots?.length; reels.film.disabled = samples.length < 2;
  what.textContent = there ? MADE[kind] : "Generated, fixed seeds ";
  when.textContent = there ? `${kind === "film" ? "up to" : "at"} ${shown.words}` : moment;
  reel.setAttribute("aria-label", `${what.textContent}${when.textContent}`);
  const all = kind === "walk" ? view.snapshots || [] : samples, newest = all[all.length - 1];
  keep.hidden = !there;
  anew.hidden = !there || !newest || newest[0] <= shown.nimg;
  anew.textContent = newest ? `Newer: ${newest[1]}` : "";
  element.dataset.reel = there ? kind : shown ? "making" : "grid";
}

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
// Charts grow where the window has room below them: as few columns as still show all of them without scrolling.
function chartSize(num) {
  const whole = charts.clientWidth, slim = innerWidth <= 760 ? SLIM : NARROW;
  const most = Math.max(1, Math.min(num, Math.floor((whole + GAP) / (slim + GAP)))), room = innerHeight - FOOT - charts.getBoundingClientRect().top - scrollY;
  for (let columns = Math.min(2, most); columns <= most; columns++) {
    const rows = Math.ceil(num / columns), width = Math.floor((whole + GAP) / columns) - GAP;
    const height = Math.floor(Math.min(HIGH, 0.62 * width, room / rows - TITLE - GAP));
    if (height >= 0.45 * width && height > LOW) return [columns, width, height];
  }
  return [most, Math.floor((whole + GAP) / most) - GAP, Math.max(LOW, Math.min(HIGH, Math.floor(room / Math.ceil(num / most)) - TITLE - GAP))];
}
function drawChart(chart, card, width, height) {
  const [low, high] = limits(chart), letters = Math.max(short(low).length, short(high).length);
  const left = chart.left = Math.max(GUTTER, 8 + 6 * letters), right = width - 2, top = 6, bottom = height - 15;
  const lastX = chart.x[chart.x.length - 1] || 1, firstX = chart.x.length > 1 ? chart.x[0] : 0;
  const px = x => left + (right - left) * (x - firstX) / ((lastX - firstX) || 1);
  const py = y => Math.max(top - 3, Math.min(bottom + 3, bottom - (bottom - top) * (y - low) / (high - low)));
  const svg = node("svg", {width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"});
  for (const y of height > 130 ? [low, (low + high) / 2, high] : [low, high]) svg.append(node("line", {class: "tr-rule", x1: left, x2: right, y1: py(y), y2: py(y)}));
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
  if (height > 130) label(left - 5, (top + bottom) / 2 + 4, short((low + high) / 2), "end");
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
    : firstX + (chart.x[chart.x.length - 1] - firstX) * Math.max(0, Math.min(1, (event.clientX - box.left - chart.left) / (box.width - chart.left)));
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
    const [columns, width, height] = chartSize((view.charts || []).length);
    charts.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    (view.charts || []).forEach((chart, i) => drawChart(chart, charts.children[i], width, height));
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
new ResizeObserver(drawCharts).observe(root.ownerDocument.documentElement);
addEventListener("resize", () => element.isConnected && drawCharts());

// --- the whole -------------------------------------------------------------------------------------------------------
function update() {
  const before = view.run;
  view = props.value || {run: null};
  if (props.value) sayEmpty("No run yet", "Choose pictures and press Start training: the first grid is here within seconds. Closing the page stops nothing.");
  else sayEmpty("", "Looking for runs…");
  root.classList.toggle("tr-none", !view.run);
  element.dataset.run = view.run || ""; element.dataset.state = view.state || "";
  if (view.run !== before) { stopPlaying(); follow = true; at = -1; pictures = new Map(); showGrid(); }
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
  if (view.run !== before) { answered.textContent = ""; typed.clear(); }
  for (const [key, knob] of Object.entries(knobs)) {
    const value = settings[key] == null ? "" : +settings[key].toPrecision(6);
    if (Number(knob.value) === value) typed.delete(key);
    if (!typed.has(key)) knob.value = value;
  }
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
