// The form as a command, with a button that copies it.
const {h, button} = studio;
const text = h("pre", {tabIndex: 0, id: "train-command"});
const copy = button("copy", "Copy the command", async () => {
  await studio.copy(text.textContent, "The command");
  copy.lastChild.textContent = "Copied";
  setTimeout(() => { copy.lastChild.textContent = "Copy"; }, 1500);
}, "Copy");
element.firstElementChild.replaceChildren(h("div", {class: "sg-code"},
  h("div", {class: "sg-bar"}, h("b", {}, "The same from the shell"), h("span", {class: "sg-grow"}), copy), text));
const update = () => { text.textContent = props.value || ""; };
watch("value", update);
update();
