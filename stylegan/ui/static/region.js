// Painting a region on the picture: a mask of 32 x 32 cells, with a brush, an eraser and the keyboard.
// "paint" {title, lead, read() -> mask or null when its row is gone, keep(mask), done(mask)} begins; "mask" (mask or null) only shows one.
const {h, button} = studio;
const root = element.firstElementChild, SIDE = 32;
let job = null, mask = new Uint8Array(SIDE * SIDE), stroke = null, erasing = false, radius = 4, at = {x: SIDE / 2, y: SIDE / 2};

const canvas = h("canvas", {width: SIDE, height: SIDE, class: "sg-mask", tabIndex: -1,
                            "aria-label": "Region. Drag to paint; or move with the arrow keys, paint with space, and finish with Escape."});
canvas.setAttribute("role", "application");
const ring = h("div", {class: "sg-ring", "aria-hidden": "true"});

function dab(x, y) {
  for (let row = 0; row < SIDE; row++) for (let column = 0; column < SIDE; column++) {
    const cover = Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(column + 0.5 - x, row + 0.5 - y))), cell = row * SIDE + column;
    mask[cell] = erasing ? Math.min(mask[cell], 255 * (1 - cover)) : Math.max(mask[cell], 255 * cover);
  }
  studio.drawMask(canvas, mask);
}
function point(event) {
  const box = canvas.getBoundingClientRect();
  return {x: SIDE * (event.clientX - box.left) / box.width, y: SIDE * (event.clientY - box.top) / box.height};
}
function aim(where) {
  at = {x: Math.max(0, Math.min(SIDE, where.x)), y: Math.max(0, Math.min(SIDE, where.y))};
  ring.style.cssText = `left: ${100 * at.x / SIDE}%; top: ${100 * at.y / SIDE}%; width: ${200 * radius / SIDE}%; height: ${200 * radius / SIDE}%;`;
}
function line(from, to) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / (radius / 2)));
  for (let step = 1; step <= steps; step++) dab(from.x + (to.x - from.x) * step / steps, from.y + (to.y - from.y) * step / steps);
}
canvas.addEventListener("pointerdown", event => {
  if (!job || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  stroke = point(event);
  aim(stroke); dab(stroke.x, stroke.y);
  frame().classList.add("sg-stroking");
});
canvas.addEventListener("pointermove", event => {
  aim(point(event));
  if (stroke) { line(stroke, at); stroke = {...at}; }
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { if (stroke) { stroke = null; keep(); } });
canvas.addEventListener("keydown", event => {
  const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key], step = event.shiftKey ? 4 : 1;
  if (event.key === "Escape") finish();
  else if (event.key === " " || event.key === "Enter") { dab(at.x, at.y); keep(); }
  else if (by) aim({x: at.x + step * by[0], y: at.y + step * by[1]});
  else return;
  event.preventDefault();
});
function keep() {
  frame().classList.remove("sg-stroking");
  if (job) job.keep(mask.slice());
}
const frame = () => document.querySelector(".sg-frame");
function show(on) {
  if (!canvas.isConnected && frame()) frame().append(canvas, ring);
  if (frame()) { frame().classList.toggle("sg-masked", on); frame().classList.toggle("sg-painting", Boolean(job)); }
  canvas.tabIndex = job ? 0 : -1;
}
function begin(next) {
  if (job && job.title === next.title) return finish();
  job = next;
  mask = job.read() || new Uint8Array(SIDE * SIDE);
  lead.textContent = job.lead || "Painting where it acts: ";
  title.textContent = job.lead ? "" : job.title;
  bar.hidden = false;
  show(true); aim(at); studio.drawMask(canvas, mask);
  canvas.focus({preventScroll: true});
  if (getComputedStyle(bar).position !== "fixed") bar.scrollIntoView({block: "nearest"});
  element.dataset.painting = job.title;
}
function finish() {
  if (!job) return;
  const {done} = job;
  job = null; bar.hidden = true;
  show(false);
  delete element.dataset.painting;
  if (done) done(mask.slice());
}
studio.on("paint", element, begin);
studio.on("mask", element, shown => {
  if (job) return;
  if (shown) { show(true); studio.drawMask(canvas, shown); }
  frame()?.classList.toggle("sg-masked", Boolean(shown && shown.some(Boolean)));
});
studio.on("session", element, () => {
  if (!job || stroke) return;
  const now = job.read();
  if (!now) return finish();
  mask = now;
  studio.drawMask(canvas, mask);
});
studio.on("model", element, finish);

const lead = h("span", {}), title = h("b", {}), size = h("input", {type: "range", min: 1, max: 12, step: 0.5, value: radius, id: "region-size", "aria-label": "Size of the brush"});
size.addEventListener("input", () => { radius = Number(size.value); aim(at); });
const tools = [["brush", "Brush", false], ["eraser", "Eraser", true]].map(([, text, erases]) =>
  h("button", {type: "button", class: "sg-choice", "aria-pressed": String(erasing === erases), onclick: event => {
    erasing = erases;
    for (const each of tools) each.setAttribute("aria-pressed", String(each === event.currentTarget));
  }}, text));
const change = to => { mask = mask.map(to); studio.drawMask(canvas, mask); keep(); };
const bar = h("div", {class: "sg-paintbar", hidden: true, role: "group", "aria-label": "Region"},
  h("span", {class: "sg-paint-title"}, lead, title),
  h("div", {class: "sg-bar"}, h("div", {class: "sg-segments"}, ...tools), h("label", {class: "sg-size"}, "Size", size),
    button("invert", "Invert the region", () => change(value => 255 - value), "", ""),
    button("trash", "Clear the region: then it acts everywhere", () => change(() => 0), "", ""),
    h("span", {class: "sg-grow"}), button("check", "Finish painting", finish, "Done", "sg-primary")));
root.append(bar);
