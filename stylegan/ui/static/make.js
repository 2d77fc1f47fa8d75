// Making a direction: by sorting pictures, as the difference of two, by analogy, or from words.
const {h, button} = studio;
const root = element.firstElementChild, SHEET = 20;
const ask = (name, question = {}) => studio.call(name, {session: studio.session, ...question}, server);
let way = "sort", facts = null;

// --- sorting: click is yes, again is no, again is neither ---------------------------------------------------------------
const marks = new Map(), grid = h("div", {class: "sg-contacts sg-sorting"}), tally = h("span", {class: "sg-dim"});
const NEXT = {undefined: "yes", yes: "no", no: undefined};
let first = 0, drawn = "", stamp = 0;
function tileOf({seed, src}) {
  const tile = h("button", {type: "button", class: "sg-tile", onclick: () => {
    const mark = NEXT[marks.get(seed)];
    mark ? marks.set(seed, mark) : marks.delete(seed);
    tile.refresh(); count();
  }}, h("img", {src, alt: "", draggable: false}), h("span", {}));
  tile.refresh = () => {
    const mark = marks.get(seed) || "neither";
    tile.dataset.mark = mark; tile.dataset.seed = seed;
    tile.lastElementChild.textContent = {yes: "yes", no: "no", neither: ""}[mark];
    tile.setAttribute("aria-label", `Seed ${seed}: ${mark}`);
    tile.title = `Seed ${seed}: ${mark}. Click for ${NEXT[marks.get(seed)] || "neither"}.`;
  };
  tile.refresh();
  return tile;
}
const sorted = mark => [...marks].filter(([, each]) => each === mark).map(([seed]) => seed);
function count() {
  const yes = sorted("yes").length, no = sorted("no").length;
  tally.textContent = `${yes} yes, ${no} no`;
  madeFrom.sort.disabled = yes < 2 || no < 2;
}
const plain = () => {
  const {request} = studio.session;
  return {request: Object.fromEntries(["model", "psi", "cutoff", "label"].filter(key => key in request).map(key => [key, request[key]])), sources: [], rows: []};
};
async function drawGrid() {
  const key = JSON.stringify([first, plain()]);
  if (key === drawn || way !== "sort" || !box.open) return;
  const turn = ++stamp;
  drawn = key;
  const fresh = [];
  for (let at = 0; at < SHEET; at += 5) {
    const answer = await studio.call("sheet", {session: plain(), first: first + at, count: 5});
    if (turn !== stamp) return;
    if (!answer) { drawn = ""; return; }
    fresh.push(...answer.tiles.map(tileOf));
    grid.replaceChildren(...fresh, ...[...grid.children].slice(fresh.length));
  }
  element.dataset.sheet = first;
}

// --- pictures to take apart: A, B, C hold seeds, the present picture, or saved PNGs --------------------------------------
const slots = {A: [], B: [], C: []};
function slot(letter, about) {
  const shelf = h("div", {class: "sg-slot-shelf"});
  const seed = h("input", {type: "text", inputMode: "numeric", class: "sg-number", placeholder: "seed", "aria-label": `Seed for ${letter}`});
  const add = source => { if (source && slots[letter].length < 32) slots[letter].push(source); node.refresh(); };
  const addSeed = () => {
    if (!/^\d{1,10}$/.test(seed.value.trim()) || Number(seed.value) >= 2 ** 32) return studio.say("A seed is a whole number from 0 to 4294967295.", "bad");
    add({name: `seed ${Number(seed.value)}`, seed: Number(seed.value)});
    seed.value = "";
  };
  const addFile = async file => {
    const data = file && await studio.readFile(file);
    add((data && await studio.call("source", {session: studio.session, data}))?.source);
  };
  seed.addEventListener("keydown", event => { if (event.key === "Enter") addSeed(); });
  const node = h("div", {class: "sg-slot"}, h("b", {}, letter), h("span", {class: "sg-dim"}, about), shelf,
    h("div", {class: "sg-slot-tools"}, seed, button("plus", `Add this seed to ${letter}`, addSeed),
      button("pin", `Add the present picture to ${letter}`, async () => add((await studio.call("source", {session: studio.session}))?.source)),
      button("image", `Add a saved PNG to ${letter}; it can also be dropped here`, async () => addFile(await studio.pickFile("image/png")))));
  node.dataset.slot = letter;
  studio.dropZone(node, addFile);
  node.refresh = () => {
    shelf.replaceChildren(...slots[letter].map((source, at) => {
      const face = h("img", {alt: "", draggable: false});
      ask("face", {source}).then(answer => { if (answer) face.src = answer.src; });
      return h("button", {type: "button", class: "sg-face", title: `Take ${source.name} out of ${letter}`, "aria-label": `Take ${source.name} out of ${letter}`,
                          onclick: () => { slots[letter].splice(at, 1); node.refresh(); }}, face);
    }));
    ready();
  };
  return node;
}
function ready() {
  madeFrom.pair.disabled = !slots.A.length || !slots.B.length;
  madeFrom.analogy.disabled = !slots.A.length || !slots.B.length || !slots.C.length;
}

