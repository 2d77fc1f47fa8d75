// The same latent across models: every snapshot of a run, or models alike, on a timeline and as a wipe against the present.
const {h, button} = studio;
const root = element.firstElementChild, MOST_TILES = 12, SPEED = 500;
const ask = (name, question) => studio.call(name, question, server);
const known = new Map();
let lines = [], line = null, at = 0, stamp = 0, clock = 0, shownFor = "";

const select = h("select", {id: "timeline-which", "aria-label": "Timeline", onchange: () => choose(select.value)});
const range = h("input", {type: "range", min: 0, max: 0, step: 1, id: "timeline-range", "aria-label": "Place on the timeline", oninput: () => go(Number(range.value))});
const label = h("b", {}), about = h("span", {class: "sg-dim"}), strip = h("div", {class: "sg-stops"});
const play = button("right", "Play through the timeline", () => clock ? pause() : start(), "Play");
const open = button("image", "Open this model, with everything that is set now", async () => {
  const answer = await fetchStop(at);
  if (answer) studio.adopt(answer.session);
}, "Open this one");
const body = h("div", {class: "sg-line"}, h("div", {class: "sg-bar"}, label, about, h("span", {class: "sg-grow"}), play, open),
  h("div", {class: "sg-row sg-scrub"}, range), strip);
const empty = h("p", {class: "sg-dim", hidden: true}, "No other model has latents of this shape yet. Snapshots of a training run, and models of the same make in the folder, appear here.");

function start() { clock = setInterval(() => element.isConnected && element.offsetParent ? go((at + 1) % line.stops.length) : pause(), SPEED); play.lastChild.textContent = "Pause"; }
function pause() { clearInterval(clock); clock = 0; play.lastChild.textContent = "Play"; }

// What a stop shows for the present state; asked once for each state.
function fetchStop(index) {
  const stop = line.stops[index], key = JSON.stringify([stop.name, studio.session]);
  if (!known.has(key)) {
    if (known.size > 400) known.clear();
    known.set(key, ask("stop", {session: studio.session, name: stop.name}).then(answer => { if (!answer) known.delete(key); return answer; }));
  }
  return known.get(key);
}
async function go(index) {
  at = index;
  range.value = index;
  const mine = ++stamp, stop = line.stops[index];
  label.textContent = stop.label;
  about.textContent = `${index + 1} of ${line.stops.length}`;
  range.style.setProperty("--to", `${100 * index / Math.max(1, line.stops.length - 1)}%`);
  for (const tile of strip.children) tile.setAttribute("aria-pressed", String(Number(tile.dataset.stop) === index));
  const answer = await fetchStop(index);
  if (!answer || mine !== stamp) return;
  about.textContent = `${index + 1} of ${line.stops.length}${answer.said ? ` · ${answer.said}` : ""}`;
  studio.emit("pin", {session: answer.session, name: stop.label});
  element.dataset.stop = index;
}
// At most a dozen of the stops as small pictures, evenly spread, drawn one after another.
async function draw() {
  const num = line.stops.length, count = Math.min(num, MOST_TILES), mine = line, key = JSON.stringify([line.key, studio.session]);
  if (key === shownFor) return;
  shownFor = key;
  const places = Array.from({length: count}, (_, index) => Math.round(index * (num - 1) / Math.max(1, count - 1)));
  const tiles = places.map(place => {
    const tile = h("button", {type: "button", class: "sg-tile", title: line.stops[place].label, onclick: () => { pause(); go(place); }},
      h("img", {alt: "", draggable: false}), h("span", {}, line.stops[place].label));
    tile.dataset.stop = place;
    return tile;
  });
  const old = [...strip.children].map(tile => tile.querySelector("img").getAttribute("src"));
  strip.replaceChildren(...tiles);
  if (old.length === tiles.length) tiles.forEach((tile, index) => { if (old[index]) tile.querySelector("img").src = old[index]; });
  for (const [index, tile] of tiles.entries()) {
    const answer = await fetchStop(places[index]);
    if (mine !== line || key !== shownFor) return;
    if (answer) tile.querySelector("img").src = answer.src;
  }
  element.dataset.drawn = count;
}
function choose(key) {
  pause();
  line = lines.find(each => each.key === key) || lines[0] || null;
  empty.hidden = Boolean(line);
  body.hidden = !line;
  if (!line) return;
  select.value = line.key;
  range.max = line.stops.length - 1;
  const own = line.stops.findIndex(stop => stop.name === studio.session.request.model);
  at = own >= 0 ? own : line.stops.length - 1;
  range.value = at;
  label.textContent = line.stops[at].label;
  about.textContent = `${at + 1} of ${line.stops.length}; drag, and the picture is compared with the present one`;
  play.disabled = range.disabled = line.stops.length < 2;
  shownFor = "";
  draw();
}
const refresh = studio.whenSeen(element, async () => {
  const answer = await ask("timelines", {session: studio.session});
  if (!answer) return;
  const same = JSON.stringify(answer.timelines) === JSON.stringify(lines) && line;
  lines = answer.timelines;
  if (same) {
    if (element.dataset.stop !== undefined && document.querySelector(".sg-pinned")) go(at);
    return draw();
  }
  select.replaceChildren(...lines.map(each => h("option", {value: each.key}, `${each.title} (${each.stops.length})`)));
  select.hidden = !lines.length;
  choose(line?.key);
  element.dataset.lines = lines.length;
});
body.hidden = true;
root.append(h("div", {class: "sg-bar"}, select), empty, body);
refresh();
