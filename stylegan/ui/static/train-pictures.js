// What was found in the chosen pictures: how many, a sheet of them, what to know, and what was skipped and why.
const {h} = studio;
const root = element.firstElementChild;
let shown = null;
function update() {
  const found = props.value || {}, text = JSON.stringify(found);
  if (text === shown) return;   // the same answer again must not close what is open
  shown = text;
  element.dataset.accepted = found.accepted ?? "";
  const said = found.error || found.waits;
  if (said) { root.replaceChildren(h("p", {class: `tr-said ${found.error ? "tr-bad" : "tr-calm"}`, role: "status"}, said)); return; }
  if (found.accepted === undefined) { root.replaceChildren(h("p", {class: "tr-said tr-calm", role: "status"}, "Looking at the pictures…")); return; }
  const skipped = found.num_skipped ? h("details", {class: "tr-skipped"},
    h("summary", {}, `${found.num_skipped.toLocaleString("en")} skipped`),
    h("ul", {}, ...found.skipped.map(([name, reason]) => h("li", {}, h("b", {}, name), ` ${reason}`)),
      found.num_skipped > found.skipped.length ? h("li", {}, `and ${(found.num_skipped - found.skipped.length).toLocaleString("en")} more`) : null)) : null;
  const sheet = h("img", {src: found.sheet, alt: "Some of the pictures", class: "tr-sheet"});
  sheet.style.aspectRatio = `${found.columns} / ${found.rows}`;
  sheet.style.width = `min(100%, ${48 * found.columns}px)`;
  root.replaceChildren(sheet,
    h("div", {class: "tr-count"}, h("b", {}, `${found.accepted.toLocaleString("en")} ${found.accepted === 1 ? "picture" : "pictures"}`), ` ${found.notes.join(" ")}`), skipped ?? "");
}
watch("value", update);
update();
