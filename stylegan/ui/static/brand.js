// The name of the place, and the switch between day and night.
const {h, button} = studio, STORE = "stylegan-studio-night";
let night = localStorage.getItem(STORE);
const apply = () => document.body.classList.toggle("dark", night === "1");
const toggle = h("button", {type: "button", class: "sg-button sg-square", id: "night", title: "Light or dark", "aria-label": "Light or dark",
  onclick: () => { night = document.body.classList.contains("dark") ? "0" : "1"; localStorage.setItem(STORE, night); apply(); }});
toggle.append(h("span", {class: "sg-moon"}));
if (night !== null) apply();
element.firstElementChild.append(h("span", {class: "sg-mark", "aria-hidden": "true"}), h("h1", {}, "StyleGAN Studio"), h("span", {class: "sg-grow"}), toggle);
