// Seed, class, truncation, noise and StyleGAN3's shift: every setting of the picture that is one number.
const {h, button, slider} = studio;
const SEEDS = 2 ** 32;
const root = element.firstElementChild;

let rows = [];
const set = (key, value, dragging) => studio.set({[key]: value}, dragging);
function number(key, label, shared = {}) {
  const option = studio.facts.options[key];
  return slider({id: key.replace("_", "-"), label, help: option.help, low: option.low, high: option.high, step: option.step || 1,
                 start: () => studio.facts.defaults[key], read: () => studio.request[key],
                 write: (value, dragging) => set(key, value, dragging), ...shared});
}

function seedRow() {
  const field = h("input", {type: "text", inputMode: "numeric", id: "seed", class: "sg-number sg-seed", "aria-label": "Seed"});
  const go = (seed, more = {}) => studio.set({seed: ((seed % SEEDS) + SEEDS) % SEEDS, dx: 0, dy: 0, ws: null, ...more});
  field.addEventListener("change", () => {
    const text = field.value.trim();
    if (/^\d{1,10}$/.test(text) && Number(text) < SEEDS) return go(Number(text));
    studio.say(`A seed is a whole number from 0 to ${SEEDS - 1}; the seed stays ${studio.request.seed}.`, "bad");
    field.value = studio.request.seed;
  });
  const undo = button("reset", "Reset the seed", () => go(0), "", "sg-reset");
  const label = h("label", {}, "Seed");
  label.htmlFor = "seed";
  const row = h("div", {class: "sg-row sg-seeds", id: "seed-row"}, label,
    h("div", {class: "sg-group"}, button("left", "Previous seed", () => go(studio.request.seed - 1)), field,
      button("right", "Next seed", () => go(studio.request.seed + 1)),
      button("dice", "A random seed", () => go(Math.floor(Math.random() * SEEDS)), "Random")), undo);
  row.refresh = () => {
    const {seed, dx, dy, ws} = studio.request;
    if (document.activeElement !== field || !dx) field.value = seed;
    const changed = Boolean(seed || dx || dy || ws);
    row.classList.toggle("sg-changed", changed); undo.disabled = !changed;
  };
  return row;
}

function choiceRow(id, label, choices, key, help) {
  const name = h("span", {class: "sg-name", title: help}, label);
  const undo = button("reset", `Reset ${label}`, () => set(key, studio.facts.defaults[key]), "", "sg-reset");
  const buttons = choices.map(([value, text]) =>
    h("button", {type: "button", class: "sg-choice", "aria-pressed": "false", onclick: () => set(key, value)}, text));
  const row = h("div", {class: "sg-row sg-seeds", id}, name, h("div", {class: "sg-segments", role: "group", "aria-label": label}, ...buttons), undo);
  row.refresh = () => {
    buttons.forEach((each, index) => each.setAttribute("aria-pressed", String(choices[index][0] === studio.request[key])));
    row.classList.toggle("sg-changed", !studio.isDefault(key)); undo.disabled = studio.isDefault(key);
  };
  return row;
}

function classRow() {
  const {num_classes: count, class_names: names} = studio.facts;
  const select = h("select", {id: "label", "aria-label": "Class"},
    ...Array.from({length: count}, (_, index) => h("option", {value: index}, names[index] || `class ${index}`)));
  const undo = button("reset", "Reset the class", () => set("label", null), "", "sg-reset");
  select.addEventListener("change", () => set("label", Number(select.value) || null));
  const row = h("div", {class: "sg-row sg-seeds", id: "class-row"}, h("span", {class: "sg-name"}, "Class"), select, undo);
  row.refresh = () => {
    select.value = studio.request.label ?? 0;
    row.classList.toggle("sg-changed", !studio.isDefault("label")); undo.disabled = studio.isDefault("label");
  };
  return row;
}

function build() {
  const {num_ws: layers, has_noise, num_classes, has_transform} = studio.facts;
  rows = [seedRow(), number("psi", "Truncation ψ", {origin: 0})];
  rows.push(number("cutoff", "Cutoff layer", {
    low: 0, high: layers, step: 1, start: () => layers, read: () => studio.request.cutoff ?? layers,
    write: (value, dragging) => set("cutoff", value >= layers ? null : Math.round(value), dragging)}));
  if (num_classes) rows.splice(1, 0, classRow());
  if (has_noise) rows.push(
    choiceRow("noise", "Noise", [["const", "constant"], ["none", "none"], ["random", "random"]], "noise", studio.facts.options.noise.help),
    number("noise_strength", "Noise strength", {origin: 1}),
    number("noise_seed", "Noise seed", {high: 999}));
  if (has_transform) for (const [key, label] of [["translate_x", "Shift right"], ["translate_y", "Shift down"], ["rotate", "Turn"], ["scale", "Scale"]]) {
    const option = studio.facts.transform[key];
    rows.push(slider({id: `transform-${key}`, label, help: option.help, low: option.low, high: option.high, step: option.step,
      origin: option.default, start: () => option.default, read: () => (studio.request.transform || {})[key] ?? option.default,
      write: (value, dragging) => {
        const next = {...studio.request.transform, [key]: value};
        for (const each of Object.keys(next)) if (next[each] === studio.facts.transform[each].default) delete next[each];
        set("transform", Object.keys(next).length ? next : null, dragging);
      }}));
  }
  settings.replaceChildren(...rows);
  refresh();
}
function refresh() {
  for (const row of rows) row.refresh();
  const random = document.getElementById("noise-seed"), strength = document.getElementById("noise-strength");
  if (random) random.hidden = studio.request.noise !== "random";
  if (strength) strength.hidden = studio.request.noise === "none";
  for (const row of rows) if (["psi", "cutoff"].includes(row.id)) row.classList.toggle("sg-idle", Boolean(studio.request.ws));
}

const settings = h("div", {class: "sg-settings"});
root.append(settings);
studio.on("model", element, build);
studio.on("session", element, refresh);
if (studio.facts) build();