// --- the panel ---------------------------------------------------------------------------------------------------------------
const name = h("input", {type: "text", class: "sg-text", placeholder: "name it", maxLength: 64, id: "make-name", "aria-label": "Name of the new direction"});
const alone = h("span", {class: "sg-dim sg-alone"});
const text = h("input", {type: "text", class: "sg-text", placeholder: "a face with a beard", maxLength: 200, id: "make-text", "aria-label": "Words that describe what should appear"});
const from = h("input", {type: "text", class: "sg-text", placeholder: "a face", maxLength: 200, id: "make-text-from", "aria-label": "Words that describe it now"});
async function make(question, asked) {
  const label = name.value.trim();
  if (!label) { name.focus(); return studio.say("Give the direction a name first.", "bad"); }
  if (question === "make_text") studio.say("Reading the words and asking the channels; this can take a minute…");
  madeFrom[way].disabled = true;
  const answer = await ask(question, {...asked, name: label, against: [...(studio.picks || [])]});
  madeFrom[way].disabled = false;
  if (!answer) return;
  name.value = "";
  studio.emit("found", answer);
}
const madeFrom = {
  sort: button("check", "Find the direction from no to yes", () => make("make_sorted", {yes: sorted("yes"), no: sorted("no")}), "Make direction", "sg-primary"),
  pair: button("check", "Make the direction from B to A", () => make("make_difference", {a: slots.A, b: slots.B}), "Make direction", "sg-primary"),
  analogy: button("check", "Show what is to C as B is to A", async () => {
    const answer = await ask("analogy", {a: slots.A, b: slots.B, c: slots.C});
    if (answer) studio.take(answer);
  }, "Show the answer", "sg-primary"),
  text: button("check", "Find the direction that these words describe", () => make("make_text", {to: text.value.trim(), from: from.value.trim()}), "Make direction", "sg-primary"),
};
madeFrom.sort.id = "make-sorted"; madeFrom.pair.id = "make-difference"; madeFrom.analogy.id = "make-analogy"; madeFrom.text.id = "make-from-text";
const slotNodes = {A: slot("A", "with it"), B: slot("B", "without it"), C: slot("C", "and this one?")};
const help = h("p", {class: "sg-dim sg-hint"}), field = h("label", {class: "sg-named"}, "Name", name);
const parts = {
  sort: [grid, h("div", {class: "sg-bar"}, button("left", "Earlier pictures", () => page(-SHEET)), button("right", "More pictures", () => page(SHEET)), tally,
                 button("reset", "Forget all marks", () => { marks.clear(); for (const tile of grid.children) tile.refresh(); count(); }))],
  pair: [], analogy: [], text: [h("div", {class: "sg-words"}, h("label", {}, "From ", from), h("label", {}, "to ", text))],
};
function page(by) { first = Math.max(0, first + by); drawGrid(); }
const WAYS = [["sort", "Sort pictures"], ["pair", "A − B"], ["analogy", "A : B :: C : ?"], ["text", "From words"]];
const HELP = {
  sort: "Click a picture for yes, again for no, again for neither. A handful of each is enough.",
  pair: "The direction leads from B to A. Put one picture in each, or several that share what matters.",
  analogy: "A is to B as C is to the answer: what changes from A to B is added to C.",
};
const switcher = h("div", {class: "sg-segments", role: "group", "aria-label": "Way to make a direction"}, ...WAYS.map(([each, title]) =>
  h("button", {type: "button", class: "sg-choice", "aria-pressed": String(each === way), onclick: () => { way = each; show(); }}, title)));
const body = h("div", {class: "sg-make-body"}), foot = h("div", {class: "sg-bar sg-make-foot"});
const told = h("p", {class: "sg-dim sg-hint", hidden: true});
const box = h("details", {class: "sg-make-box", ontoggle: () => show()}, h("summary", {}, h("h2", {}, "Make a direction")), switcher, help, body, foot, told);
function show() {
  if (!box.open || !studio.session) return;
  [...switcher.children].forEach((node, at) => node.setAttribute("aria-pressed", String(WAYS[at][0] === way)));
  const noWords = way === "text" && facts && facts.words;
  help.textContent = way === "text" ? (facts ? facts.words || "Describe the picture as it is, and as it should become." : "…") : HELP[way];
  body.replaceChildren(...(noWords ? [] : way === "pair" ? [h("div", {class: "sg-slots"}, slotNodes.A, slotNodes.B)]
    : way === "analogy" ? [h("div", {class: "sg-slots sg-three"}, slotNodes.A, slotNodes.B, slotNodes.C)] : parts[way]));
  for (const letter of "ABC") slotNodes[letter].querySelector(".sg-dim").textContent = way === "analogy" ? {A: "is to", B: "as", C: "is to the answer"}[letter] : {A: "with it", B: "without it", C: ""}[letter];
  foot.replaceChildren(...(noWords ? [] : [...(way === "analogy" ? [] : [field, alone]), h("span", {class: "sg-grow"}), madeFrom[way]]));
  told.hidden = !facts || !facts.told || way === "analogy";
  told.textContent = facts?.told || "";
  for (const letter of "ABC") slotNodes[letter].refresh();
  count();
  drawGrid();
}
function leftAlone() {
  const names = [...(studio.picks || [])];
  alone.textContent = names.length ? `leaves ${names.slice(0, 3).join(", ")}${names.length > 3 ? "…" : ""} alone` : "pick directions above that it must leave alone";
}
studio.on("picks", element, leftAlone);
studio.on("settled", element, drawGrid);
studio.on("model", element, () => { marks.clear(); slots.A = []; slots.B = []; slots.C = []; first = 0; drawn = ""; show(); });
box.addEventListener("toggle", async () => { if (!facts && box.open) { facts = await ask("ways"); show(); } });
leftAlone();
root.append(box);
