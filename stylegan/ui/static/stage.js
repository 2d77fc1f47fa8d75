// The live picture: a canvas that is also the drag pad over the seed plane, the wipe against a pinned state, and files.
const {h, button, icon} = studio;
const SEEDS_ACROSS = 2.5, ROW = 100, SEEDS = 2 ** 32;   // NVIDIA's visualizer lays seeds out as x + 100 y

const canvas = h("canvas", {tabIndex: 0, "aria-label": "Picture. Drag, or press the arrow keys, to walk between seeds."});
canvas.setAttribute("role", "application");
const before = h("canvas", {class: "sg-before", "aria-hidden": "true"});
const wipe = h("input", {type: "range", min: 0, max: 100, step: 0.5, value: 50, class: "sg-wipe",
                         "aria-label": "Wipe between the pinned and the present picture"});
const compass = h("div", {class: "sg-compass", "aria-hidden": "true"});
const tags = h("div", {class: "sg-tags"});
const frame = h("div", {class: "sg-frame"}, canvas, before, tags, wipe, compass, h("div", {class: "sg-drop"}, "Drop to open"));
const timing = h("button", {type: "button", class: "sg-timing", title: "How quick this machine is, and what would make it quicker",
                            onclick: () => examine()}, "waiting for the model…");
const doctor = h("div", {class: "sg-doctor", hidden: true, role: "status"});
const where = h("span", {class: "sg-where"});
const said = h("div", {class: "sg-said", role: "status", "aria-live": "polite"},
  "Drag the picture to walk between seeds. Drop a saved PNG on it to get all of its settings back.");

// --- drawing: latest wins; one request in flight nearby, up to four over a slow line -------------------------------
const context = canvas.getContext("2d");
let wanted = null, flying = 0, sequence = 0, shown = 0, trip = 30;

async function show(answer, number, started, session) {
  const picture = new Image();
  picture.src = answer.src;
  await picture.decode();
  if (number <= shown) return;                                            // a later one was quicker
  shown = number;
  canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
  context.drawImage(picture, 0, 0);
  frame.classList.remove("sg-waiting", "sg-stale");
  const way = `${Math.round(performance.now() - started)} ms to the page`;
  timing.textContent = answer.preview ? `preview ${canvas.width} px · ${answer.ms} ms` : `${answer.ms} ms · ${answer.path} · ${way}`;
  frame.classList.toggle("sg-preview", Boolean(answer.preview));
  element.dataset.shown = number;
  element.dataset.preview = Boolean(answer.preview);
  if (answer.preview) return;
  if (session) studio.emit("shown", {session, canvas});
  compare();
}
async function draw({session, whole, dragging}, number) {
  flying++;
  const started = performance.now();
  try {
    const answer = await server.render({page: studio.page, session, sequence: number, dragging});
    trip += 0.2 * (performance.now() - started - trip);
    if (answer.src && number > shown) {
      await show(answer, number, started, whole === session && !dragging ? session : null);
      if (session.request.model === studio.facts.name && answer.digest !== studio.facts.hash)
        studio.openModel(studio.facts.name);                              // the file now holds another model
    } else if (answer.error && number > shown) { frame.classList.add("sg-stale"); studio.say(answer.error, "bad"); }
  } catch {
    frame.classList.add("sg-stale");
    studio.say("The server does not answer. Is it still running? Nothing on this page is lost.", "bad");
    await new Promise(done => setTimeout(done, 500));
  } finally { flying--; pump(); }
}
function pump() {
  const depth = Math.max(1, Math.min(4, Math.round(trip / 33)));
  if (wanted && flying < depth) {
    const next = wanted;
    wanted = null;
    draw(next, ++sequence);
  }
  element.dataset.busy = Boolean(flying || wanted);
}
studio.on("session", element, ({dragging}) => {
  place();
  if (dragging && !studio.live) return;
  const ready = studio.first;
  studio.first = null;
  if (ready) return show(ready.answer, ++sequence, ready.started, studio.session);
  wanted = {session: studio.view(studio.session), whole: studio.session, dragging: Boolean(dragging)};
  pump();
});

