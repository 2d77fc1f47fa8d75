// The history under the picture: every change a thumbnail, branches below one another; a click returns to any of them.
const {h, button} = studio, tree = studio.tree;
const root = element.firstElementChild, STEP = 50, LANE = 50, SIDE = 44, OPEN = "stylegan-studio-history-open";
const SVG = "http://www.w3.org/2000/svg";
let picking = false, folded = false;
try { folded = (localStorage.getItem(OPEN) ?? String(innerWidth > 760)) !== "true"; } catch { /* private window */ }

const tiles = new Map(), lines = document.createElementNS(SVG, "path"), drawing = document.createElementNS(SVG, "svg");
drawing.append(lines);
drawing.setAttribute("aria-hidden", "true");
const field = h("div", {class: "sg-field"}, drawing), box = h("div", {class: "sg-tree"}, field);
const about = h("span", {class: "sg-dim sg-step", id: "history-label"});
const count = h("span", {class: "sg-count"});
const fold = h("button", {type: "button", class: "sg-fold", "aria-expanded": "true", title: "Show or hide the history", onclick: () => show(!folded)}, "History", count);
const star = button("star", "Star this step, so that it is never forgotten", () => tree.star(tree.head));
const compare = button("halves", "Choose another step to see beside the present one", () => pick(!picking));
const save = button("download", "Save the whole history as one file", () => {
  const blob = new Blob([tree.toText()], {type: "application/json"}), address = URL.createObjectURL(blob);
  h("a", {href: address, download: "history.json"}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  studio.say(`history.json holds all ${tree.nodes.size} steps.`, "good");
});
const load = button("open", "Add a saved history to this one", async () => take(await studio.pickFile(".json")));
const clear = button("trash", "Forget all steps but the present one", () => {
  if (!clear.classList.contains("sg-sure")) { sure(true); return studio.say("Press again to forget every step but the present one; save the history first to keep it."); }
  sure(false);
  tree.clear();
});
function sure(yes) {
  clear.classList.toggle("sg-sure", yes);
  clearTimeout(clear.timer);
  if (yes) clear.timer = setTimeout(() => sure(false), 4000);
}
async function take(file) {
  if (!file) return;
  if (file.size > 48 * 2 ** 20) return studio.say(`${file.name} is larger than 48 MB, which no history is.`, "bad");
  await tree.take(await file.text());
}
function pick(yes) {
  picking = yes;
  root.classList.toggle("sg-picking", yes);
  compare.setAttribute("aria-pressed", String(yes));
  if (yes) studio.say("Click the step to compare the present picture with.");
}
function show(hide) {
  folded = hide;
  try { localStorage.setItem(OPEN, String(!hide)); } catch { /* private window */ }
  root.classList.toggle("sg-folded", folded);
  fold.setAttribute("aria-expanded", String(!folded));
  if (!folded) draw();
}

// Each chain of first children keeps to one lane; a branch takes the lowest free lane below the one it leaves.
function layout() {
  const kids = new Map(), places = new Map(), taken = [];
  for (const node of tree.nodes.values()) {
    const parent = tree.nodes.has(node.parent) ? node.parent : null;
    kids.set(parent, [...(kids.get(parent) || []), node]);
  }
  const waiting = (kids.get(null) || []).map(node => [node, 0, 0]).reverse();
  while (waiting.length) {
    const [first, x, floor] = waiting.pop(), chain = [];
    for (let node = first; node; node = kids.get(node.id)?.[0]) chain.push(node);
    let lane = floor;
    const from = x - 1, to = x + chain.length;
    while (taken[lane]?.some(([low, high]) => from < high && low < to)) lane++;
    (taken[lane] = taken[lane] || []).push([x, to]);
    chain.forEach((node, index) => places.set(node.id, [x + index, lane]));
    for (let index = chain.length - 1; index >= 0; index--)
      for (const other of (kids.get(chain[index].id) || []).slice(1).reverse()) waiting.push([other, x + index + 1, lane + 1]);
  }
  return places;
}
function tileOf(node) {
  let tile = tiles.get(node.id);
  if (!tile) {
    tile = h("button", {type: "button", class: "sg-node", onclick: event => choose(node.id, event.shiftKey),
      onpointerenter: () => { about.textContent = tile.title; }, onpointerleave: tell}, h("img", {alt: "", draggable: false}));
    tile.dataset.node = node.id;
    tiles.set(node.id, tile);
    field.append(tile);
  }
  const image = tile.firstElementChild;
  if (node.thumb && image.getAttribute("src") !== node.thumb) image.src = node.thumb;
  tile.title = node.label;
  tile.classList.toggle("sg-starred", node.star);
  tile.setAttribute("aria-label", `Step: ${node.label}`);
  tile.setAttribute("aria-current", node.id === tree.head ? "step" : "false");
  return tile;
}
function choose(id, comparing) {
  if (!picking && !comparing) return tree.go(id);
  pick(false);
  const node = tree.nodes.get(id);
  studio.emit("pin", {session: node.session, name: node.label});
}
function tell() { about.textContent = tree.nodes.get(tree.head)?.label || ""; }
let planned = false, seen = null;
function draw() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    count.textContent = tree.nodes.size > 1 ? ` ${tree.nodes.size}` : "";
    const now = tree.nodes.get(tree.head);
    star.classList.toggle("sg-on", Boolean(now?.star));
    star.setAttribute("aria-pressed", String(Boolean(now?.star)));
    clear.disabled = compare.disabled = tree.nodes.size < 2;
    tell();
    element.dataset.steps = tree.nodes.size;
    element.dataset.head = tree.head;
    if (folded) return;
    const places = layout(), path = [];
    let wide = 0, deep = 0;
    for (const [id, tile] of tiles) if (!tree.nodes.has(id)) { tile.remove(); tiles.delete(id); }
    for (const node of tree.nodes.values()) {
      const [x, y] = places.get(node.id), tile = tileOf(node), from = places.get(node.parent);
      tile.style.left = `${x * STEP}px`; tile.style.top = `${y * LANE}px`;
      wide = Math.max(wide, x); deep = Math.max(deep, y);
      if (from) {
        const [ax, ay] = [from[0] * STEP + SIDE / 2, from[1] * LANE + SIDE / 2], [bx, by] = [x * STEP + SIDE / 2, y * LANE + SIDE / 2];
        path.push(ay === by ? `M${ax} ${ay}H${bx}` : `M${ax} ${ay}V${by - 8}Q${ax} ${by} ${ax + 8} ${by}H${bx}`);
      }
    }
    lines.setAttribute("d", path.join(""));
    field.style.width = `${wide * STEP + SIDE}px`; field.style.height = `${deep * LANE + SIDE}px`;
    root.style.setProperty("--lanes", Math.min(deep + 1, 2));
    if (tree.head !== seen && places.has(tree.head)) {
      const [x, y] = places.get(tree.head);
      box.scrollTo({left: x * STEP - box.clientWidth + 2 * STEP, top: y * LANE - LANE / 2});
      seen = tree.head;
    }
  });
}
studio.on("history", element, draw);
studio.dropZone(root, take);
root.append(h("div", {class: "sg-steps"}, fold, about, star, compare, save, load, clear), box);
root.classList.toggle("sg-folded", folded);
fold.setAttribute("aria-expanded", String(!folded));
tree.ready.then(draw);
