// The direction browser: each direction as pictures from -3 to +3 on the present picture, drawn only where they are seen.
const {h, button, icon} = studio;
const root = element.firstElementChild;
const KINDS = [["attribute", "Named"], ["pca", "PCA"], ["sefa", "SeFa"], ["channel", "Channels"], ["mine", "Mine"], ["starred", "Starred"]];
const ZONES = [["form", "Form"], ["texture", "Texture"], ["colour", "Colour"]], PART = 6, KEEP = 400;
let kind = "all", wanted = "", cards = new Map(), effects = new Map(), rankedFor = "", epoch = 0, region = null, inside = null;
const picks = studio.picks = new Set();   // names picked for merging, for a pack, or to be left alone by a new direction

const known = () => studio.facts.directions;
const isMine = each => each.source === "mine";
const family = each => ["pca", "sefa", "channel"].includes(each.kind) ? each.kind : "attribute";
const belongs = (each, of) => of === "all" || (of === "mine" ? isMine(each) : of === "starred" ? each.starred : family(each) === of && !isMine(each));
const zoneOf = each => effects.get(each.name)?.zone || each.zone;
const strengthOf = name => studio.edits.find(edit => edit.direction === name)?.strength ?? (studio.edits.some(edit => edit.direction === name) ? 1 : 0);
// Ask about the present model; an answer that comes after another one was opened is dropped.
async function ask(name, question = {}) {
  const model = studio.facts.name, answer = await studio.call(name, {session: studio.session, ...question}, server);
  return model === studio.facts.name ? answer : null;
}
const words = number => number > 0 ? `+${number}` : String(number).replace("-", "−");

// --- strips: a queue of what is in view, one at a time; when the picture moves on, what waits is dropped -----------------
const inView = new Set(), queue = [];
let busy = false, moved = 0;
const watcher = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) isIntersecting ? inView.add(target) : inView.delete(target);
  draw();
}, {rootMargin: "80px"});
function draw() {
  clearTimeout(moved);
  moved = setTimeout(next, 60);
}
async function next() {
  if (busy || !element.offsetParent || !studio.session) return;
  const card = [...inView].filter(each => each.isConnected && each.epoch !== epoch).sort((a, b) => a.offsetTop - b.offsetTop)[0];
  if (!card) { element.dataset.drawn = epoch; return; }
  const turn = epoch;
  busy = true;
  const answer = await ask("strip", {direction: card.direction});
  busy = false;
  if (answer && turn === epoch) card.show(answer.tiles);
  if (answer || turn !== epoch) return next();
  card.epoch = epoch;                                                     // it said why; do not ask again and again
  next();
}
const present = () => {
  const {request, sources, rows} = studio.session;
  return JSON.stringify([{...request, edits: 0}, sources, rows]);
};