// --- the pad: the picture walks over the plane of seeds -------------------------------------------------------------
function moved(request, right, down) {
  const x = request.dx + right, y = request.dy + down, wholeX = Math.floor(x), wholeY = Math.floor(y);
  const fraction = v => Math.min(0.9999, Math.max(0, Math.round(v * 1e4) / 1e4));
  const seed = (((request.seed + wholeX + ROW * wholeY) % SEEDS) + SEEDS) % SEEDS;
  return {seed, dx: fraction(x - wholeX), dy: fraction(y - wholeY)};
}
function walk(request, right, down, dragging) {
  const change = moved(request, right, down);
  if (request.ws) { change.ws = null; studio.say("You left the restored latent for the seed plane. Undo brings it back."); }
  studio.set(change, dragging);
}
let grip = null;
canvas.addEventListener("pointerdown", event => {
  if (!studio.session || event.button) return;
  grip = {x: event.clientX, y: event.clientY, request: studio.request, moved: false};
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", event => {
  if (!grip) return;
  const scale = SEEDS_ACROSS / canvas.clientWidth;
  const right = (grip.x - event.clientX) * scale, down = (grip.y - event.clientY) * scale;
  if (!grip.moved && Math.hypot(right, down) < 0.01) return;
  grip.moved = true;
  frame.classList.add("sg-walking");
  walk(grip.request, right, down, true);
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => {
  if (grip && grip.moved) studio.replace(studio.session);
  grip = null;
  frame.classList.remove("sg-walking");
});
canvas.addEventListener("keydown", event => {
  const step = event.shiftKey ? 1 : 0.1;
  const by = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key];
  if (!by || !studio.session) return;
  event.preventDefault();
  walk(studio.request, ...by, false);
});
function place() {
  const {seed, dx, dy, ws} = studio.request, whole = !dx && !dy;
  where.textContent = ws ? "restored latent" : whole ? `seed ${seed}` : `seed ${seed} + (${dx.toFixed(2)}, ${dy.toFixed(2)})`;
  compass.style.setProperty("--x", dx); compass.style.setProperty("--y", dy);
  snap.hidden = whole || Boolean(ws);
  undo.disabled = !studio.tree.canUndo; redo.disabled = !studio.tree.canRedo;
  const {request, sources, rows} = studio.session;
  all.disabled = Object.keys(request).length <= 1 && !sources.length && !rows.length;
}

// --- before and after -------------------------------------------------------------------------------------------------
let pinned = null, pins = 0, mode = "wipe";
const heat = h("canvas", {class: "sg-heat", "aria-hidden": "true"});
const name = h("span", {}, "pinned"), most = h("span", {class: "sg-most"});
function pinNow() {
  pinned = studio.session;
  before.width = canvas.width; before.height = canvas.height;
  before.getContext("2d").drawImage(canvas, 0, 0);
  name.textContent = "pinned";
  compare();
  studio.say("Pinned. Change anything, and drag the line across the picture to compare.");
}
async function pin({session, name: words}) {
  const answer = await studio.call("render", {page: `${studio.page}-pin`, session, sequence: ++pins});
  if (!answer || !answer.src) return;
  const picture = new Image();
  picture.src = answer.src;
  await picture.decode();
  pinned = session;
  before.width = picture.naturalWidth; before.height = picture.naturalHeight;
  before.getContext("2d").drawImage(picture, 0, 0);
  name.textContent = words;
  compare();
  element.dataset.pinned = pins;
}
function unpin() { pinned = null; compare(); }
function compare() {
  const differs = Boolean(pinned) && mode === "difference";
  frame.classList.toggle("sg-pinned", Boolean(pinned));
  frame.classList.toggle("sg-differs", differs);
  pinButton.hidden = Boolean(pinned);
  frame.style.setProperty("--wipe", `${wipe.value}%`);
  other.textContent = differs ? "Wipe" : "Difference";
  other.title = differs ? "Compare with a line across the picture" : "Show where the two differ, the brighter the more";
  if (differs) paintDifference();
}
// Where the two pictures differ: the mean over the channels, stretched so that the largest is brightest.
function paintDifference() {
  const {width, height} = canvas, scratch = document.createElement("canvas");
  scratch.width = heat.width = width; scratch.height = heat.height = height;
  const old = scratch.getContext("2d", {willReadFrequently: true});
  old.drawImage(before, 0, 0, width, height);
  const a = old.getImageData(0, 0, width, height).data, b = context.getImageData(0, 0, width, height);
  const far = new Float32Array(width * height);
  let top = 0;
  for (let at = 0; at < far.length; at++) {
    const i = 4 * at;
    far[at] = (Math.abs(a[i] - b.data[i]) + Math.abs(a[i + 1] - b.data[i + 1]) + Math.abs(a[i + 2] - b.data[i + 2])) / 3;
    if (far[at] > top) top = far[at];
  }
  const scale = 1 / Math.max(top, 8);
  for (let at = 0; at < far.length; at++) {
    const v = far[at] * scale, i = 4 * at;
    b.data[i] = 255 * Math.min(1, 2.2 * v); b.data[i + 1] = 255 * Math.min(1, Math.max(0, 1.8 * v - 0.5)); 
    b.data[i + 2] = 255 * Math.max(0.12 * (1 - v), 3 * v - 2); b.data[i + 3] = 255;
  }
  heat.getContext("2d").putImageData(b, 0, 0);
  most.textContent = top ? `up to ${Math.round(top)} of 255` : "no difference";
  element.dataset.difference = Math.round(top);
}
wipe.addEventListener("input", compare);
const pinButton = button("pin", "Pin this picture, to compare the next ones with it", pinNow, "Compare");
const other = button(null, "", () => { mode = mode === "wipe" ? "difference" : "wipe"; compare(); }, "Difference", "sg-mode");
tags.append(name, button("back", "Go back to the pinned state", () => studio.adopt(pinned)),
            button("close", "Stop comparing", unpin), other, most, h("span", {class: "sg-grow"}), h("span", {class: "sg-now"}, "now"));
