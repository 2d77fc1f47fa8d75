// Directions: a slider per direction in standard deviations, its layers and switch, and a strip on the present picture.
const {h, button, slider, icon} = studio;
const root = element.firstElementChild;
const KINDS = [["attribute", "Named"], ["pca", "PCA"], ["sefa", "SeFa"]], USED = "in use", RANGE = 5;
let kind = null, rows = [], chosen = null, answerStamp = 0;

const full = edit => ({strength: 1, layers: null, enabled: true, ...edit});
const find = (name, nth = 0) => {
  const found = studio.edits.filter(edit => edit.direction === name)[nth];
  return found ? full(found) : {direction: name, strength: 0, layers: null, enabled: true};
};
function write(name, nth, change, dragging) {
  const next = {...find(name, nth), ...change}, edits = studio.edits.map(full);
  const at = edits.map((edit, index) => edit.direction === name ? index : -1).filter(index => index >= 0)[nth];
  const idle = next.strength === 0 && next.enabled && !next.layers && !dragging;
  if (at === undefined) { if (!idle) edits.push(next); }
  else if (idle) edits.splice(at, 1);
  else edits[at] = next;
  studio.set({edits}, dragging);
}

// --- the strip --------------------------------------------------------------------------------------------------------
const tiles = h("div", {class: "sg-tiles"}), title = h("span", {}), about = h("span", {class: "sg-dim"});
const strip = h("div", {class: "sg-strip"}, h("div", {class: "sg-strip-title"}, title, about), tiles);
function choose(name) {
  if (chosen === name) return;
  chosen = name;
  for (const row of rows) row.classList.toggle("sg-chosen", row.direction === name);
  redraw();
}
const redraw = studio.whenSeen(element, async () => {
  if (!chosen || !studio.facts.directions.length) return;
  const stamp = ++answerStamp, name = chosen;
  const answer = await studio.call("strip", {session: studio.session, direction: name, layers: find(name).layers});
  if (!answer || stamp !== answerStamp) return;
  const present = find(name).strength;
  title.textContent = `${name}, in standard deviations`;
  about.textContent = answer.about;
  tiles.replaceChildren(...answer.tiles.map(({strength, src}) =>
    h("button", {type: "button", class: "sg-tile", "aria-pressed": String(Math.abs(strength - present) < 0.05),
                 title: `Set ${name} to ${strength}`, onclick: () => write(name, 0, {strength, enabled: true}, false)},
      h("img", {src, alt: "", draggable: false}), h("span", {}, strength > 0 ? `+${strength}` : String(strength)))));
  element.dataset.strip = name;
});

// --- the list ---------------------------------------------------------------------------------------------------------
function layersControl(name, nth) {
  const most = studio.facts.num_ws - 1, own = studio.facts.directions.find(each => each.name === name).layers;
  const ends = ["First", "Last"].map(which => h("input", {type: "number", min: 0, max: most, step: 1, class: "sg-end",
    "aria-label": `${which} layer of ${name}`, title: `${which} layer that moves (0 to ${most})`}));
  const node = h("div", {class: "sg-ends"}, ends[0], h("span", {}, "–"), ends[1]);
  const save = changed => {
    let [first, last] = ends.map(end => Math.min(most, Math.max(0, Math.round(Number(end.value) || 0))));
    if (first > last) changed === ends[0] ? last = first : first = last;
    const layers = first === own[0] && last === own[1] ? null : [first, last];
    write(name, nth, {layers}, false);
  };
  for (const end of ends) end.addEventListener("change", () => save(end));
  node.refresh = () => {
    const layers = find(name, nth).layers || own;
    ends.forEach((end, index) => { if (document.activeElement !== end) end.value = layers[index]; });
  };
  return node;
}
function editRow(name, nth) {
  const row = slider({id: `edit-${name.replace(/[^A-Za-z0-9]+/g, "-")}${nth ? `-${nth}` : ""}`, label: name,
    help: "Standard deviations along this direction; click the name to see it on the picture", wide: true,
    low: -RANGE, high: RANGE, step: 0.05, origin: 0, start: () => 0, read: () => find(name, nth).strength,
    write: (strength, dragging) => { choose(name); write(name, nth, {strength}, dragging); }});
  const toggle = h("input", {type: "checkbox", class: "sg-switch", title: "Switch this direction on or off", "aria-label": `${name} on`,
                             onchange: () => write(name, nth, {enabled: toggle.checked}, false)});
  const ends = layersControl(name, nth), undo = row.lastElementChild, label = row.firstElementChild, refreshSlider = row.refresh;
  row.direction = name;
  row.classList.add("sg-edit");
  row.prepend(toggle);
  undo.before(ends);
  undo.replaceWith(row.undo = button("reset", `Reset ${name}`, () => write(name, nth, {strength: 0, layers: null, enabled: true}, false), "", "sg-reset"));
  label.addEventListener("click", () => choose(name));
  row.refresh = () => {
    refreshSlider();
    const edit = find(name, nth), changed = edit.strength !== 0 || !edit.enabled || Boolean(edit.layers);
    toggle.checked = edit.enabled;
    row.classList.toggle("sg-changed", changed); row.classList.toggle("sg-off", !edit.enabled);
    row.undo.disabled = !changed;
    ends.refresh();
  };
  return row;
}
const filters = h("div", {class: "sg-segments sg-kinds", role: "group", "aria-label": "Kind of direction"});
const list = h("div", {class: "sg-edits"});
const clear = button("reset", "Reset all directions", () => studio.set({edits: []}), "Reset directions");
function fill() {
  const all = studio.facts.directions, counts = {};
  const names = kind === USED ? studio.edits.map(edit => edit.direction) : all.filter(each => group(each) === kind).map(each => each.name);
  rows = names.filter(name => all.some(each => each.name === name)).map(name => editRow(name, (counts[name] = (counts[name] ?? -1) + 1)));
  list.replaceChildren(...rows);
  if (!rows.length) list.append(h("p", {class: "sg-dim"}, kind === USED ? "No direction is in use." : "This model has no directions yet. "
    + `Find some with: python -m stylegan directions ${studio.facts.name} --method pca`));
  for (const row of rows) { row.refresh(); row.classList.toggle("sg-chosen", row.direction === chosen); }
}
const group = direction => KINDS.some(([each]) => each === direction.kind) ? direction.kind : "attribute";
function build() {
  const all = studio.facts.directions;
  const kinds = KINDS.filter(([each]) => all.some(direction => group(direction) === each));
  kind = kinds.length ? kinds[0][0] : "attribute";
  chosen = all.length ? all.find(each => group(each) === kind).name : null;
  strip.hidden = filters.hidden = clear.hidden = !all.length;
  filters.replaceChildren(...[...kinds, [USED, "In use"]].map(([each, text]) =>
    h("button", {type: "button", class: "sg-choice", "aria-pressed": String(each === kind), onclick: event => {
      kind = each;
      for (const other of filters.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
      fill();
    }}, text)));
  tiles.replaceChildren(); title.textContent = about.textContent = "";
  fill();
  redraw();
}
studio.on("session", element, ({dragging}) => {
  if (kind === USED && !dragging && rows.length !== studio.edits.length) fill();
  for (const row of rows) row.refresh();
  clear.disabled = !studio.edits.length;
});
studio.on("model", element, build);
root.append(strip, h("div", {class: "sg-bar"}, filters, h("span", {class: "sg-grow"}), clear), list);
if (studio.facts) build();
