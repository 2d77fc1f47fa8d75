// One sentence from the server, shown as text; empty when there is nothing to say.
const line = studio.h("p", {class: "tr-said tr-bad", role: "alert"});
element.firstElementChild.replaceChildren(line);
const update = () => { line.textContent = props.value || ""; };
watch("value", update);
update();
