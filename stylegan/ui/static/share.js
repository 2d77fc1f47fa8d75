// The same picture from the shell and from Python, always for the state that is shown.
const {h, button} = studio;
const root = element.firstElementChild;
const blocks = [["shell", "The same from the shell"], ["python", "The same from Python"], ["json", "The request as JSON"]].map(([key, title]) => {
  const text = h("pre", {tabIndex: 0, id: `code-${key}`});
  root.append(h("div", {class: "sg-code"}, h("div", {class: "sg-bar"}, h("b", {}, title), h("span", {class: "sg-grow"}),
    button("copy", `Copy: ${title}`, () => studio.copy(text.textContent, title), "Copy")), text));
  return [key, text];
});
let stamp = 0;
const refresh = studio.whenSeen(element, async () => {
  const mine = ++stamp, answer = await studio.call("code", {session: studio.session});
  if (!answer || mine !== stamp) return;
  for (const [key, text] of blocks) text.textContent = answer[key];
  element.dataset.ready = mine;
});
refresh();
