// The name of the place, the switch between day and night, and the tab that a reload comes back to.
const {h, button} = studio, STORE = "stylegan-studio-night";
let night = localStorage.getItem(STORE);
const apply = () => document.body.classList.toggle("dark", night === "1");
const toggle = h("button", {type: "button", class: "sg-button sg-square", id: "night", title: "Light or dark", "aria-label": "Light or dark",
  onclick: () => { night = document.body.classList.contains("dark") ? "0" : "1"; localStorage.setItem(STORE, night); apply(); }});
toggle.append(h("span", {class: "sg-moon"}));
if (night !== null) apply();
element.firstElementChild.append(h("span", {class: "sg-mark", "aria-hidden": "true"}), h("h1", {}, "StyleGAN Studio"), h("span", {class: "sg-grow"}), toggle);

// A reload of Train comes back to Train; a link to a picture is for Explore, whatever was open before.
const TAB = "stylegan-studio-tab", rooms = () => [...document.querySelectorAll("#tabs > .tab-wrapper [role=tab]")];
document.addEventListener("click", event => {
  const tab = event.target.closest?.("[role=tab]");
  if (tab && rooms().includes(tab)) sessionStorage.setItem(TAB, tab.textContent.trim());
});
if (sessionStorage.getItem(TAB) === "Train" && !location.hash) {
  const look = setInterval(() => {
    const train = rooms().find(tab => tab.textContent.trim() === "Train");
    if (train) { clearInterval(look); train.click(); }
  }, 50);
  setTimeout(() => clearInterval(look), 10000);
}
