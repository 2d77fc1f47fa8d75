// The edit stack: a row for each mix, edit, noise and transform; switched, isolated, locked and moved without losing anything.
const {h, button, slider, icon} = studio;
const root = element.firstElementChild, RANGE = 5, FORMAT = "stylegan-studio-stack/1", CLIPBOARD = "stylegan-studio-stack";
const NOISE = ["noise", "noise_seed", "noise_strength"], TRANSFORM = ["transform"];
let rows = [], solo = null, built = "", seen = null;

// --- what the stack holds ---------------------------------------------------------------------------------------------
const full = edit => ({strength: 1, layers: null, enabled: true, region: null, locked: false, ...edit});
const slim = ({direction, strength, layers, enabled, region, locked}) => ({direction, ...(strength === 1 ? {} : {strength}),
  ...(layers ? {layers} : {}), ...(enabled ? {} : {enabled}), ...(region ? {region} : {}), ...(locked ? {locked} : {})});
const edits = () => studio.edits.map(full);
const keep = (next, dragging) => studio.set({edits: next.map(slim)}, dragging);
function change(at, fields, dragging) {
  const next = edits();
  if (!next[at]) return;
  next[at] = {...next[at], ...fields};
  keep(next, dragging);
}
const source = at => ({enabled: true, weight: 1, locked: false, ...studio.session.sources[at]});
function changeSource(at, fields, dragging) {
  const sources = studio.session.sources.map((each, index) => index === at ? {...each, ...fields} : each);
  studio.replace({...studio.session, sources}, dragging);
}
const own = name => studio.facts.directions.find(each => each.name === name)?.layers || [0, studio.facts.num_ws - 1];
const isChannel = name => /^s\d{1,4}\.\d{1,5}$/.test(name);
// Where rows of a mixing source lie: [[first, last], ...].
function reach(at) {
  const spans = [];
  studio.session.rows.forEach(([index, weight], row) => {
    if (index !== at || !weight) return;
    spans.length && spans.at(-1)[1] === row - 1 ? spans.at(-1)[1] = row : spans.push([row, row]);
  });
  return spans;
}
const changed = keys => keys.some(key => !studio.isDefault(key));
const parked = keys => keys.some(key => key in (studio.session.parked || {}));
const picked = (from, keys) => Object.fromEntries(keys.filter(key => key in from).map(key => [key, from[key]]));
const without = (from, keys) => Object.fromEntries(Object.entries(from).filter(([key]) => !keys.includes(key)));
// Switch noise or transform: its settings change places with what is parked, and nothing is lost.
function park(keys, on) {
  const {request, parked: held = {}, ...rest} = studio.session;
  const next = on ? {...without(request, keys), ...picked(held, keys)} : without(request, keys);
  const left = on ? without(held, keys) : {...held, ...picked(request, keys)};
  studio.replace({...rest, request: next, ...(Object.keys(left).length ? {parked: left} : {})});
}
function forget(keys) {
  const {request, parked: held = {}, ...rest} = studio.session, left = without(held, keys);
  studio.replace({...rest, request: without(request, keys), ...(Object.keys(left).length ? {parked: left} : {})});
}

// --- one row alone: what the stage draws, never what is kept ------------------------------------------------------------
const alone = (type, at = 0) => solo && solo.type === type && solo.at === at;
function toggleSolo(type, at = 0, name = "") {
  solo = alone(type, at) ? null : {type, at, name};
  studio.emit("session", {dragging: false});
  studio.say(solo ? `Only ${name} acts now, to look at it; what is saved stays whole.` : "Every row acts again.");
}
studio.view = session => {
  if (!solo || !rows.length) return session;
  const {request, parked: held = {}, ...rest} = session;
  const hidden = [...(alone("noise") ? [] : NOISE), ...(alone("transform") ? [] : TRANSFORM)];
  const next = {...picked(held, solo.type === "noise" ? NOISE : solo.type === "transform" ? TRANSFORM : []), ...without(request, hidden)};
  if (request.edits) next.edits = request.edits.map((edit, at) => ({...edit, enabled: alone("edit", at)}));
  return {...rest, request: next, sources: session.sources.map((each, at) => ({...each, enabled: alone("mix", at)}))};
};
function checkSolo() {
  const there = solo && (solo.type === "edit" ? studio.edits[solo.at]?.direction === solo.name
    : solo.type === "mix" ? studio.session.sources[solo.at]?.name === solo.name
      : changed(solo.type === "noise" ? NOISE : TRANSFORM) || parked(solo.type === "noise" ? NOISE : TRANSFORM));
  if (solo && !there) solo = null;
}