// --- one direction ---------------------------------------------------------------------------------------------------------
const small = (name, title, act, extra = "") => button(name, title, act, "", `sg-mini ${extra}`);
function card(each) {
  const {name} = each, tiles = h("div", {class: "sg-tiles"}), title = h("span", {class: "sg-dir-name", title: each.about}, name);
  const pick = h("input", {type: "checkbox", class: "sg-box", checked: picks.has(name), title: "Pick it: to merge, to save as a pack, or to be left alone by a new direction",
                           "aria-label": `Pick ${name}`, onchange: () => { pick.checked ? picks.add(name) : picks.delete(name); fillPicks(); }});
  const star = small("star", `Star ${name}`, async () => take(await ask("star", {name, starred: !each.starred})), "sg-star");
  star.setAttribute("aria-pressed", String(each.starred));
  const about = h("span", {class: "sg-dim sg-dir-about", title: each.about}, each.about);
  const tools = h("div", {class: "sg-dir-tools"}, pick, each.source ? star : null);
  if (isMine(each)) tools.append(small("pencil", `Rename ${name}`, () => rename(title, name)), small("trash", `Delete the direction ${name}`, () => remove(name)));
  const node = h("div", {class: "sg-dir", role: "listitem"}, h("div", {class: "sg-dir-head"}, title, about, tools), tiles);
  node.direction = name; node.dataset.name = name; node.epoch = -1; node.facts = JSON.stringify(each);
  for (const strength of [-3, -2, -1, 0, 1, 2, 3])
    tiles.append(h("button", {type: "button", class: "sg-tile sg-empty", title: `Set ${name} to ${words(strength)}`, "aria-label": `${name} ${words(strength)}`,
                              onclick: () => studio.addEdit(name, strength)}, h("span", {}, words(strength))));
  node.mark = () => {
    const used = studio.edits.some(edit => edit.direction === name), now = strengthOf(name);
    [...tiles.children].forEach((tile, at) => tile.setAttribute("aria-pressed", String(used && Math.abs(at - 3 - now) < 0.05)));
    node.classList.toggle("sg-used", used);
    node.classList.toggle("sg-stale", node.epoch !== epoch);
  };
  node.show = drawn => {
    drawn.forEach(({src}, at) => {
      const old = tiles.children[at].querySelector("img");
      if (old) old.src = src; else tiles.children[at].prepend(h("img", {src, alt: "", draggable: false}));
      tiles.children[at].classList.remove("sg-empty");
    });
    node.epoch = epoch; node.dataset.strip = name;
    node.mark();
  };
  node.tell = () => {
    const effect = (inside || effects).get(name);
    const [kind, layers, ...all] = each.about.split(" · "), moves = all.filter(one => !one.startsWith(`${name} `)), rest = moves.length ? moves.join(", ") : [kind, layers].filter(Boolean).join(", ");
    about.textContent = effect ? `${inside ? `${Math.round(100 * effect.inside_share)} % of it inside` : `changes ${effect.total.toFixed(0)}`} · ${rest}` : rest;
    about.title = `${each.about}${effect ? `. Changes the picture by ${effect.total.toFixed(1)} of 255 at 2 deviations` : ""}`;
  };
  node.mark(); node.tell();
  watcher.observe(node);
  return node;
}
function rename(title, name) {
  const field = h("input", {type: "text", class: "sg-text sg-rename", value: name, maxLength: 64, "aria-label": `New name of ${name}`});
  let over = false;                                                       // taking the field away blurs it, and that must not count
  const done = async save => {
    if (over) return;
    over = true;
    field.replaceWith(title);
    const to = field.value.trim(), answer = save && to && to !== name && await ask("rename", {name, to});
    if (answer) { take(answer); follows(name, edit => ({...edit, direction: to})); }
  };
  field.addEventListener("keydown", event => { if (event.key === "Enter") done(true); if (event.key === "Escape") done(false); });
  field.addEventListener("blur", () => done(true));
  title.replaceWith(field);
  field.focus(); field.select();
}

async function remove(name) {
  const answer = await ask("delete", {name});
  if (answer) { take(answer); follows(name, () => null); }
}
// Rows of the stack follow when their direction gets another name or goes.
function follows(name, change) {
  if (studio.edits.some(edit => edit.direction === name))
    studio.set({edits: studio.edits.map(edit => edit.direction === name ? change(edit) : edit).filter(Boolean)});
}

// What the server answers when the list has changed: {directions, said, mood, show, session}.
function take(answer) {
  if (!answer) return;
  if (answer.download) studio.saveFile(answer.download);
  if (answer.directions) {
    const names = new Set(answer.directions.map(each => each.name));
    studio.facts.directions = answer.directions;
    for (const name of picks) if (!names.has(name)) picks.delete(name);
    if (answer.show) { kind = "mine"; leaveRegion(); }
    fill();
  }
  if (answer.session) studio.replace(answer.session);
  if (answer.said) studio.say(answer.said, answer.mood || "good");
  if (answer.show) reveal(answer.show);
}
studio.on("found", element, take);

// --- the list --------------------------------------------------------------------------------------------------------------
const list = h("div", {class: "sg-dirs", role: "list", "aria-label": "Directions"}), note = h("p", {class: "sg-dim sg-hint", hidden: true});
const filters = h("div", {class: "sg-segments sg-kinds", role: "group", "aria-label": "Kind of direction"});
const search = h("input", {type: "search", class: "sg-text sg-search", placeholder: "Search", id: "direction-search", "aria-label": "Search directions by name",
                           oninput: () => { wanted = search.value.trim().toLowerCase(); fill(); }});
const order = h("select", {class: "sg-text", id: "direction-order", "aria-label": "Order of the directions", onchange: () => { rankedFor = ""; fill(); rank(); }},
  h("option", {value: "effect"}, "most change first"), h("option", {value: "found"}, "as found"));
const closed = new Set();

