// The seed sheet: a contact sheet of neighbouring seeds; a click loads one.
const {h, button} = studio;
const root = element.firstElementChild, COUNT = 24, PART = 6, SEEDS = 2 ** 32;
let first = 0, stamp = 0, drawn = "";

const tiles = h("div", {class: "sg-contacts"});
const field = h("input", {type: "text", inputMode: "numeric", class: "sg-number sg-seed", id: "sheet-first", "aria-label": "First seed of the sheet"});
const whole = h("input", {type: "checkbox", class: "sg-box", id: "sheet-edits", onchange: () => redraw()});
const label = h("label", {}, "with my mix and directions");
label.htmlFor = "sheet-edits";
field.addEventListener("change", () => {
  if (/^\d{1,10}$/.test(field.value.trim()) && Number(field.value) < SEEDS) return turn(Number(field.value));
  studio.say(`A seed is a whole number from 0 to ${SEEDS - 1}.`, "bad");
  field.value = first;
});
function turn(seed) { first = Math.min(SEEDS - COUNT, Math.max(0, seed)); redraw(); }
const load = seed => studio.set({seed, dx: 0, dy: 0, ws: null});

const redraw = studio.whenSeen(element, async () => {
  field.value = first;
  const session = whole.checked ? studio.session : {...studio.session, sources: [], rows: [], request: {...studio.session.request, edits: []}};
  const request = {...session.request, seed: 0, dx: 0, dy: 0, ws: null}, key = JSON.stringify([first, request, session.rows, session.sources]);
  mark();
  if (key === drawn) return;
  drawn = key;
  const turnStamp = ++stamp;
  tiles.classList.add("sg-stale");
  for (let at = 0; at < COUNT; at += PART) {
    const answer = await studio.call("sheet", {session: {...session, request}, first: first + at, count: PART});
    if (stamp !== turnStamp) return;
    if (!answer) { drawn = ""; return; }
    answer.tiles.forEach(({seed, src}, index) => {
      const tile = h("button", {type: "button", class: "sg-tile", title: `Load seed ${seed}`, onclick: () => load(seed)},
                     h("img", {src, alt: "", draggable: false}), h("span", {}, String(seed)));
      tile.dataset.seed = seed;
      const old = tiles.children[at + index];
      old ? old.replaceWith(tile) : tiles.append(tile);
    });
    mark();
  }
  tiles.classList.remove("sg-stale");
  element.dataset.first = first;
});
function mark() {
  const {seed, dx, dy, ws} = studio.request;
  for (const tile of tiles.children) tile.setAttribute("aria-pressed", String(Number(tile.dataset.seed) === seed && !dx && !dy && !ws));
}
studio.on("session", element, mark);
studio.on("model", element, () => { drawn = ""; redraw(); });
root.append(h("div", {class: "sg-bar"},
  h("div", {class: "sg-group"}, button("left", "Previous page", () => turn(first - COUNT)), field, button("right", "Next page", () => turn(first + COUNT))),
  h("span", {class: "sg-check"}, whole, label)), tiles);
if (studio.session) redraw();
