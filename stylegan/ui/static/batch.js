// A batch: what is set now (mix, directions, everything) on many seeds, or on a zip of saved states, as one zip.
const {h, button} = studio;
const root = element.firstElementChild, KEY = "stylegan-studio-batch";
const ask = (name, question) => studio.call(name, question, server);
let key = null, timer = 0;

const field = h("input", {type: "text", id: "batch-seeds", class: "sg-text", value: "0-99", "aria-label": "Seeds of the batch, like 0-99",
                          title: "Seeds and ranges, like 1,2,5-10; at most 1000", onkeydown: event => event.key === "Enter" && start({seeds: field.value.trim()})});
const make = button("layers", "Apply all that is set now to each of these seeds", () => start({seeds: field.value.trim()}), "Make zip");
const states = button("open", "Apply the mix and the directions that are set now to every saved PNG or JSON of a zip", async () => send(await studio.pickFile(".zip")), "Saved states…");
make.id = "batch-make"; states.id = "batch-states";
const bar = h("progress", {max: 1, "aria-label": "Progress of the batch"}), words = h("span", {class: "sg-dim"});
const stop = button("close", "Stop the batch", () => key && ask("batch_stop", {key}));
const fetch = h("a", {class: "sg-button sg-primary", id: "batch-download", hidden: true}, studio.icon("download"), "Download zip");
const line = h("div", {class: "sg-batch-line", role: "status", hidden: true}, bar, words, stop, fetch);

async function start(question) {
  const answer = await ask("batch_start", {...question, session: studio.session});
  if (!answer) return;
  remember(answer.errand.key);
  paint(answer.errand);
  look();
}
function remember(value) {
  key = value;
  try { value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY); } catch { /* private window */ }
}
function paint(errand) {
  const running = errand.state === "running", {done, total, problems} = errand;
  line.hidden = false;
  bar.hidden = stop.hidden = !running;
  bar.value = total ? done / total : 0;
  fetch.hidden = errand.state !== "done";
  make.disabled = states.disabled = running;
  words.textContent = running ? `${done} of ${total}` : errand.said
    || `${done - problems} pictures${problems ? `, ${problems} left out (problems.txt says why)` : ""}`;
  if (errand.state === "done") {
    fetch.href = studio.fileAddress(errand.path);
    fetch.download = errand.name;
  }
  if (errand.state === "failed") studio.say(errand.said, "bad");
  element.dataset.batch = errand.state;
}
async function look() {
  clearTimeout(timer);
  if (!key || !element.isConnected) return;
  const answer = await server.batch_look({key}).catch(() => null);
  if (answer && "errand" in answer && !answer.errand) { remember(null); line.hidden = true; make.disabled = states.disabled = false; return; }
  if (answer?.errand) paint(answer.errand);
  if (!answer?.errand || answer.errand.state === "running") timer = setTimeout(look, 400);
}
function send(file) {
  if (!file) return;
  const {root: base, api_prefix: prefix} = window.gradio_config, request = new XMLHttpRequest(), form = new FormData();
  form.append("files", file);
  request.open("POST", `${base}${prefix}/upload`);
  request.responseType = "json";
  request.onerror = () => studio.say(`${file.name} could not be sent; is the server still running?`, "bad");
  request.onload = () => request.status === 200 ? start({path: request.response[0]})
    : studio.say(request.status === 413 ? `${file.name} is larger than may be sent.` : `${file.name} did not arrive (${request.status}); try again.`, "bad");
  request.send(form);
}
try { key = sessionStorage.getItem(KEY); } catch { /* private window */ }
studio.dropZone(root, send);
root.append(h("div", {class: "sg-bar"}, h("b", {}, "Batch"), h("span", {class: "sg-dim"}, "what is set now, on seeds"), field, make, states), line);
look();
