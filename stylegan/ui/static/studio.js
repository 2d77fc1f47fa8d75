// The session of this page, held once: widgets change it, the stage draws it, Python only ever answers questions about it.
// session = {request: {non-default fields of a RenderRequest, edits with `locked`}, rows: [[source, weight]],
//            sources: [{seed|ws, label, name, enabled, weight, locked}], parked: {switched off noise and transform}}
(() => {
  if (window.studio) return;
  const STORE = "stylegan-studio-session", MARK = "#s=";
  const listeners = [];
  let committed = null, resumed = null;   // what the history knows last; what a reloaded page starts from

  const studio = window.studio = {
    session: null, facts: null, models: [], server: null, live: true, first: null,
    page: Math.random().toString(36).slice(2, 12),

    // Call `fn(data)` on every `topic` for as long as `owner` is part of the page.
    on(topic, owner, fn) { listeners.push({topic, owner, fn}); },
    emit(topic, data) {
      for (let i = listeners.length - 1; i >= 0; i--) if (!listeners[i].owner.isConnected) listeners.splice(i, 1);
      for (const each of [...listeners]) if (each.topic === topic) each.fn(data);
    },

    // The whole request with defaults filled in.
    get request() { return {...studio.facts.defaults, ...studio.session.request}; },
    get edits() { return studio.session.request.edits || []; },
    view: session => session,   // what the stage draws of a session; the stack narrows it to the row that is alone
    isDefault(key) { return !(key in studio.session.request); },

    // Change fields of the request; `dragging` keeps the change out of the history until it settles; `label` says in words
    // what it was, where the difference alone does not.
    set(fields, dragging = false, label = "") {
      const request = {...studio.session.request, ...fields};
      for (const key of Object.keys(fields))
        if (JSON.stringify(request[key]) === JSON.stringify(studio.facts.defaults[key])) delete request[key];
      studio.replace({...studio.session, request}, dragging, label);
    },
    replace(session, dragging = false, label = "") {
      studio.session = session;
      studio.emit("session", {dragging});
      if (!dragging) studio.settle(label);
    },
    settle(label = "") {
      const text = JSON.stringify(studio.session), news = JSON.stringify(committed) !== text;
      committed = studio.session;
      try { sessionStorage.setItem(STORE, text); } catch { /* private window: no memory */ }
      if (news) studio.emit("committed", {session: committed, label, from: resumed});
      resumed = null;
      studio.emit("settled");
    },
    reset() {
      const edits = studio.edits.filter(edit => edit.locked), {request: {model}, sources, rows} = studio.session;
      const keeps = sources.some(source => source.locked);
      studio.replace({request: edits.length ? {model, edits} : {model}, sources: keeps ? sources : [],
                      rows: keeps ? rows.map(row => sources[row[0]]?.locked ? row : [-1, 0]) : []});
      studio.say(`Everything ${edits.length || keeps ? "but the locked rows " : ""}is back at its default. Undo brings it back.`);
    },
    undo: () => studio.tree.undo(),
    redo: () => studio.tree.redo(),

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
    take(answer, record = true, label = "") {
      if (answer.models) studio.models = answer.models;
      if (answer.facts) { studio.facts = answer.facts; studio.session = answer.session; studio.emit("model"); }
      if (!record) committed = answer.session;
      if (answer.session) studio.replace(answer.session, false, label);
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
      resumed = answer.resumed ? session : null;
      studio.take(answer);
      if (location.hash.startsWith(MARK)) await studio.openCode(location.hash);
    },

    // Take up the state of a code or a link; the address forgets it once it is here. False when it cannot be opened.
    async openCode(code) {
      const answer = await studio.call("restore", {code});
      if (!answer) return false;
      studio.take(answer, true, "opened from a link");
      if (location.hash.startsWith(MARK)) history.replaceState(null, "", location.pathname + location.search);
      return true;
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
    grip: "M9 6h.01M15 6h.01M9 12h.01M15 12h.01M9 18h.01M15 18h.01", trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
    lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3", unlock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 6.8-1.2",
    solo: "M4 12a8 8 0 1 0 16 0a8 8 0 1 0-16 0M9.5 12a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0", check: "M5 13l4.5 4.5L19 7",
    brush: "M20 4c-4 2-7 5-9.5 8.5l2 2C17 12 19 8 20 4zM8.5 13.5c-3 0-3 4-5 5.5 3 1 7 .5 7-3.5", eraser: "M4 15l9-9 7 7-6 6H8zM9 10l7 7M9 19h11",
    star: "M12 4l2.5 5.2 5.5.8-4 4 1 5.6-5-2.7-5 2.7 1-5.6-4-4 5.5-.8z", paste: "M8 5H6v15h12V5h-2M9 3h6v4H9z",
    pencil: "M4 20l1-4L16 5a2.1 2.1 0 0 1 3 3L8 19zM14 7l3 3", find: "M4 10.5a6.5 6.5 0 1 0 13 0a6.5 6.5 0 1 0-13 0M15.5 15.5L20 20",
    invert: "M4 12a8 8 0 1 0 16 0a8 8 0 1 0-16 0M12 4v16M12 8h6M12 12h8M12 16h6", layers: "M12 4l8 4-8 4-8-4zM4 12l8 4 8-4M4 16l8 4 8-4",
    image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4",
    halves: "M4 5h16v14H4zM12 3v18M15 9h2M15 12h2M15 15h2", link: "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 6 6l1-1",
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
  // Regions: 32 x 32 bytes, 255 where an edit acts fully; as text base64, and null where nothing is painted.
  studio.unpackMask = text => text ? Uint8Array.from(atob(text), each => each.charCodeAt(0)) : new Uint8Array(32 * 32);
  studio.packMask = mask => mask.some(Boolean) ? btoa(String.fromCharCode(...mask)) : null;
  studio.drawMask = (canvas, mask) => {
    const context = canvas.getContext("2d"), image = context.createImageData(32, 32);
    mask.forEach((value, at) => image.data.set([111, 214, 184, value], 4 * at));
    context.putImageData(image, 0, 0);
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
  // Where the browser fetches a file of the app's own folder of files.
  studio.fileAddress = path => {
    const {root: base, api_prefix: prefix} = window.gradio_config;
    return `${base}${prefix}/file=${path.split("/").map(encodeURIComponent).join("/")}`;
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
  window.addEventListener("hashchange", () => { if (studio.server && location.hash.startsWith(MARK)) studio.openCode(location.hash); });
  // A file dropped beside a zone must not replace the page, and with it everything that was set.
  for (const kind of ["dragover", "drop"])
    window.addEventListener(kind, event => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
})();
