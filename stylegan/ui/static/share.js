// The picture that is shown, as a link, a code, and for the shell, Python, JSON and curl; and opening such a thing.
const {h, button} = studio;
const root = element.firstElementChild;
let answer = null;

// --- what travels -------------------------------------------------------------------------------------------------------
const link = () => `${location.origin}${location.pathname}#s=${answer.code}`;
const copyLink = button("link", "Copy a link that opens exactly this state", () => answer && studio.copy(link(), "The link"), "Copy link", "sg-primary");
const copyCode = button("copy", "Copy the short code of this state", () => answer && studio.copy(answer.code, "The code"), "Copy code");
const saveFile = button("download", "Save the state as a JSON file, without a picture", () => {
  if (!answer) return;
  const address = URL.createObjectURL(new Blob([answer.sidecar], {type: "application/json"}));
  h("a", {href: address, download: `${answer.name}.json`}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}, "Save JSON");
const code = h("pre", {tabIndex: 0, id: "code-code", class: "sg-oneline", title: "The code"});
const about = h("p", {class: "sg-dim", id: "share-about"});

const field = h("input", {type: "text", id: "open-code", class: "sg-text", placeholder: "a link, a code or JSON", "aria-label": "A link, a code or JSON to open",
                          autocomplete: "off", spellcheck: false, onkeydown: event => event.key === "Enter" && open()});
async function open() {
  if (!field.value.trim()) return field.focus();
  if (await studio.openCode(field.value.trim())) field.value = "";
}

// --- the same for other programs ------------------------------------------------------------------------------------------
const KINDS = [["shell", "Shell"], ["python", "Python"], ["json", "JSON"], ["curl", "curl"]];
const texts = Object.fromEntries(KINDS.map(([key]) => [key, h("pre", {tabIndex: 0, id: `code-${key}`})]));
let kind = "shell";
const tabs = h("div", {class: "sg-segments", role: "group", "aria-label": "Kind of code"}, ...KINDS.map(([key, title]) =>
  h("button", {type: "button", class: "sg-choice", id: `as-${key}`, onclick: () => choose(key)}, title)));
const copy = button("copy", "Copy the text below", () => studio.copy(texts[kind].textContent, `The ${KINDS.find(([key]) => key === kind)[1]} text`), "Copy");
copy.id = "copy-as";
function choose(key) {
  kind = key;
  KINDS.forEach(([each], index) => {
    tabs.children[index].setAttribute("aria-pressed", String(each === key));
    texts[each].hidden = each !== key;
  });
}
let stamp = 0;
const refresh = studio.whenSeen(element, async () => {
  const {root: base} = window.gradio_config, address = new URL(base || "", location.href).href.split(/[?#]/)[0].replace(/\/$/, "");
  const mine = ++stamp, found = await studio.call("code", {session: studio.session, address});
  if (!found || mine !== stamp) return;
  answer = found;
  for (const [key] of KINDS) texts[key].textContent = answer[key];
  code.textContent = answer.code;
  about.textContent = answer.about;
  element.dataset.ready = mine;
});
root.append(
  h("div", {class: "sg-bar"}, copyLink, copyCode, saveFile), code, about,
  h("div", {class: "sg-bar sg-opener"}, field, button("open", "Open the state of this link or code", open, "Open")),
  h("div", {class: "sg-code"}, h("div", {class: "sg-bar"}, h("b", {}, "The same elsewhere"), tabs, h("span", {class: "sg-grow"}), copy),
    ...Object.values(texts)));
choose(kind);
refresh();
