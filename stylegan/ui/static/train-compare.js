// All runs in a list, and up to six of them side by side. props.value = {num, run}; server.overview, thumbs,
// side_by_side, contents, remove and restore are run_list.py's. Text is only ever set as text.
const {h, button, icon} = studio;
const SVG = "http://www.w3.org/2000/svg", MOST = 6, EVERY_MS = 5000, KEEP = 240, LOST = {error: "The page has lost its connection; reload it."};
const LETTERS = "ABCDEF", COLUMNS = [["name", "Run"], ["nimg", "Seen"], ["speed", "img/s"], ["best", "Best KID"], ["verdict", "Verdict"]];
const root = element.firstElementChild;
const ask = (name, question) => server[name](question).catch(() => LOST);

let rows = [], mayRemove = false, more = false, chosen = [], sort = "", falling = true, timer = 0, asking = false, found = null, wanted = "";
const small = new Map(), large = new Map();   // thumbnails by name and moment, grids by run and moment

const count = h("span", {class: "tc-count"}), hint = h("span", {class: "tc-hint"});
const table = h("div", {class: "tc-table", role: "table", "aria-label": "All runs"});
const said = h("p", {class: "tc-said", role: "status"});
const sides = h("section", {class: "tc-sides", id: "runs-compared", "aria-label": "Runs side by side", hidden: true});
const panel = h("details", {class: "tc-panel", id: "runs-list"},
  h("summary", {}, "All runs ", count, hint), table, said, sides);
panel.addEventListener("toggle", () => { if (panel.open) look(); });
root.replaceChildren(panel);

