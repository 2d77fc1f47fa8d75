// The library: favourites with notes and tags in the user's own folder; open one, mix with it, search, change its words.
const {h, button} = studio;
const root = element.firstElementChild, MOST_SOURCES = 8;
const ask = (name, question) => studio.call(name, question, server);
let found = {items: [], total: 0}, text = "", stamp = 0, timer = 0, chosen = null;

const note = h("input", {type: "text", id: "keep-note", class: "sg-text", placeholder: "a note (optional)", "aria-label": "Note", maxLength: 400});
const tags = h("input", {type: "text", id: "keep-tags", class: "sg-text", placeholder: "tags", "aria-label": "Tags, with spaces between", maxLength: 400});
const split = value => value.split(/[\s,]+/).filter(Boolean);
const keep = button("star", "Put this picture into the library", async () => {
  const answer = await ask("keep", {session: studio.session, note: note.value.trim(), tags: split(tags.value)});
  if (!answer) return;
  note.value = tags.value = "";
  studio.say(`Kept as ${answer.item.name}.`, "good");
  refill();
}, "Keep this picture", "sg-primary");
keep.id = "keep";
for (const each of [note, tags]) each.addEventListener("keydown", event => { if (event.key === "Enter") keep.click(); });
const search = h("input", {type: "search", id: "library-search", class: "sg-text", placeholder: "search words, #tag", "aria-label": "Search the library",
  oninput: () => { clearTimeout(timer); timer = setTimeout(() => { text = search.value; refill(); }, 200); }});
const about = h("span", {class: "sg-dim"}), list = h("div", {class: "sg-favourites"}), card = h("div", {class: "sg-card", hidden: true});
const chips = h("div", {class: "sg-tagline"});
const more = button(null, "Show older ones", () => refill(found.items.length), "Show more");

async function refill(first = 0) {
  const mine = ++stamp, answer = await ask("library", {text, first});
  if (!answer || mine !== stamp) return;
  if (!answer.allowed) return root.replaceChildren(h("p", {class: "sg-dim"}, "There is no library here. Start the app on your own machine with: python app.py --library DIR"));
  found = {...answer, items: first ? [...found.items, ...answer.items] : answer.items};
  about.textContent = found.total ? `${found.total} in ${answer.folder}/` : text ? "nothing found" : `${answer.folder}/ is empty`;
  chips.replaceChildren(...answer.tags.map(tag => h("button", {type: "button", class: "sg-tag", title: `Only those with #${tag}`,
    "aria-pressed": String(split(text).includes(`#${tag}`)), onclick: () => toggle(`#${tag}`)}, `#${tag}`)));
  list.replaceChildren(...found.items.map(tileOf));
  more.hidden = found.items.length >= found.total;
  const still = found.items.find(item => item.name === chosen);
  showCard(still || null);
  element.dataset.favourites = found.total;
}
function toggle(word) {
  const words = split(text);
  text = (words.includes(word) ? words.filter(each => each !== word) : [...words, word]).join(" ");
  search.value = text;
  refill();
}
function tileOf(item) {
  const tile = h("button", {type: "button", class: "sg-tile", title: item.note || item.name, onclick: () => showCard(chosen === item.name ? null : item)},
    h("img", {src: item.src, alt: "", draggable: false}), item.note || item.tags.length ? h("span", {}, item.note || `#${item.tags[0]}`) : null);
  tile.dataset.name = item.name;
  return tile;
}
function showCard(item) {
  chosen = item ? item.name : null;
  for (const tile of list.children) tile.setAttribute("aria-pressed", String(tile.dataset.name === chosen));
  card.hidden = !item;
  if (!item) return;
  const words = h("input", {type: "text", class: "sg-text", value: item.note, placeholder: "a note", "aria-label": "Note of this favourite", maxLength: 400});
  const marks = h("input", {type: "text", class: "sg-text", value: item.tags.join(" "), placeholder: "tags", "aria-label": "Tags of this favourite", maxLength: 400});
  const change = async () => { if (await ask("describe", {name: item.name, note: words.value.trim(), tags: split(marks.value)})) refill(); };
  for (const each of [words, marks]) each.addEventListener("change", change);
  const remove = button("trash", "Take it out of the library", async () => {
    if (!remove.classList.contains("sg-sure")) { remove.classList.add("sg-sure"); return studio.say("Press again to take it out of the library."); }
    const answer = await ask("remove", {name: item.name});
    if (answer) { chosen = null; studio.say(answer.said); refill(); }
  });
  const when = new Date(1000 * item.added).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
  card.replaceChildren(h("img", {src: item.src, alt: "", draggable: false}),
    h("div", {class: "sg-words"}, h("span", {class: "sg-dim"}, `${item.model.split("/").pop()} · seed ${item.seed} · ${when}`), words, marks,
      h("div", {class: "sg-bar"},
        button("image", "Show it with all of its settings", () => open(item), "Open", "sg-primary"),
        button("plus", "Use it as a source in Style mixing", () => mix(item), "Mix with it"),
        button("halves", "Compare it with the present picture", () => compare(item), "Compare"),
        h("span", {class: "sg-grow"}), remove)));
}
async function open(item) {
  const answer = await ask("open_kept", {name: item.name});
  if (answer) studio.take(answer, true, item.note || `from the library`);
}
async function mix(item) {
  if (studio.session.sources.length >= MOST_SOURCES) return studio.say(`There are ${MOST_SOURCES} sources already; remove one first.`, "bad");
  const answer = await ask("kept_source", {name: item.name, session: studio.session});
  if (!answer) return;
  studio.replace({...studio.session, sources: [...studio.session.sources, answer.source]}, false, "a source from the library");
  studio.say(`${answer.source.name} is a source in Style mixing now.`, "good");
}
async function compare(item) {
  const answer = await ask("open_kept", {name: item.name});
  if (answer) studio.emit("pin", {session: answer.session, name: item.note || item.name});
}
root.append(h("div", {class: "sg-bar sg-keeper"}, note, tags, keep), h("div", {class: "sg-bar"}, search, about), chips, card, list, more);
new IntersectionObserver(entries => { if (entries.some(entry => entry.isIntersecting)) refill(); }).observe(element);