// --- the pieces of a row ------------------------------------------------------------------------------------------------
const small = (name, title, act, extra = "") => button(name, title, act, "", `sg-mini ${extra}`);
const press = (node, on) => node.setAttribute("aria-pressed", String(Boolean(on)));
function toggle(label, act) {
  return h("input", {type: "checkbox", class: "sg-switch", title: "Switch this row on or off", "aria-label": `${label} on`,
                     onchange: event => act(event.target.checked)});
}
function layersControl(at, name) {
  const most = studio.facts.num_ws - 1;
  const ends = ["First", "Last"].map(which => h("input", {type: "number", min: 0, max: most, step: 1, class: "sg-end",
    "aria-label": `${which} layer of ${name}`, title: `${which} layer that moves (0 to ${most})`}));
  const node = h("div", {class: "sg-ends"}, ends[0], h("span", {}, "–"), ends[1]);
  for (const end of ends) end.addEventListener("change", () => {
    let [first, last] = ends.map(each => Math.min(most, Math.max(0, Math.round(Number(each.value) || 0))));
    if (first > last) end === ends[0] ? last = first : first = last;
    change(at, {layers: first === own(name)[0] && last === own(name)[1] ? null : [first, last]});
  });
  node.refresh = layers => ends.forEach((end, index) => {
    if (document.activeElement !== end) end.value = (layers || own(name))[index];
  });
  return node;
}
function regionBadge(at, name) {
  const face = h("canvas", {width: 32, height: 32});
  const node = small("brush", `Paint where ${name} acts`, () => studio.emit("paint", {
    title: name, read: () => edits()[at]?.direction === name ? studio.unpackMask(edits()[at].region) : null,
    keep: mask => change(at, {region: studio.packMask(mask)})}), "sg-badge");
  const show = on => studio.emit("mask", on ? studio.unpackMask(edits()[at]?.region) : null);
  for (const kind of ["mouseenter", "focus"]) node.addEventListener(kind, () => show(true));
  for (const kind of ["mouseleave", "blur"]) node.addEventListener(kind, () => show(false));
  node.append(face);
  node.refresh = region => {
    if (node.region === region) return;
    node.region = region;
    node.classList.toggle("sg-painted", Boolean(region));
    if (region) studio.drawMask(face, studio.unpackMask(region));
  };
  return node;
}
const identify = (name, nth) => `edit-${name.replace(/[^A-Za-z0-9]+/g, "-")}${nth ? `-${nth}` : ""}`;