// --- the list ---------------------------------------------------------------------------------------------------------
async function look() {
  clearTimeout(timer);
  if (!panel.open || !element.isConnected) return;
  if (!asking && element.offsetParent && !document.hidden) {
    asking = true;
    const answer = await ask("overview", {});
    asking = false;
    if (answer.error) said.textContent = answer.error;
    else {
      if (said.textContent === LOST.error) said.textContent = "";
      rows = answer.rows; mayRemove = answer.may_remove; more = answer.more;
      chosen = chosen.filter(name => rows.some(row => row.name === name));
      draw();
      fetchThumbs();
      refreshSides();
    }
  }
  clearTimeout(timer);
  timer = setTimeout(look, more ? 50 : EVERY_MS);
}
async function fetchThumbs() {
  const lacking = rows.filter(row => row.thumb && !small.has(`${row.name}/${row.thumb}`)).slice(0, 60);
  if (!lacking.length) return;
  const answer = await ask("thumbs", {runs: lacking.map(row => row.name)});
  for (const row of lacking) small.set(`${row.name}/${row.thumb}`, answer.src?.[row.name] || "");
  draw();
}
const keyOf = (row, column) => column === "best" ? (row.best ? row.best.value : Infinity) : row[column] ?? "";
function sorted() {
  if (!sort) return rows;
  const order = [...rows].sort((a, b) => {
    if (sort === "best" && (a.best?.name || "") !== (b.best?.name || "")) return (a.best?.name || "~") < (b.best?.name || "~") ? -1 : 1;
    const x = keyOf(a, sort), y = keyOf(b, sort);
    return (x < y ? -1 : x > y ? 1 : 0) * (falling ? -1 : 1);
  });
  return order;
}
function sortBy(column) {
  if (sort === column) { if (falling === (column === "nimg" || column === "speed")) falling = !falling; else sort = ""; }
  else { sort = column; falling = column === "nimg" || column === "speed"; }
  draw();
}
function head() {
  const cells = COLUMNS.map(([key, label]) => h("button", {type: "button", class: `tc-sort ${sort === key ? "tc-by" : ""}`, title: `Sort by ${label}`,
    onclick: () => sortBy(key)}, label, sort === key ? h("i", {"aria-hidden": "true"}, falling ? " ↓" : " ↑") : null));
  const [name, ...others] = cells.map((cell, i) => h("span", {role: "columnheader", class: `tc-${COLUMNS[i][0]}`}, cell));
  return h("div", {class: "tc-row tc-head", role: "row"}, h("span", {class: "tc-tick"}), h("span", {class: "tc-thumb"}), name, ...others, h("span", {class: "tc-act"}));
}
function line(row) {
  const place = chosen.indexOf(row.name);
  const tick = h("input", {type: "checkbox", class: "sg-box", checked: place >= 0, disabled: place < 0 && chosen.length >= MOST,
    title: place < 0 && chosen.length >= MOST ? `${MOST} runs are the most that are compared` : `Compare ${row.name}`, "aria-label": `Compare ${row.name}`, onchange: () => choose(row.name)});
  const picture = small.get(`${row.name}/${row.thumb}`);
  const name = h("button", {type: "button", class: "tc-open", title: `Show ${row.name}`, onclick: () => show(row.name)}, row.name);
  const cell = (key, ...content) => h("span", {role: "cell", class: `tc-${key}`}, ...content);
  const made = h("div", {class: `tc-row ${place >= 0 ? `tc-ink${place}` : ""} ${row.name === props.value?.run ? "tc-shown" : ""}`, role: "row"},
    cell("tick", h("label", {}, tick, place >= 0 ? h("b", {class: "tc-letter"}, LETTERS[place]) : null)),
    cell("thumb", picture ? h("img", {src: picture, alt: "", width: 44, height: 44, onclick: () => show(row.name)}) : h("span", {class: "tc-blank"})),
    cell("name", name, row.word ? h("span", {class: "tr-chip"}, row.word) : null),
    ...(row.state === undefined ? [cell("nimg", "…"), cell("speed"), cell("best"), cell("verdict")] : [
      cell("nimg", row.kimg), cell("speed", row.speed ? `${row.speed}` : "–"),
      cell("best", ...(row.best ? [h("b", {}, row.best.words), h("small", {}, `${row.best.name} · ${row.best.at}`)] : ["–"])),
      cell("verdict", h("b", {title: row.reason, class: "tc-word"}, row.verdict))]),
    cell("act", mayRemove && row.state && !["starting", "running", "stopping"].includes(row.state)
      ? button("trash", `Remove ${row.name}`, () => askRemoval(row.name), "", "tc-remove") : null));
  const chip = made.querySelector(".tr-chip");
  if (chip) chip.dataset.state = row.state;
  made.querySelector(".tc-verdict").dataset.verdict = row.verdict || "";
  made.dataset.run = row.name;
  return made;
}
function draw() {
  const focused = table.contains(document.activeElement) ? [...table.querySelectorAll("button, input")].indexOf(document.activeElement) : -1;
  const top = table.scrollTop;
  table.replaceChildren(head(), ...sorted().map(line));
  table.scrollTop = top;
  if (focused >= 0) table.querySelectorAll("button, input")[focused]?.focus({preventScroll: true});
  count.textContent = rows.length || props.value?.num || "";
  hint.textContent = panel.open ? `Tick two to ${MOST} to compare them; a name opens its run.` : "";
  element.dataset.rows = rows.filter(row => row.state).length;
}
function show(name) { panel.open = false; trigger("open_run", {name}); }

// --- removal: what is lost is named, and it can be taken back -----------------------------------------------------------
async function askRemoval(name) {
  const answer = await ask("contents", {run: name});
  if (answer.error) { said.textContent = answer.error; return; }
  const yes = button(null, "", () => removal(name), "Remove it", "tc-yes");
  said.replaceChildren(`Remove ${name} (${answer.words})? It moves into the folder .trash beside the runs, from where it can be taken back. `,
    yes, " ", button(null, "", () => { said.textContent = ""; }, "Keep it"));
  yes.focus();
}
async function removal(name) {
  const answer = await ask("remove", {run: name});
  said.textContent = answer.error || `${name} is removed: ${answer.words} `;
  if (!answer.error) {
    for (const kept of [small, large]) for (const key of kept.keys()) if (key.startsWith(`${name}/`)) kept.delete(key);   // a new run may get its name
    said.append(button("undo", "", () => restore(name), "Take it back", "tc-back"));
    if (props.value?.run === name) trigger("open_run", {name: ""});
  }
  look();
}
async function restore(name) {
  const answer = await ask("restore", {run: name});
  said.textContent = answer.error || answer.words;
  look();
}