function shown() {
  const all = inside ? [...inside.values()].map(effect => known().find(each => each.name === effect.name)
    || {name: effect.name, kind: "channel", zone: effect.zone, source: "", about: "S channel", layers: [0, 0]}) : known().filter(each => belongs(each, kind));
  const found = all.filter(each => each.name.toLowerCase().includes(wanted));
  if (!inside && order.value === "effect") {
    const change = each => effects.get(each.name)?.total ?? -1;
    found.sort((a, b) => change(b) - change(a));
  }
  return found;
}
function fill() {
  const found = shown(), kinds = KINDS.filter(([each]) => known().some(direction => belongs(direction, each)));
  if (kind !== "all" && !kinds.some(([each]) => each === kind)) kind = "all";
  filters.replaceChildren(...[["all", "All"], ...kinds].map(([each, text]) =>
    h("button", {type: "button", class: "sg-choice", "aria-pressed": String(each === kind && !inside), onclick: () => { kind = each; leaveRegion(); fill(); }}, text)));
  watcher.disconnect(); inView.clear();
  if (cards.size > KEEP) cards.clear();
  const focused = document.activeElement;
  const get = each => {
    if (cards.get(each.name)?.facts !== JSON.stringify(each)) cards.set(each.name, card(each));
    watcher.observe(cards.get(each.name));
    return cards.get(each.name);
  };
  const groups = inside ? [["", "", found]] : ZONES.map(([zone, text]) => [zone, text, found.filter(each => zoneOf(each) === zone)]);
  list.replaceChildren(...groups.filter(([, , members]) => members.length).map(([zone, text, members]) => {
    const body = h("div", {class: "sg-zone-body", hidden: closed.has(zone)}, ...members.map(get));
    const head = h("button", {type: "button", class: "sg-zone", "aria-expanded": String(!closed.has(zone)), onclick: () => {
      closed.has(zone) ? closed.delete(zone) : closed.add(zone);
      body.hidden = closed.has(zone); head.setAttribute("aria-expanded", String(!body.hidden));
    }}, text, h("span", {class: "sg-dim"}, String(members.length)));
    return h("section", {"aria-label": text || "Found in the region"}, text ? head : null, body);
  }));
  for (const each of cards.values()) { each.mark(); each.tell(); }
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({preventScroll: true});
  note.hidden = found.length > 0;
  note.textContent = wanted ? "No direction has that in its name." : inside ? "Nothing moves this region alone; paint it a little larger."
    : "This model has no directions yet: let the app look for some, or make one below.";
  element.dataset.count = found.length;
  fillPicks();
  draw();
}
function reveal(name) {
  const each = known().find(direction => direction.name === name);
  if (!each) return;
  if (inside || !belongs(each, kind) || wanted) { kind = belongs(each, kind) ? kind : isMine(each) ? "mine" : family(each); wanted = search.value = ""; leaveRegion(); }
  closed.delete(zoneOf(each));
  fill();
  const node = cards.get(name);
  node?.scrollIntoView({block: "nearest", behavior: "smooth"});
  node?.classList.add("sg-lit");
  setTimeout(() => node?.classList.remove("sg-lit"), 1200);
}
studio.on("direction", element, reveal);

// --- sorting by how much each changes this picture ---------------------------------------------------------------------
let ranking = 0;
async function rank() {
  if (order.value !== "effect" || !studio.session || !element.offsetParent || inside || rankedFor === present()) return;
  const turn = ++ranking, key = present(), names = known().map(each => each.name), found = new Map();
  for (let at = 0; at < names.length; at += PART) {
    const answer = await ask("rank", {names: names.slice(at, at + PART)});
    if (turn !== ranking || !answer || key !== present()) return;
    for (const effect of answer.effects) found.set(effect.name, effect);
  }
  effects = found; rankedFor = key;
  element.dataset.ranked = found.size;
  fill();
}

// --- directions that change a region -----------------------------------------------------------------------------------
const findButton = button("brush", "Find the directions that change a region which you paint", () => studio.emit("paint", {
  title: "search", lead: "Paint what should change, then press Done.", read: () => region || new Uint8Array(32 * 32), keep: mask => { region = mask; },
  done: mask => { region = mask; findInside(); }}), "Find in a region");
const leave = button("close", "Show all directions again", () => { leaveRegion(); fill(); }, "All directions");
findButton.id = "find-region"; leave.id = "leave-region"; leave.hidden = true;
function leaveRegion() { inside = null; region = null; leave.hidden = true; }
async function findInside() {
  const mask = studio.packMask(region);
  if (!mask) { leaveRegion(); fill(); return studio.say("Nothing is painted, so there is nothing to look for."); }
  studio.say("Looking for directions and channels that change this region…");
  findButton.disabled = true;
  const answer = await ask("rank", {region: mask, channels: 12});
  findButton.disabled = false;
  if (!answer) return;
  inside = new Map(answer.effects.filter(effect => effect.inside > 0).slice(0, 40).map(effect => [effect.name, effect]));
  leave.hidden = false;
  fill();
  element.dataset.inside = inside.size;
  studio.say(`${inside.size} directions and channels, those that change the painted region most and the rest least first.`, "good");
}