function editRow(edit, at, nth) {
  const name = edit.direction, now = () => edits()[at] || full(edit), reset = {strength: 0, layers: null, region: null, enabled: true};
  const row = slider({id: identify(name, nth), label: name, help: "Standard deviations along this direction",
    low: -RANGE, high: RANGE, step: 0.05, origin: 0, start: () => 0, read: () => now().strength,
    write: (strength, dragging) => change(at, {strength}, dragging)});
  const [label, , , undo] = row.children, refreshSlider = row.refresh;
  const grip = small("grip", `Move ${name}: drag, or press the arrow keys`, () => {}, "sg-grip");
  const on = toggle(name, enabled => change(at, {enabled})), ends = isChannel(name) ? h("div", {class: "sg-ends"}, "one channel") : layersControl(at, name);
  const region = regionBadge(at, name), only = small("solo", `Only ${name}`, () => toggleSolo("edit", at, name));
  const lock = small("lock", `Lock ${name}: resets and pasted stacks leave it alone`, () => change(at, {locked: !now().locked}));
  const more = h("div", {class: "sg-more"}, region, only, lock,
    small("copy", `Duplicate ${name}`, () => keep([...edits().slice(0, at + 1), {...now(), locked: false}, ...edits().slice(at + 1)])),
    small("trash", `Delete ${name}`, () => { keep(edits().filter((_, index) => index !== at)); focusRow(at, ".sg-mini:last-child"); }));
  undo.remove();
  row.undo = button("reset", `Reset ${name}`, () => change(at, reset), "", "sg-reset");
  row.prepend(grip, on);
  row.append(ends, row.undo, more);
  row.classList.add("sg-stacked");
  label.addEventListener("click", () => studio.emit("direction", name));
  handle(grip, row, at);
  row.refresh = () => {
    refreshSlider();
    const edit = now(), moved = edit.strength !== 0 || !edit.enabled || Boolean(edit.layers) || Boolean(edit.region);
    on.checked = edit.enabled;
    row.classList.toggle("sg-changed", moved); row.classList.toggle("sg-off", !edit.enabled);
    row.classList.toggle("sg-muted", Boolean(solo) && !alone("edit", at));
    row.undo.disabled = !moved;
    press(only, alone("edit", at)); press(lock, edit.locked);
    if (ends.refresh) ends.refresh(edit.layers);
    region.refresh(edit.region);
  };
  return row;
}
function mixRow(at) {
  const name = source(at).name, row = slider({id: `stack-mix-${at}`, label: name, help: "A factor on all weights of this source", low: 0, high: 1,
    step: 0.01, start: () => 1, read: () => source(at).weight, write: (weight, dragging) => changeSource(at, {weight}, dragging)});
  const [, , , undo] = row.children, refreshSlider = row.refresh, about = h("div", {class: "sg-ends"});
  const on = toggle(name, enabled => changeSource(at, {enabled})), only = small("solo", `Only ${name}`, () => toggleSolo("mix", at, name));
  const lock = small("lock", `Lock ${name}: resets and pasted stacks leave it alone`, () => changeSource(at, {locked: !source(at).locked}));
  const kind = h("span", {class: "sg-kind", title: "Style mixing; its layers are set in the Style mixing tab"}, icon("layers"));
  const out = () => studio.replace({...studio.session, rows: studio.session.rows.map(pair => pair[0] === at ? [-1, 0] : pair)});
  row.prepend(kind, on);
  row.append(about, undo, h("div", {class: "sg-more"}, only, lock, small("trash", `Take ${name} out of the mix`, out)));
  row.classList.add("sg-stacked");
  row.refresh = () => {
    refreshSlider();
    const spans = reach(at).map(([first, last]) => first === last ? `${first}` : `${first}–${last}`), {enabled, locked} = source(at);
    about.textContent = `layer ${spans.slice(0, 2).join(", ")}${spans.length > 2 ? "…" : ""}`;
    about.title = `Takes the layers ${spans.join(", ")}`;
    on.checked = enabled;
    row.classList.toggle("sg-off", !enabled); row.classList.toggle("sg-muted", Boolean(solo) && !alone("mix", at));
    press(only, alone("mix", at)); press(lock, locked);
  };
  return row;
}
function settingRow(type, title, keys, describe) {
  const about = h("span", {class: "sg-dim sg-about"}), on = toggle(title, yes => park(keys, yes));
  const only = small("solo", `Only ${title}`, () => toggleSolo(type, 0, title));
  const row = h("div", {class: "sg-row sg-stacked sg-setting", id: `stack-${type}`}, h("span", {class: "sg-kind"}, icon(type === "noise" ? "dice" : "snap")),
    on, h("span", {class: "sg-name"}, title), about, h("div", {class: "sg-more"}, only, small("reset", `Reset the ${title}`, () => forget(keys))));
  row.refresh = () => {
    const off = !changed(keys), held = {...studio.facts.defaults, ...(off ? studio.session.parked : studio.request)};
    on.checked = !off;
    about.textContent = describe(held);
    row.classList.toggle("sg-off", off); row.classList.toggle("sg-muted", Boolean(solo) && !alone(type));
    press(only, alone(type));
  };
  return row;
}
const sayNoise = ({noise, noise_seed, noise_strength}) => noise === "none" ? "none"
  : `${noise === "random" ? `random, seed ${noise_seed}` : "constant"}${noise_strength === 1 ? "" : `, strength ${noise_strength}`}`;