// --- side by side -----------------------------------------------------------------------------------------------------
let metric = "", moment = null, hover = null, ticket = 0;
function choose(name) {
  chosen = chosen.includes(name) ? chosen.filter(each => each !== name) : [...chosen, name].slice(0, MOST);
  draw();
  compareNow();
}
function refreshSides() {   // anew when one of the compared has gone on
  const news = chosen.map(name => { const row = rows.find(each => each.name === name); return `${name}/${row.state}/${row.nimg}/${row.thumb}/${row.best?.value}`; }).join();
  if (news !== wanted) compareNow();
}
async function compareNow() {
  const mine = ++ticket;
  wanted = chosen.map(name => { const row = rows.find(each => each.name === name); return `${name}/${row?.state}/${row?.nimg}/${row?.thumb}/${row?.best?.value}`; }).join();
  if (chosen.length < 2) { found = null; sides.hidden = true; sides.replaceChildren(); element.dataset.compared = ""; return; }
  const answer = await ask("side_by_side", {runs: chosen});
  if (mine !== ticket) return;
  if (answer.error) { said.textContent = answer.error; return; }
  found = answer;
  lay();
}
const mark = i => {   // the sign of run i: a line with its dashes and its shape, so that colour is not needed
  const svg = node("svg", {width: 34, height: 12, viewBox: "0 0 34 12", class: `tc-sign tc-ink${i}`, "aria-hidden": "true"});
  svg.append(node("line", {x1: 0, x2: 34, y1: 6, y2: 6, class: "tc-line"}), shape(i, 17, 6));
  return svg;
};
const node = (tag, attributes) => {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
function shape(i, x, y, r = 4) {
  const d = [`M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`, `M${x - r + .5} ${y - r + .5}h${2 * r - 1}v${2 * r - 1}h${1 - 2 * r}z`,
    `M${x} ${y - r - .5}L${x + r + .5} ${y + r - .5}H${x - r - .5}z`, `M${x} ${y - r - 1}L${x + r + 1} ${y}L${x} ${y + r + 1}L${x - r - 1} ${y}z`,
    `M${x - r} ${y - r}L${x + r} ${y + r}M${x + r} ${y - r}L${x - r} ${y + r}`, `M${x - r - .5} ${y - r + .5}H${x + r + .5}L${x} ${y + r + .5}z`][i];
  return node("path", {d, class: i === 4 ? "tc-shape tc-cross" : "tc-shape"});
}
const title = i => h("span", {class: `tc-title tc-ink${i}`, title: found.runs[i].name}, h("b", {class: "tc-letter"}, LETTERS[i]), found.runs[i].name);

const chart = h("div", {class: "tc-chart", id: "runs-chart"}), reading = h("p", {class: "tc-reading"});
const which = h("select", {id: "runs-metric", "aria-label": "Metric of the chart", onchange: () => { metric = which.value; hover = null; drawChart(); }});
const scrub = h("input", {type: "range", min: 0, step: 1, id: "runs-scrub", "aria-label": "Images seen at which the grids are shown", oninput: () => { moment = found.moments[Number(scrub.value)][0]; drawGrids(); }});
const seen = h("b", {}), grids = h("div", {class: "tc-grids"});
const scrubber = h("div", {class: "tr-scrub"}, h("span", {class: "tr-end"}, "Grids at "), seen, scrub);
const legend = h("div", {class: "tc-legend"}), over = h("div", {class: "tc-over"}, which, reading), about = h("div", {});
const unjudged = h("p", {class: "tc-hint"}, "None of these runs has been judged yet, so there are no curves.");

function lay() {
  sides.hidden = false;
  const names = found.charts.map(each => each.name), last = found.moments.length - 1;
  if (!names.includes(metric)) metric = names[0] || "";
  if ([...which.options].map(option => option.value).join() !== names.join()) which.replaceChildren(...names.map(name => h("option", {value: name}, name)));
  which.value = metric;
  const at = moment === null ? last : Math.max(0, found.moments.findLastIndex(([nimg]) => nimg <= moment));
  scrub.max = Math.max(last, 0); scrub.value = at;
  const pad = 100 * at / Math.max(last, 1); scrub.style.setProperty("--to", `${pad}%`);
  if (!sides.children.length) sides.append(legend, over, chart, unjudged, about, scrubber, grids);   // once: a hand may be on the scrubber
  legend.replaceChildren(...found.runs.map((run, i) => h("span", {class: "tc-key", title: run.name}, mark(i), title(i))));
  over.hidden = chart.hidden = !names.length; unjudged.hidden = names.length > 0;
  about.replaceChildren(facts());
  scrubber.hidden = grids.hidden = !found.moments.length;
  element.dataset.compared = found.runs.map(run => run.name).join();
  drawChart(); drawGrids();
}
function facts() {
  const apart = found.same_pictures ? "" : "They learn from different pictures, so the figures of one say little about another.";
  const rest = found.runs.map((_, i) => h("th", {scope: "col"}, title(i)));
  const group = (label, lines) => lines.length ? [h("tr", {class: "tc-group"}, h("th", {colSpan: found.runs.length + 1, scope: "colgroup"}, label)), ...lines] : [];
  const best = found.best.map(([name, cells]) => h("tr", {}, h("th", {scope: "row"}, name), ...cells.map(cell => h("td", {class: cell?.is_best ? "tc-win" : ""},
    ...(cell ? [h("b", {}, cell.words), cell.is_best ? h("span", {class: "tc-star", title: "The best of these"}, " ★") : "", h("small", {}, ` ${cell.at}`)] : ["–"])))));
  const settings = found.settings.map(([name, values]) => h("tr", {}, h("th", {scope: "row"}, name), ...values.map(value => h("td", {title: value}, value))));
  const none = h("tr", {}, h("td", {colSpan: found.runs.length + 1}, "Nothing: they were asked the same."));
  return h("div", {class: "tc-scroll"}, apart ? h("p", {class: "tc-apart"}, apart) : null, h("table", {class: "tc-facts", id: "runs-facts"}, h("thead", {}, h("tr", {}, h("td", {}), ...rest)),
    h("tbody", {}, ...group("Best values", best), ...group("Settings in which they differ", settings.length ? settings : [none]))));
}

function rounds(low, high, most) {   // round numbers between two ends
  const raw = (high - low) / most, ten = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map(each => each * ten).find(each => each >= raw);
  return Array.from({length: most + 2}, (_, i) => (Math.ceil(low / step) + i) * step).filter(each => each <= high);
}
const short = v => v === 0 ? "0" : String(+v.toPrecision(Math.abs(v) < 0.1 ? 2 : 3));
function drawChart() {
  const lines = found?.charts.find(each => each.name === metric)?.lines;
  if (!lines || !chart.isConnected) return;
  const width = Math.max(chart.clientWidth, 240), height = width < 500 ? 190 : 240, left = 40, right = width - 10, top = 8, bottom = height - 20;
  const all = lines.flat(), ys = all.map(([, y]) => y).sort((a, b) => a - b), cut = Math.floor(ys.length / 25);
  const lastX = Math.max(...all.map(([x]) => x), 0.001);
  let low = Math.min(ys[0], 0), high = ys[ys.length - 1 - cut];
  if (!(high > low)) high = low + 1;
  const px = x => left + (right - left) * x / lastX, py = y => Math.max(top - 2, bottom - (bottom - top) * (y - low) / (high - low));
  const svg = node("svg", {width, height, viewBox: `0 0 ${width} ${height}`, role: "img"});
  svg.setAttribute("aria-label", `${metric} over images seen of ${found.runs.map(run => run.name).join(", ")}`);
  const word = (x, y, text, anchor) => { const t = node("text", {x, y, class: "tr-axis", "text-anchor": anchor}); t.textContent = text; svg.append(t); };
  for (const y of rounds(low, high, 4)) {
    svg.append(node("line", {class: "tr-rule", x1: left, x2: right, y1: py(y), y2: py(y)}));
    word(left - 5, py(y) + 4, short(y), "end");
  }
  for (const x of rounds(0, lastX, width < 500 ? 3 : 6)) if (px(x) < right - 60) word(px(x), height - 5, short(x), x ? "middle" : "start");
  word(right, height - 5, `${short(lastX)} kimg`, "end");
  if (hover !== null) svg.append(node("line", {class: "tr-cross", x1: px(hover), x2: px(hover), y1: top, y2: bottom}));
  lines.forEach((points, i) => {
    if (!points.length) return;
    const group = node("g", {class: `tc-ink${i}`}), step = Math.max(1, Math.ceil(points.length / 8));
    group.append(node("path", {class: "tc-line", d: points.map(([x, y], k) => `${k ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("")}));
    points.forEach(([x, y], k) => { if ((points.length - 1 - k) % step === 0) group.append(shape(i, px(x), py(y), 3.5)); });
    svg.append(group);
  });
  chart.replaceChildren(svg);
  reading.replaceChildren(...(hover === null ? [h("span", {class: "tc-hint"}, /^KID/.test(metric) ? "Lower is better." : "")] : [h("b", {}, `${short(hover)} kimg`)]),
    ...lines.map((points, i) => {
      if (!points.length) return h("span", {class: `tc-ink${i}`}, h("b", {class: "tc-letter"}, LETTERS[i]), "not measured with this");
      if (hover === null) return null;
      const near = points.reduce((a, b) => Math.abs(b[0] - hover) < Math.abs(a[0] - hover) ? b : a);
      return h("span", {class: `tc-ink${i}`}, h("b", {class: "tc-letter"}, LETTERS[i]), short(near[1]));
    }).filter(Boolean));
}
for (const kind of ["pointermove", "pointerleave"]) chart.addEventListener(kind, event => {
  const box = chart.getBoundingClientRect(), lines = found?.charts.find(each => each.name === metric)?.lines;
  if (!lines) return;
  const lastX = Math.max(...lines.flat().map(([x]) => x), 0.001);
  hover = event.type === "pointerleave" ? null : lastX * Math.max(0, Math.min(1, (event.clientX - box.left - 40) / (box.width - 50)));
  drawChart();
});
async function grid(run, nimg) {
  const key = `${run}/${nimg}`;
  if (!large.has(key)) {
    const answer = await ask("picture", {run, nimg});
    if (!answer.src) return null;
    large.set(key, answer.src);
    if (large.size > KEEP) large.delete(large.keys().next().value);
  }
  return large.get(key);
}
let drawn = 0;
async function drawGrids() {
  if (!found?.moments.length) return;
  const mine = ++drawn, [nimg, words] = found.moments[Number(scrub.value)];
  seen.textContent = words;
  scrub.style.setProperty("--to", `${100 * scrub.value / Math.max(found.moments.length - 1, 1)}%`);
  const names = found.runs.map(run => run.name).join("/");
  if (grids.dataset.runs !== names) {
    grids.dataset.runs = names;
    grids.replaceChildren(...found.runs.map((run, i) => h("figure", {}, h("figcaption", {}, title(i), h("small", {})), h("img", {class: "tr-grid", alt: ""}))));
  }
  const shown = found;
  await Promise.all(shown.runs.map(async (run, i) => {
    const moments = shown.grids[i], at = moments.findLast(each => each <= nimg) ?? null;
    const src = at === null ? null : await grid(run.name, at).catch(() => null);
    if (mine !== drawn) return;
    const figure = grids.children[i], image = figure.querySelector("img");
    if (src) { image.src = src; image.alt = `Pictures of ${run.name}`; } else { image.removeAttribute("src"); image.alt = ""; }
    const over = at !== null && at === moments[moments.length - 1] && at < nimg;
    figure.querySelector("small").textContent = at === null ? " nothing drawn yet" : at === nimg ? "" : over ? ` its last, ${kimg(at)}` : ` ${kimg(at)}`;
  }));
  if (mine === drawn) grids.dataset.nimg = nimg;
}
const kimg = nimg => nimg < 1000 ? `${nimg} images` : `${(nimg / 1000).toFixed(nimg < 100000 ? 1 : 0)} kimg`;
new ResizeObserver(drawChart).observe(chart);

function update() {
  const value = props.value || {};
  panel.hidden = !value.num;
  if (!panel.open) count.textContent = value.num || "";
  if (panel.open) draw();
}
watch("value", update);
update();