// --- picked directions: merge, packs ---------------------------------------------------------------------------------------
const picked = h("span", {class: "sg-dim"}), mergedName = h("input", {type: "text", class: "sg-text", placeholder: "name", maxLength: 64, id: "merge-name", "aria-label": "Name of the merged direction"});
const mergeButton = button("plus", "Add the picked directions up to one new direction", async () =>
  take(await ask("merge", {names: [...picks], name: mergedName.value.trim()})), "Merge");
const pack = async format => {
  const answer = await ask("save_pack", {names: [...picks], format});
  if (answer) { studio.saveFile(answer.download); studio.say(answer.said, "good"); }
};
const picksBar = h("div", {class: "sg-bar sg-picks", hidden: true}, picked, h("span", {class: "sg-grow"}), mergedName, mergeButton,
  button("download", "Save the picked directions as a safetensors pack", () => pack("safetensors"), "Pack"),
  button("download", "Save the picked directions as a JSON pack", () => pack("json"), "JSON"),
  button("close", "Pick none", () => { picks.clear(); for (const node of cards.values()) node.querySelector(".sg-box").checked = false; fillPicks(); }));
function fillPicks() {
  picksBar.hidden = !picks.size;
  picked.textContent = `${picks.size} picked`;
  mergeButton.hidden = mergedName.hidden = picks.size < 2;
  studio.emit("picks");
}
async function openPack(file) {
  const data = file && await studio.readFile(file);
  if (data) take(await ask("open_pack", {data}));
}
const importButton = button("open", "Import a pack of directions (safetensors or JSON); it can also be dropped here",
  async () => openPack(await studio.pickFile(".safetensors,.json")), "Import pack");
importButton.id = "import-pack";
studio.dropZone(root, openPack);
studio.saveFile = ({name, data, kind: type}) => h("a", {href: `data:${type};base64,${data}`, download: name}).click();

// --- finding them in the background -----------------------------------------------------------------------------------------
const bar = h("progress", {max: 1, value: 0}), telling = h("span", {class: "sg-dim"});
const stop = button("close", "Stop looking for directions", async () => follow(await ask("stop_finding")));
const findAgain = button("find", "Look for PCA, SeFa and channel directions of this model", async () => follow(await ask("find")), "Find directions");
const progress = h("div", {class: "sg-arrival sg-finding", hidden: true, role: "status"}, h("b", {}, "Finding directions"), bar, telling, stop);
findAgain.id = "find-directions"; findAgain.hidden = true;
let polling = 0;
async function follow(answer) {
  clearTimeout(polling);
  if (!answer) return;
  const {state, done, message} = answer.progress, running = state === "running";
  progress.hidden = !running; findAgain.hidden = !["stopped", "failed"].includes(state);
  bar.value = done; telling.textContent = message;
  element.dataset.finding = state;
  if (answer.directions && answer.directions.length !== known().length) { take({directions: answer.directions}); rankedFor = ""; rank(); }
  if (state === "failed") studio.say(message, "bad");
  if (running) polling = setTimeout(async () => element.isConnected && follow(await ask("finding")), 500);
}

function build() {
  cards.clear(); effects = new Map(); inside = region = null; leave.hidden = true; rankedFor = ""; kind = "all"; epoch++;
  picks.clear();
  fill();
  clearTimeout(polling);
  ask("find", {gently: true}).then(follow);
}
let resting = 0;
const again = studio.whenSeen(element, () => {
  epoch++;
  for (const node of cards.values()) node.mark();
  draw();
  clearTimeout(resting);
  resting = setTimeout(rank, 700);
}, 200);
studio.on("session", element, ({dragging}) => { if (!dragging) for (const node of cards.values()) node.mark(); });
studio.on("model", element, build);
root.append(h("div", {class: "sg-bar sg-head"}, h("h2", {}, "Directions"), h("span", {class: "sg-grow"}), findAgain, findButton, leave, importButton), progress,
            h("div", {class: "sg-bar sg-filter"}, filters, h("span", {class: "sg-grow"}), search, order), picksBar, note, list);
if (studio.facts) { build(); again(); }
