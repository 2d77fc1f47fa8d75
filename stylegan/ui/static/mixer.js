// Style mixing: one row per layer of W+ with its weight and its source; masters and one-click groups above.
const {h, button, slider} = studio;
const root = element.firstElementChild, MOST = 8;
const thumbs = new Map();
let chosen = 0, rows = [], masters = [];

const sources = () => studio.session.sources;
const rowAt = index => studio.session.rows[index] || [-1, 0];
const letter = index => String.fromCharCode(66 + index);

// Write [source, weight] for the layers first..last; rows that mix nothing are forgotten once settled.
function write(first, last, source, weight, dragging = false) {
  if (!sources().length) { refresh(); return studio.say("Add a source first: a seed, this picture, or a saved PNG.", "bad"); }
  const next = Array.from({length: studio.facts.num_ws}, (_, index) => {
    const [present, value] = rowAt(index);
    if (index < first || index > last) return [present, value];
    return [source ?? (present < 0 ? Math.min(chosen, sources().length - 1) : present), weight ?? value];
  });
  const silent = next.every(([, value]) => value === 0);
  studio.replace({...studio.session, rows: silent && !dragging ? [] : next}, dragging);
}
function add(source) {
  if (sources().length >= MOST) return studio.say(`There are ${MOST} sources already; remove one first.`, "bad");
  chosen = sources().length;
  studio.replace({...studio.session, sources: [...sources(), source]});
}
function remove(index) {
  const rows = studio.session.rows.map(([source, weight]) => source === index ? [-1, 0] : [source > index ? source - 1 : source, weight]);
  chosen = 0;
  studio.replace({...studio.session, sources: sources().filter((_, each) => each !== index),
                  rows: rows.every(([, weight]) => weight === 0) ? [] : rows});
}
function thumb(index) {
  const picture = h("img", {alt: "", draggable: false}), {model, psi, cutoff, label} = studio.request;
  const key = JSON.stringify([model, psi, cutoff, label, sources()[index]]);
  if (!thumbs.has(key)) {
    if (thumbs.size > 64) thumbs.clear();
    thumbs.set(key, studio.call("thumb", {session: studio.session, index}));
  }
  thumbs.get(key).then(answer => { if (answer) picture.src = answer.src; });
  return picture;
}

// --- sources ----------------------------------------------------------------------------------------------------------
const shelf = h("div", {class: "sg-shelf"});
const seed = h("input", {type: "text", inputMode: "numeric", class: "sg-number", placeholder: "seed", id: "source-seed", "aria-label": "Seed of a new source"});
function addSeed() {
  const text = seed.value.trim() || String(Math.floor(Math.random() * 100000));
  if (!/^\d{1,10}$/.test(text) || Number(text) >= 2 ** 32) return studio.say("A seed is a whole number from 0 to 4294967295.", "bad");
  add({seed: Number(text), name: `seed ${Number(text)}`});
  seed.value = "";
}
seed.addEventListener("keydown", event => { if (event.key === "Enter") addSeed(); });
async function addPicture(file) {
  const data = file && await studio.readFile(file);
  const answer = data && await studio.call("source", {session: studio.session, data});
  if (answer) add(answer.source);
}
async function addPresent() {
  const answer = await studio.call("source", {session: studio.session});
  if (answer) add(answer.source);
}
const adders = h("div", {class: "sg-adders"},
  h("div", {class: "sg-group"}, seed, button("plus", "Add the picture of this seed (empty: a random one)", addSeed, "Seed")),
  button("plus", "Add the picture that is shown now", addPresent, "This picture"),
  button("image", "Add a saved PNG; it can also be dropped here", async () => addPicture(await studio.pickFile("image/png")), "Saved PNG"));
studio.dropZone(root, addPicture);

function fillShelf() {
  const groups = Object.entries(studio.facts.groups);
  shelf.replaceChildren(...sources().map((source, index) => {
    const card = h("div", {class: `sg-source ${index === chosen ? "sg-chosen" : ""}`},
      h("button", {type: "button", class: "sg-face", title: `Use ${source.name} for rows that have no source yet`,
                   onclick: () => { chosen = index; fillShelf(); }}, thumb(index), h("b", {}, letter(index))),
      h("div", {class: "sg-takes"}, h("span", {title: source.name}, source.name),
        h("div", {class: "sg-take"}, ...groups.map(([name, [first, last]]) =>
          h("button", {type: "button", class: "sg-choice", title: `Take the ${name} layers from ${source.name}`,
                       disabled: first > last, onclick: () => write(first, last, index, 1)}, name)))),
      button("close", `Remove ${source.name}`, () => remove(index), "", "sg-remove"));
    return card;
  }));
  shelf.hidden = !sources().length;
}

// --- masters and layers -----------------------------------------------------------------------------------------------
function weightRow(id, label, help, first, last) {
  const mean = () => {
    let sum = 0;
    for (let index = first; index <= last; index++) sum += rowAt(index)[1];
    return Math.round(1000 * sum / (last - first + 1)) / 1000;
  };
  return slider({id, label, help, low: 0, high: 1, step: 0.01, start: () => 0, read: mean,
                 write: (value, dragging) => value === 0 && !sources().length ? refresh() : write(first, last, null, value, dragging)});
}
function layerRow(index) {
  const layer = studio.facts.layers[index], size = layer.resolution ? `${layer.resolution} px` : "";
  const row = weightRow(`mix-${index}`, `${index} · ${size}`, `W+ row ${index}: ${layer.names}`, index, index);
  const chips = h("div", {class: "sg-chips", role: "group", "aria-label": `Source of layer ${index}`});
  row.classList.add("sg-layer");
  row.firstElementChild.after(chips);
  const refreshSlider = row.refresh;
  row.refresh = () => {
    refreshSlider();
    const [present] = rowAt(index);
    if (chips.childElementCount !== sources().length)
      chips.replaceChildren(...sources().map((source, each) => h("button", {type: "button", class: "sg-chip", title: source.name, onclick: () => {
        const [now, weight] = rowAt(index);
        now === each && weight ? write(index, index, -1, 0) : write(index, index, each, weight || 1);
      }}, letter(each))));
    [...chips.children].forEach((chip, each) => chip.setAttribute("aria-pressed", String(each === present && rowAt(index)[1] > 0)));
  };
  return row;
}
const mastersBox = h("div", {class: "sg-masters"}), layersBox = h("div", {class: "sg-layers"});
function build() {
  masters = Object.entries(studio.facts.groups).filter(([, [first, last]]) => first <= last).map(([name, [first, last]]) =>
    weightRow(`master-${name}`, name, `All layers ${first} to ${last} at once`, first, last));
  rows = studio.facts.layers.map((_, index) => layerRow(index));
  mastersBox.replaceChildren(...masters);
  layersBox.replaceChildren(...rows);
  known = "";
  refresh();
}
let known = "";
function refresh() {
  if (!studio.session) return;
  for (const row of [...masters, ...rows]) row.refresh();
  const {psi, cutoff, label, model} = studio.request, now = JSON.stringify([sources(), psi, cutoff, label, model]);
  if (now !== known && !busy) { known = now; fillShelf(); }
  element.dataset.rows = rows.length;
}
let busy = false;
studio.on("session", element, ({dragging}) => { busy = dragging; refresh(); });
studio.on("model", element, build);
root.append(adders, shelf, mastersBox, layersBox);
if (studio.facts) build();
