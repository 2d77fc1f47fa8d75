// The session of this page, held once: widgets change it, the stage draws it, Python only ever answers questions about it.
// session = {request: {non-default fields of a RenderRequest}, sources: [{seed|ws, label, name}], rows: [[source, weight]]}
(() => {
  if (window.studio) return;
  const STORE = "stylegan-studio-session", DEPTH = 100;
  const listeners = [];
  let committed = null;

  const studio = window.studio = {
    session: null, facts: null, models: [], server: null, live: true, first: null,
    past: [], future: [], page: Math.random().toString(36).slice(2, 12),

    // Call `fn(data)` on every `topic` for as long as `owner` is part of the page.
    on(topic, owner, fn) { listeners.push({topic, owner, fn}); },
    emit(topic, data) {
      for (let i = listeners.length - 1; i >= 0; i--) if (!listeners[i].owner.isConnected) listeners.splice(i, 1);
      for (const each of [...listeners]) if (each.topic === topic) each.fn(data);
    },

    // The whole request with defaults filled in.
    get request() { return {...studio.facts.defaults, ...studio.session.request}; },
    get edits() { return studio.session.request.edits || []; },
    isDefault(key) { return !(key in studio.session.request); },

    // Change fields of the request; `dragging` keeps the change out of the history until it settles.
    set(fields, dragging = false) {
      const request = {...studio.session.request, ...fields};
      for (const key of Object.keys(fields))
        if (JSON.stringify(request[key]) === JSON.stringify(studio.facts.defaults[key])) delete request[key];
      studio.replace({...studio.session, request}, dragging);
    },
    replace(session, dragging = false) {
      studio.session = session;
      studio.emit("session", {dragging});
      if (!dragging) studio.settle();
    },
    settle() {
      if (JSON.stringify(committed) !== JSON.stringify(studio.session)) {
        if (committed) { studio.past.push(committed); studio.past.splice(0, studio.past.length - DEPTH); studio.future = []; }
        committed = studio.session;
        try { sessionStorage.setItem(STORE, JSON.stringify(committed)); } catch { /* private window: no memory */ }
      }
      studio.emit("settled");
    },
    reset() {
      studio.replace({request: {model: studio.session.request.model}, sources: [], rows: []});
      studio.say("Everything is back at its default. Undo brings it back.");
    },
    async step(from, onto) {
      const left = committed;
      if (!from.length || !await studio.adopt(from.at(-1), false)) return;
      from.pop();
      onto.push(left);
      studio.emit("settled");
    },
    undo: () => studio.step(studio.past, studio.future),
    redo: () => studio.step(studio.future, studio.past),

    // Show a session, whose model may be another one; false when that is gone. Unless `record`, no history is made.
    async adopt(session, record = true) {
      if (session.request.model !== studio.facts.name) {
        const answer = await studio.call("open_model", {session, name: session.request.model});
        if (answer) studio.take(answer, record);
        return Boolean(answer);
      }
      if (!record) committed = session;
      studio.replace(session);
      return true;
    },
    take(answer, record = true) {
      if (answer.models) studio.models = answer.models;
      if (answer.facts) { studio.facts = answer.facts; studio.session = answer.session; studio.emit("model"); }
      if (!record) committed = answer.session;
      if (answer.session) studio.replace(answer.session);
      if (answer.said) studio.say(answer.said, answer.mood);
    },
    async openModel(name) {
      const answer = await studio.call("open_model", {session: studio.session, name});
      if (answer) studio.take(answer);
      return Boolean(answer);
    },

    // Ask the server; a mistake comes back as one sentence, is shown, and yields null.
    async call(name, question, server = studio.server) {
      try {
        const answer = await server[name](question);
        if (answer && answer.error) { studio.say(answer.error, "bad"); return null; }
        return answer;
      } catch {
        studio.say("The server does not answer. Is it still running? Nothing on this page is lost.", "bad");
        return null;
      }
    },
    say(text, mood = "") { studio.emit("said", {text, mood}); },

    async start(server) {
      studio.server = server;
      if (studio.session) return;
      let session = null;
      try { session = JSON.parse(sessionStorage.getItem(STORE)); } catch { /* damaged memory: start afresh */ }
      const started = performance.now(), answer = await studio.call("hello", {session});
      if (!answer) return;
      studio.live = answer.live;
      if (answer.picture) studio.first = {answer: answer.picture, started};
      studio.take(answer);
    },
  };

  // Build an element: h("button", {class: "x", onclick: f}, "text", child). Text is never parsed as HTML.
  studio.h = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key in node && key !== "list" && key !== "for") node[key === "class" ? "className" : key] = value;
      else if (value !== null && value !== undefined) node.setAttribute(key === "class" ? "class" : key, value);
    }
    node.append(...children.filter(child => child !== null && child !== undefined));
    return node;
  };

  const PATHS = {
    dice: "M5 3h14a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2zM8 8h.01M16 8h.01M12 12h.01M8 16h.01M16 16h.01",
    left: "M15 5l-7 7 7 7", right: "M9 5l7 7-7 7", undo: "M9 7L4 12l5 5M4 12h10a6 6 0 0 1 6 6", plus: "M12 5v14M5 12h14",
    redo: "M15 7l5 5-5 5M20 12H10a6 6 0 0 0-6 6", reset: "M4 4v6h6M4.5 10a8 8 0 1 1-.4 5", close: "M6 6l12 12M18 6L6 18",
    pin: "M9 3h6l-1 7 4 4H6l4-4zM12 14v7", download: "M12 4v11M7 11l5 5 5-5M4 20h16", open: "M12 16V5M7 9l5-5 5 5M4 20h16",
    snap: "M12 3v4M12 17v4M3 12h4M17 12h4M12 12h.01", copy: "M9 9h11v11H9zM5 15H4V4h11v1", back: "M4 12h16M10 6l-6 6 6 6",
    globe: "M3 12a9 9 0 1 0 18 0a9 9 0 1 0-18 0M3 12h18M12 3c5 5 5 13 0 18M12 3c-5 5-5 13 0 18",
    image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4",
  };
  studio.icon = name => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24"); svg.setAttribute("aria-hidden", "true"); svg.setAttribute("class", "sg-icon");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", PATHS[name]); svg.append(path);
    return svg;
  };
  studio.button = (icon, title, onclick, text = "", extra = "") =>
    studio.h("button", {type: "button", class: `sg-button ${text ? "" : "sg-square"} ${extra}`, title, onclick,
                        "aria-label": text ? null : title},
             icon ? studio.icon(icon) : null, text || null);

  // A labelled slider with its number and its own reset. read() -> value; write(value, dragging).
  studio.slider = ({id, label, help = "", low, high, step, origin = low, start, read, write, show, wide}) => {
    const h = studio.h, clamp = v => Math.min(high, Math.max(low, v));
    const range = h("input", {type: "range", min: low, max: high, step, id: `${id}-range`, title: help});
    const number = h("input", {type: show ? "text" : "number", min: low, max: high, step, class: "sg-number", title: help,
                               readOnly: Boolean(show), "aria-label": `${label} as a number`});
    const undo = studio.button("reset", `Reset ${label}`, () => write(start(), false), "", "sg-reset");
    const name = h("label", {title: help}, label);
    name.htmlFor = range.id;
    range.addEventListener("input", () => write(Number(range.value), true));
    range.addEventListener("change", () => write(Number(range.value), false));
    number.addEventListener("change", () => {
      const value = Number(number.value);
      if (number.value.trim() === "" || !Number.isFinite(value)) studio.say(`${label} must be a number from ${low} to ${high}.`, "bad");
      else if (value !== clamp(value)) studio.say(`${label} goes from ${low} to ${high}; ${value} was brought inside.`);
      write(Number.isFinite(value) && number.value.trim() !== "" ? clamp(value) : read(), false);
    });
    const row = h("div", {class: `sg-row ${wide ? "sg-wide" : ""}`, id}, name, range, number, undo);
    row.refresh = () => {
      const value = read(), at = v => 100 * (clamp(v) - low) / (high - low || 1);
      if (Number(range.value) !== value) range.value = value;
      if (document.activeElement !== number) number.value = show ? show(value) : +Number(value).toFixed(3);
      range.style.setProperty("--from", `${Math.min(at(origin), at(value))}%`);
      range.style.setProperty("--to", `${Math.max(at(origin), at(value))}%`);
      row.classList.toggle("sg-changed", value !== start());
      undo.disabled = value === start();
    };
    return row;
  };

  // Run `refresh` after each settled change, but only while `element` can be seen; catch up when it comes into view.
  studio.whenSeen = (element, refresh, delay = 150) => {
    let stale = true, timer = 0;
    const run = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (!stale || !element.isConnected || !element.offsetParent || !studio.session) return;
        stale = false; refresh();
      }, delay);
    };
    const mark = () => { stale = true; run(); };
    studio.on("settled", element, mark);
    new IntersectionObserver(run).observe(element);
    return mark;
  };
  studio.copy = async (text, what) => {
    try { await navigator.clipboard.writeText(text); studio.say(`${what} is on the clipboard.`, "good"); }
    catch { studio.say("The browser does not allow copying here; select the text instead.", "bad"); }
  };

  // The bytes of a picked or dropped file as base64, or null with a sentence when it is too large.
  studio.readFile = async (file, limit = 48) => {
    if (file.size > limit * 2 ** 20) { studio.say(`${file.name} is larger than ${limit} MB.`, "bad"); return null; }
    const address = await new Promise((done, fail) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result); reader.onerror = fail;
      reader.readAsDataURL(file);
    });
    return address.slice(address.indexOf(",") + 1);
  };
  studio.pickFile = accept => new Promise(done => {
    const input = studio.h("input", {type: "file", accept, onchange: () => done(input.files[0])});
    input.click();
  });
  studio.MODELS = ".safetensors,.pkl,.pt,.pth";
  studio.isModel = file => studio.MODELS.split(",").some(ending => file.name.toLowerCase().endsWith(ending));
  // Make `node` a place where a file can be dropped.
  studio.dropZone = (node, take) => {
    node.addEventListener("dragover", event => { event.preventDefault(); event.stopPropagation(); node.classList.add("sg-over"); });
    node.addEventListener("dragleave", () => node.classList.remove("sg-over"));
    node.addEventListener("drop", event => {
      event.preventDefault(); event.stopPropagation(); node.classList.remove("sg-over");
      if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    });
  };
  // A file dropped beside a zone must not replace the page, and with it everything that was set.
  for (const kind of ["dragover", "drop"])
    window.addEventListener(kind, event => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
})();