const sayTransform = ({transform}) => Object.entries({...transform}).map(([key, value]) =>
  ({translate_x: `right ${value}`, translate_y: `down ${value}`, rotate: `turned ${value}°`, scale: `scaled ${value}`})[key]).join(", ");

// --- moving a row: with the pointer, or with the arrow keys ------------------------------------------------------------
function move(from, to, refocus) {
  const next = edits(), last = next.length - 1, place = Math.min(last, Math.max(0, to));
  if (from === place) return;
  next.splice(place, 0, ...next.splice(from, 1));
  if (solo?.type === "edit") solo.at = solo.at === from ? place : solo.at + (from < solo.at && place >= solo.at) * -1 + (from > solo.at && place <= solo.at) * 1;
  keep(next);
  if (refocus) focusRow(place, ".sg-grip");
  studio.say(`${next[place].direction} is now ${place + 1} of ${next.length}.`);
}
const editRows = () => [...list.querySelectorAll(".sg-stacked")].filter(row => row.querySelector(".sg-grip"));
function focusRow(at, selector) { const found = editRows(); found[Math.min(at, found.length - 1)]?.querySelector(selector)?.focus(); }
function handle(grip, row, at) {
  let held = null;
  const place = y => editRows().filter(other => other !== row && y > other.getBoundingClientRect().top + other.offsetHeight / 2).length;
  grip.addEventListener("pointerdown", event => {
    if (event.button) return;
    held = {y: event.clientY, to: at};
    grip.setPointerCapture(event.pointerId);
    row.classList.add("sg-held");
  });
  grip.addEventListener("pointermove", event => {
    if (!held) return;
    held.to = place(event.clientY);
    row.style.transform = `translateY(${event.clientY - held.y}px)`;
    editRows().filter(other => other !== row).forEach((other, index) => {
      other.classList.toggle("sg-before-me", index === held.to); other.classList.toggle("sg-after-me", index === held.to - 1 && held.to === editRows().length - 1);
    });
  });
  for (const end of ["pointerup", "pointercancel"]) grip.addEventListener(end, event => {
    if (!held) return;
    const to = held.to;
    held = null;
    row.style.transform = "";
    row.classList.remove("sg-held");
    for (const other of editRows()) other.classList.remove("sg-before-me", "sg-after-me");
    if (event.type === "pointerup") move(at, to, true);
  });
  grip.addEventListener("keydown", event => {
    const by = {ArrowUp: -1, ArrowDown: 1, Home: -at, End: edits().length}[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move(at, at + by, true);
  });
}

// --- the whole stack -----------------------------------------------------------------------------------------------------
async function accept() {
  const answer = await studio.call("bake", {session: studio.session}, server);
  if (answer) { solo = null; studio.take(answer, true, "stack accepted"); }
}
async function copy() {
  const {request, sources, rows: mixed, parked: held} = studio.session;
  const text = JSON.stringify({format: FORMAT, model: request.model, hash: studio.facts.hash, sources, rows: mixed,
    request: picked(request, ["edits", ...NOISE, ...TRANSFORM]), ...(held ? {parked: held} : {})});
  try { localStorage.setItem(CLIPBOARD, text); } catch { /* private window: the clipboard alone */ }
  try { await navigator.clipboard.writeText(text); } catch { /* not allowed here: this browser remembers it */ }
  studio.say(`The stack is copied: ${count(rows.length)}. Paste it onto another seed, picture or model.`, "good");
}
async function paste() {
  const texts = [];
  try { texts.push(await navigator.clipboard.readText()); } catch { /* not allowed here */ }
  try { texts.push(localStorage.getItem(CLIPBOARD)); } catch { /* private window */ }
  for (const text of texts) {
    let stack = null;
    try { stack = JSON.parse(text); } catch { continue; }
    if (stack?.format !== FORMAT) continue;
    const answer = await studio.call("paste", {session: studio.session, stack}, server);
    if (answer) studio.take(answer, true, "stack pasted");
    return;
  }
  studio.say("There is no copied stack; copy one first, here or in another page of the app.", "bad");
}
function clear() {
  const {request, sources, rows: mixed, parked: held, ...rest} = studio.session, kept = studio.edits.filter(edit => edit.locked);
  const locked = mixed.map(pair => sources[pair[0]]?.locked ? pair : [-1, 0]);
  studio.replace({...rest, sources, rows: locked.some(pair => pair[0] >= 0) ? locked : [],
                  request: {...without(request, ["edits", ...NOISE, ...TRANSFORM]), ...(kept.length ? {edits: kept} : {})}});
}
// Set a direction to a strength: the first row that has it unlocked, else a new row.
studio.addEdit = (direction, strength) => {
  const next = edits(), at = next.findIndex(edit => edit.direction === direction && !edit.locked);
  if (at >= 0) next[at] = {...next[at], strength, enabled: true};
  else next.push(full({direction, strength}));
  keep(next);
};

const count = number => `${number || "no"} row${number === 1 ? "" : "s"}`;
const list = h("div", {class: "sg-stack-rows", role: "list", "aria-label": "Edit stack"}), total = h("span", {class: "sg-dim"});
const empty = h("p", {class: "sg-dim sg-hint"}, "Nothing is edited yet. Click any picture below, and it becomes a row here.");
const bake = button("check", "Bake the rows that are on into the latent itself", accept, "Accept"), copies = button("copy", "Copy the stack", copy, "Copy");
const wipe = button("trash", "Remove all rows but the locked ones", clear, "Clear");
bake.id = "stack-accept"; copies.id = "stack-copy"; wipe.id = "stack-clear";
const pastes = button("paste", "Paste a copied stack onto this picture", paste, "Paste");
pastes.id = "stack-paste";
root.append(h("div", {class: "sg-bar sg-head"}, h("h2", {}, "Edit stack"), total, h("span", {class: "sg-grow"}), bake, copies, pastes, wipe), empty, list);

function refresh() {
  if (!studio.session) return;
  checkSolo();
  const mixed = studio.session.sources.map((_, at) => at).filter(at => reach(at).length);
  const settings = [["noise", "Noise", NOISE, sayNoise], ["transform", "Transform", TRANSFORM, sayTransform]].filter(([, , keys]) => changed(keys) || parked(keys));
  const shape = JSON.stringify([studio.facts.name, studio.facts.num_ws, mixed.map(at => [at, source(at).name]), studio.edits.map(edit => edit.direction), settings.map(([type]) => type)]);
  if (shape !== built) {
    const times = {};
    built = shape;
    rows = [...mixed.map(mixRow), ...studio.edits.map((edit, at) => editRow(edit, at, times[edit.direction] = (times[edit.direction] ?? -1) + 1)),
            ...settings.map(setting => settingRow(...setting))];
    for (const row of rows) row.setAttribute("role", "listitem");
    list.replaceChildren(...rows);
  }
  for (const row of rows) row.refresh();
  empty.hidden = rows.length > 0;
  bake.disabled = copies.disabled = wipe.disabled = !rows.length;
  total.textContent = rows.length ? count(rows.length) : "";
  element.dataset.rows = rows.length;
  element.dataset.solo = solo ? solo.name : "";
}
studio.on("session", element, refresh);
studio.on("model", element, () => { solo = null; built = ""; });
refresh();