before.after(heat);
studio.on("pin", element, pin);

async function examine() {
  doctor.hidden = !doctor.hidden || !studio.session;
  if (doctor.hidden) return;
  doctor.textContent = "measuring…";
  const answer = await studio.call("speed", {session: studio.session});
  doctor.hidden = !answer;
  if (answer) doctor.replaceChildren(...[answer.line, ...answer.advice].map(line => h("p", {}, line)));
}

// --- files --------------------------------------------------------------------------------------------------------------
async function save() {
  const answer = await studio.call("save", {session: studio.session});
  if (!answer) return;
  h("a", {href: `data:image/png;base64,${answer.data}`, download: answer.name}).click();
  studio.say(`${answer.name} holds the picture, and all its settings. ${answer.about}`.trim(), "good");
}
async function restoreFrom(file) {
  if (!file) return;
  if (studio.isModel(file)) return studio.emit("arrives", file);
  const data = await studio.readFile(file);
  const answer = data && await studio.call("restore", {data, session: studio.session});
  if (answer) { unpin(); studio.take(answer, true, `opened ${file.name}`); element.dataset.restored = answer.mood; }
}
studio.dropZone(frame, restoreFrom);
const snap = button("snap", "Snap to the nearest whole seed", () => {
  const {dx, dy} = studio.request;
  walk({...studio.request, dx: Math.round(dx), dy: Math.round(dy)}, 0, 0, false);
}, "Snap");
const undo = button("undo", "Undo", studio.undo), redo = button("redo", "Redo", studio.redo);
const all = button("reset", "Set every control back to its default", studio.reset, "Reset all");
all.id = "reset-all";

element.firstElementChild.append(
  frame,
  h("div", {class: "sg-caption"}, where, snap, timing),
  doctor,
  h("div", {class: "sg-tools"}, undo, redo, all, pinButton, h("span", {class: "sg-grow"}),
    button("open", "Restore the state of a saved PNG or JSON file", async () => restoreFrom(await studio.pickFile("image/png,.json")), "Open"),
    button("download", "Save the picture as a lossless PNG with its settings inside", save, "Download", "sg-primary")),
  said);
frame.classList.add("sg-waiting");
compare();

studio.on("said", element, ({text, mood}) => { said.textContent = text; said.className = `sg-said ${mood ? `sg-${mood}` : ""}`; });
for (const topic of ["settled", "history"]) studio.on(topic, element, () => studio.session && place());
studio.on("model", element, () => { frame.style.setProperty("--shape", studio.facts.shape); });
document.addEventListener("keydown", event => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)
      || !element.isConnected || !element.offsetParent) return;
  event.preventDefault();
  event.shiftKey ? studio.redo() : studio.undo();
});

// Python asks this page to show a model: {open: name}, with a stamp.
watch("value", () => { if (props.value && props.value.open) studio.openModel(props.value.open); });
if (studio.session) { studio.server = server; studio.emit("session", {dragging: false}); } else studio.start(server);
