// The model picker: what the folder holds now, looked at again whenever it is opened, and every few seconds.
const {h} = studio;
const select = h("select", {id: "model", "aria-label": "Model"}), about = h("div", {class: "sg-dim", id: "model-about"});
const title = name => name.includes("/") ? name.split("/").filter(part => part !== "snapshots").slice(-2).join(" · ").replace(/\.\w+$/, "") : name;

async function rescan() {
  if (document.hidden || !studio.server) return;
  const answer = await studio.call("list_models", null);
  if (!answer) return;
  studio.models = answer.models;
  if (!studio.facts && studio.models.length) await studio.openModel(studio.models[0]);
  fill();
}
function fill() {
  const present = studio.facts ? studio.facts.name : null, names = [...studio.models];
  if (present && !names.includes(present)) names.unshift(present);
  if (JSON.stringify(names) !== JSON.stringify([...select.options].map(each => each.value)))
    select.replaceChildren(...names.map(name => h("option", {value: name}, title(name))));
  select.value = present;
  if (!studio.facts) return;
  about.textContent = `${studio.facts.summary} · ${studio.facts.hash.slice(0, 8)}`;
  about.title = `SHA-256 of the model: ${studio.facts.hash}`;
}
select.addEventListener("change", async () => { if (!await studio.openModel(select.value)) fill(); });
for (const when of ["focus", "pointerdown"]) select.addEventListener(when, rescan);
const clock = setInterval(() => element.isConnected ? element.offsetParent && rescan() : clearInterval(clock), 5000);
studio.on("model", element, fill);
element.firstElementChild.append(select, about);
fill();
