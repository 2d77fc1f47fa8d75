// A look inside: the layers of the network, one of them as a picture with its figures, and who answers at a place.
const {h, button} = studio;
const root = element.firstElementChild, SVG = "http://www.w3.org/2000/svg";
const ask = (name, question) => studio.call(name, question, server);
let layers = [], name = null, channel = null, spot = null, stamp = 0;

const list = h("div", {class: "sg-layerlist", role: "listbox", "aria-label": "Layers"});
const image = h("img", {class: "sg-features", alt: "Features of the layer; click a place to see which channels answer there", draggable: false});
const mark = h("span", {class: "sg-spot", hidden: true}), frame = h("div", {class: "sg-look"}, image, mark);
const title = h("b", {}), which = h("input", {type: "number", min: 0, class: "sg-number", id: "layer-channel", "aria-label": "Channel", placeholder: "all"});
const all = button("layers", "The first three principal components over all channels, as colours", () => pick(null), "Components");
const figures = h("dl", {class: "sg-facts"}), plot = document.createElementNS(SVG, "svg"), curve = document.createElementNS(SVG, "polyline");
const tiles = h("div", {class: "sg-tops"}), hint = h("p", {class: "sg-dim"}, "Click a place in the picture to see which channels answer there.");
plot.append(curve);
plot.setAttribute("viewBox", "0 0 200 70"); plot.setAttribute("preserveAspectRatio", "none"); plot.setAttribute("role", "img");
plot.setAttribute("aria-label", "Power over spatial frequency");

function pick(value) { channel = value; which.value = value ?? ""; look(); }
which.addEventListener("change", () => {
  const most = layers.find(layer => layer.name === name).channels - 1, value = Number(which.value);
  if (which.value.trim() === "") return pick(null);
  if (!Number.isInteger(value) || value < 0 || value > most) { studio.say(`${name} has the channels 0 to ${most}.`, "bad"); return pick(channel); }
  pick(value);
});
frame.addEventListener("click", event => {
  const box = image.getBoundingClientRect();
  spot = {x: Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)), y: Math.min(1, Math.max(0, (event.clientY - box.top) / box.height))};
  look();
});
async function look() {
  if (!name) return;
  const mine = ++stamp, answer = await ask("layer", {session: studio.session, name, channel, ...(spot || {})});
  if (!answer || mine !== stamp) return;
  const {layer, statistics: found, spectrum} = answer, percent = value => `${(100 * value).toFixed(1)} %`, short = value => String(Number(Number(value).toPrecision(2)));
  image.src = answer.src;
  mark.hidden = !spot;
  if (spot) { mark.style.left = `${100 * spot.x}%`; mark.style.top = `${100 * spot.y}%`; }
  title.textContent = `${name} · ${channel === null ? "components" : `channel ${channel}`}`;
  const rows = [["Grid", `${layer.width} × ${layer.height}`], ["Channels", layer.channels], ["Numbers", layer.dtype], ["Mean, spread", `${short(found.mean)}, ${short(found.std)}`],
    ["From, to", `${short(found.min)}, ${short(found.max)}`], ["Zeros", percent(found.zeros)], ["Still channels", percent(found.still)]];
  figures.replaceChildren(...rows.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, String(text))]));
  const low = -60;
  curve.setAttribute("points", spectrum.map((value, index) => `${(200 * index / Math.max(1, spectrum.length - 1)).toFixed(1)},${(68 * Math.max(low, value) / low + 1).toFixed(1)}`).join(" "));
  hint.hidden = Boolean(spot);
  tiles.replaceChildren(...answer.answers.map(({channel: index, score, src}) => {
    const tile = h("button", {type: "button", class: "sg-tile", title: `Channel ${index} lies ${score > 0 ? "+" : ""}${score} of its standard deviations from its mean here`, onclick: () => pick(index)},
      h("img", {src, alt: "", draggable: false}), h("span", {}, `${index}`));
    tile.setAttribute("aria-pressed", String(index === channel));
    return tile;
  }));
  element.dataset.looked = `${name} ${channel ?? "components"}`;
  element.dataset.answers = answer.answers.length;
}
function choose(next) {
  if (next !== name) channel = null;
  name = next;
  which.value = channel ?? "";
  for (const row of list.children) row.setAttribute("aria-selected", String(row.dataset.layer === name));
  look();
}
let model = null;
const middle = () => { const wide = layers.filter(layer => layer.channels > 4); return (wide.length ? wide : layers)[Math.floor((wide.length || layers.length) / 2)]; };
const refresh = studio.whenSeen(element, async () => {
  if (model !== studio.facts.hash) {
    const answer = await ask("layers", {session: studio.session});
    if (!answer) return;
    model = studio.facts.hash;
    ({layers} = answer);
    list.replaceChildren(...layers.map(layer => {
      const row = h("button", {type: "button", class: "sg-layer-row", role: "option", onclick: () => choose(layer.name)},
        h("span", {}, layer.name), h("span", {class: "sg-dim"}, `${layer.width} × ${layer.height} · ${layer.channels} · ${layer.dtype}`));
      row.dataset.layer = layer.name;
      return row;
    }));
    element.dataset.layers = layers.length;
    spot = null;
    return choose(layers.some(layer => layer.name === name) ? name : middle().name);
  }
  look();
}, 300);
root.append(list, h("div", {class: "sg-inside"}, h("div", {class: "sg-bar"}, title, h("span", {class: "sg-grow"}), all, which),
  h("div", {class: "sg-pair"}, frame, h("div", {}, figures, h("div", {class: "sg-spectrum"}, plot, h("span", {class: "sg-dim"}, "power from slow to fast waves, 60 dB")))), hint, tiles));
refresh();
