// What was found in the chosen pictures: how many, a sheet of them, what to know, twins, and what was skipped and why.
const {h} = studio;
const root = element.firstElementChild;
const count = (num, one, many = `${one}s`) => `${num.toLocaleString("en")} ${num === 1 ? one : many}`;
let shown = null;
const open = {};   // a new answer about the same pictures must not close what somebody reads

function list(kind, title, rows, more) {
  const box = h("details", {class: `tr-skipped tr-${kind}`}, h("summary", {}, title),
    h("ul", {}, ...rows, more > 0 ? h("li", {}, `and ${more.toLocaleString("en")} more`) : null));
  box.open = Boolean(open[kind]);
  box.addEventListener("toggle", () => { open[kind] = box.open; });
  return box;
}
function skipped(found) {
  return list("out", `${found.num_skipped.toLocaleString("en")} skipped`,
    found.skipped.map(([name, reason]) => h("li", {}, h("b", {}, name), ` ${reason}`)), found.num_skipped - found.skipped.length);
}
function twins(found) {
  const same = found.num_copies ? `, ${found.num_copies.toLocaleString("en")} the same file` : "";
  const title = found.dropped ? `${count(found.num_twins, "picture")} left out as alike${same}`
    : `${count(found.num_twins, "picture looks", "pictures look")} like another${same}`;
  return list("twins", title, found.twins.map(twin => h("li", {},
    h("img", {src: twin.src, alt: ""}), h("span", {}, h("b", {}, twin.name), ` looks like ${twin.first}`))),
    found.num_twins - found.twins.length);
}
function update() {
  const found = props.value || {}, text = JSON.stringify(found);
  if (text === shown) return;
  shown = text;
  element.dataset.accepted = found.accepted ?? "";
  const said = found.error || found.waits;
  if (said) { root.replaceChildren(h("p", {class: `tr-said ${found.error ? "tr-bad" : "tr-calm"}`, role: "status"}, said)); return; }
  if (found.accepted === undefined) { root.replaceChildren(h("p", {class: "tr-said tr-calm", role: "status"}, "Looking at the pictures…")); return; }
  const sheet = h("img", {src: found.sheet, alt: "Some of the pictures", class: "tr-sheet"});
  sheet.style.aspectRatio = `${found.columns} / ${found.rows}`;
  sheet.style.width = `min(100%, ${48 * found.columns}px)`;
  root.replaceChildren(sheet,
    h("div", {class: "tr-count"}, h("b", {}, (found.more ? "At least " : "") + count(found.accepted, "picture")), ` ${found.notes.join(" ")}`),
    found.num_twins ? twins(found) : "", found.num_skipped ? skipped(found) : "");
}
watch("value", update);
update();
