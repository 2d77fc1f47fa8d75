// The model picker: what the folder holds now, recent models, published ones to download, and the door for own files.
const {h, button} = studio;
const RECENT = "stylegan-studio-recent", MOST_RECENT = 8, SHORT = 7, GET = "get:", OTHER = "other:";
const root = element.firstElementChild;
const title = name => name.includes("/") ? name.split("/").filter(part => part !== "snapshots").slice(-2).join(" · ").replace(/\.\w+$/, "") : name;
const ask = (name, question = {}) => studio.call(name, question, server);
let offers = {allowed: false, published: []}, recent = [];

// --- the list ---------------------------------------------------------------------------------------------------------
const select = h("select", {id: "model", "aria-label": "Model"});
const about = h("button", {type: "button", class: "sg-dim", id: "model-about", onclick: () => showReport(report.hidden)});
const report = h("dl", {class: "sg-facts", id: "model-report", hidden: true});

function remembered() {
  try { return JSON.parse(localStorage.getItem(RECENT)).filter(name => typeof name === "string"); } catch { return []; }
}
function remember(name) {
  const names = [name, ...remembered().filter(each => each !== name)].slice(0, MOST_RECENT);
  try { localStorage.setItem(RECENT, JSON.stringify(names)); } catch { /* private window: no memory */ }
}
async function rescan() {
  if (document.hidden || !studio.server) return;
  const answer = await studio.call("list_models", {recent: remembered()});
  if (!answer) return;
  ({models: studio.models, recent} = answer);
  offers = await ask("offers") || offers;
  if (!studio.facts && studio.models.length) await studio.openModel(studio.models[0]);
  fill();
  look();
}
function fill() {
  const present = studio.facts ? studio.facts.name : null, names = [...studio.models];
  if (present && !names.includes(present)) names.unshift(present);
  const latest = recent.filter(name => !names.includes(name) || names.length > SHORT);
  const published = offers.allowed ? [...offers.published.map(name => GET + name), OTHER] : [];
  const groups = [["Recent", latest], ["Models", names], ["Published, to download", published]].filter(([, values]) => values.length);
  const words = value => value === OTHER ? "another address…" : value.startsWith(GET) ? value.slice(GET.length) : title(value);
  if (JSON.stringify(groups) !== select.dataset.groups)
    select.replaceChildren(...groups.map(([label, values]) =>
      h("optgroup", {label}, ...values.map(value => h("option", {value}, words(value))))));
  select.dataset.groups = JSON.stringify(groups);
  select.value = present;
  for (const each of [add, get]) each.hidden = !offers.allowed;
  if (!studio.facts) return;
  about.textContent = `${studio.facts.summary} · ${studio.facts.hash.slice(0, 8)}`;
  about.title = `What this model is, and where it comes from. Its SHA-256: ${studio.facts.hash}`;
}
function rows(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([label, text]) => [h("dt", {}, label), h("dd", {}, text)]));
}
function showReport(shown) {
  report.hidden = !shown || !studio.facts;
  about.setAttribute("aria-expanded", String(!report.hidden));
}
select.addEventListener("change", async () => {
  const wanted = select.value;
  if (wanted === OTHER || wanted.startsWith(GET)) { fill(); return openShop(wanted === OTHER ? "" : wanted.slice(GET.length)); }
  if (!await studio.openModel(wanted)) fill();
});
for (const when of ["focus", "pointerdown"]) select.addEventListener(when, rescan);

// --- published models: the terms first ----------------------------------------------------------------------------------
const field = h("input", {type: "text", id: "get-text", class: "sg-text", placeholder: "address, or owner/repository/file of the Hub",
                          "aria-label": "A published model", maxLength: 1000, onkeydown: event => event.key === "Enter" && showTerms()});
const terms = h("dl", {class: "sg-facts", id: "get-terms"});
const nameField = h("input", {type: "text", id: "get-name", class: "sg-text", maxLength: 64});
const accept = button("download", "Accept the licence terms and download the model", fetchIt, "Accept and download", "sg-primary");
accept.id = "get-accept";
const nameLabel = h("label", {}, "Name it", nameField);
const deal = h("div", {class: "sg-deal", hidden: true}, terms, h("div", {class: "sg-bar"}, nameLabel, accept));
const shop = h("div", {class: "sg-shop", id: "get", hidden: true},
  h("div", {class: "sg-bar"}, field, button(null, "Show its address, size and licence", showTerms, "Show terms"),
    button("close", "Close", () => { shop.hidden = true; })), deal);
function openShop(text) {
  shop.hidden = false; deal.hidden = true;
  field.value = text;
  text ? showTerms() : field.focus();
}
let asked = "";
async function showTerms() {
  deal.hidden = true;
  asked = field.value.trim();
  const answer = asked && await ask("terms", {text: asked});
  if (!answer) return;
  rows(terms, [["Address", answer.url], ["Size", answer.size], ["Checksum", answer.check], ["Licence", answer.licence]]);
  nameField.value = answer.name;
  deal.hidden = false;
}
async function fetchIt() {
  const answer = await ask("fetch", {text: asked, name: nameField.value.trim(), accepted: true});
  if (!answer) return;
  mine.add(answer.arrival.id);
  shop.hidden = true;
  showArrival(answer.arrival);
  look();
}

