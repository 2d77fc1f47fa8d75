// What the run would cost, one line; a warning stands out. Text is only ever set as text.
const {h} = studio;
const line = h("p", {class: "tr-cost", role: "status"}), bad = h("p", {class: "tr-said tr-bad", role: "alert"});
element.firstElementChild.replaceChildren(line, bad);
const update = () => {
  line.textContent = props.value?.words ?? "Estimating what it will cost…";
  bad.textContent = props.value?.problem ?? "";
};
watch("value", update);
update();