// --- what is on its way: downloads, which belong to the server, and files that this page sends ----------------------------
const lines = new Map(), mine = new Set(), shelf = h("div", {class: "sg-arrivals"});
const mib = bytes => (bytes / 2 ** 20).toFixed(bytes < 2 ** 24 ? 1 : 0);
const CHECKING = "checking and converting…";
let timer = 0, sent = 0;

function paint(id, name, words, share, stop) {
  let line = lines.get(id);
  if (!line) {
    line = h("div", {class: "sg-arrival", role: "status"}, h("b", {}, name), h("progress", {max: 1, "aria-label": `Progress of ${name}`}),
             h("span", {class: "sg-dim"}), button("close", `Stop or close ${name}`, () => line.end()));
    lines.set(id, line);
    shelf.append(line);
  }
  const [, bar, text] = line.children;
  text.textContent = words;
  bar.hidden = share === null;
  share === undefined ? bar.removeAttribute("value") : bar.value = share ?? 0;
  line.end = stop || (() => wipe(id));
}
function wipe(id) { lines.get(id)?.remove(); lines.delete(id); }
async function arrived(id, name) {
  wipe(id);
  await rescan();
  if (await studio.openModel(name)) showReport(true);
}
function showArrival({id, name, state, done, total, said}) {
  if (state === "loading" || state === "checking") {
    const loading = state === "loading", words = total ? `${mib(done)} of ${mib(total)} MiB` : `${mib(done)} MiB`;
    return paint(id, name, loading ? said || words : CHECKING, loading && total ? done / total : undefined, () => ask("stop", {id}).then(look));
  }
  if (!lines.has(id) && !mine.has(id)) return;
  const own = mine.delete(id);
  if (own && state === "done") return arrived(id, name);
  if (own && state === "failed") studio.say(said, "bad");
  paint(id, name, state === "done" ? "is in the list now" : said, null);
}
async function look() {
  clearTimeout(timer);
  if (!element.isConnected || !offers.allowed) return;
  const seen = !document.hidden && element.offsetParent;
  const answer = seen ? await server.arrivals({}).catch(() => null) : null;
  if (answer && answer.arrivals) answer.arrivals.forEach(showArrival);
  if (mine.size || answer?.arrivals?.some(each => ["loading", "checking"].includes(each.state)))
    timer = setTimeout(look, 400);
}
function send(file) {
  if (!file) return;
  if (!offers.allowed) return studio.say("Models may not be added from the page here.", "bad");
  if (!studio.isModel(file)) return studio.say(`${file.name} is no model file; add a .safetensors, .pkl or .pt.`, "bad");
  const id = `file ${++sent}`, request = new XMLHttpRequest(), form = new FormData();
  const {root: base, api_prefix: prefix} = window.gradio_config;
  const fail = words => { wipe(id); studio.say(words, "bad"); };
  const stop = () => { request.abort(); wipe(id); };
  form.append("files", file);
  request.open("POST", `${base}${prefix}/upload`);
  request.responseType = "json";
  request.upload.onprogress = ({loaded, total}) =>
    paint(id, file.name, `${mib(loaded)} of ${mib(total)} MiB sent`, total ? loaded / total : undefined, stop);
  request.onerror = () => fail(`${file.name} could not be sent; is the server still running?`);
  request.onload = async () => {
    if (request.status === 413) return fail(`${file.name} is larger than may be sent; put it into the folder of models instead.`);
    if (request.status !== 200) return fail(`${file.name} did not arrive (${request.status}); try again.`);
    paint(id, file.name, CHECKING, undefined);
    const answer = await ask("add", {path: request.response[0]});
    answer ? arrived(id, answer.name) : wipe(id);
  };
  paint(id, file.name, "", 0, stop);
  request.send(form);
}
const picker = h("input", {type: "file", accept: studio.MODELS, hidden: true, "aria-label": "Model file",
                           onchange: () => { send(picker.files[0]); picker.value = ""; }});
const add = button("plus", "Add a model file of your own (.safetensors, .pkl, .pt); it can also be dropped here", () => picker.click(), "Add model");
const get = button("globe", "Download a published model", () => shop.hidden ? openShop("") : shop.hidden = true, "Get model");
add.id = "add-model"; get.id = "get-open";
studio.dropZone(root, send);
studio.on("arrives", element, send);

studio.on("model", element, () => { remember(studio.facts.name); rows(report, Object.entries(studio.facts.report)); fill(); });
const clock = setInterval(() => element.isConnected ? element.offsetParent && rescan() : clearInterval(clock), 5000);
root.append(h("div", {class: "sg-picker"}, select, about, h("span", {class: "sg-grow"}), add, get, picker), shop, shelf, report);
if (studio.facts) rows(report, Object.entries(studio.facts.report));
fill();
ask("offers").then(answer => { offers = answer || offers; fill(); look(); });
