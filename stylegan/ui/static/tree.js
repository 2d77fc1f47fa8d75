// The history of this page: a tree of sessions that the browser keeps (IndexedDB). Nothing of it is on the server.
// node = {id, parent, session, label, at, star, thumb, next}; `next` is the child that redo leads to.
(() => {
  const studio = window.studio;
  if (!studio || studio.tree) return;
  const LIMIT = 300, MOST_STARS = 100, MOST_TREES = 6, SIDE = 64, KEY = "stylegan-studio-history", FORMAT = "stylegan-studio-history/1";
  const nodes = new Map(), same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  let head = null, last = 0, key = null, base = null, chain = Promise.resolve();

  // --- what changed, in words -------------------------------------------------------------------------------------------
  const PLAIN = {psi: "ψ", cutoff: "cutoff", label: "class", noise: "noise", noise_seed: "noise seed", noise_strength: "noise strength"};
  const short = name => name.split("/").pop().replace(/\.\w+$/, "");
  const signed = value => `${value > 0 ? "+" : ""}${+Number(value).toFixed(2)}`;
  const plain = ({direction, strength = 1, layers = null, enabled = true, region = null}) => ({direction, strength, layers, enabled, region});
  function words(before, after) {
    if (!before) return "start";
    const was = before.request, now = after.request, said = [];
    if (was.model !== now.model) said.push(short(now.model));
    if (was.ws !== now.ws && now.ws) said.push("a restored latent");
    const at = request => [request.seed || 0, request.dx || 0, request.dy || 0];
    if (!same(at(was), at(now)) || (was.ws && !now.ws))
      said.push(now.dx || now.dy ? `near seed ${now.seed || 0}` : `seed ${now.seed || 0}`);
    for (const [field, name] of Object.entries(PLAIN))
      if (was[field] !== now[field]) said.push(`${name} ${now[field] ?? "as it was"}`);
    if (!same(was.transform, now.transform)) said.push("shift and turn");
    const of = (request, name) => (request.edits || []).filter(edit => edit.direction === name).map(plain);
    const moved = [...new Set([...(was.edits || []), ...(now.edits || [])].map(edit => edit.direction))]
      .filter(name => !same(of(was, name), of(now, name)));
    for (const name of moved) {
      const on = of(now, name).filter(edit => edit.enabled);
      said.push(on.length ? `${name} ${signed(on.reduce((sum, edit) => sum + edit.strength, 0))}` : `${name} off`);
    }
    if (!moved.length && !same((was.edits || []).map(plain), (now.edits || []).map(plain))) said.push("order of edits");
    if (!same([before.sources, before.rows], [after.sources, after.rows])) said.push("style mix");
    if (said.length > 1 && Object.keys(now).length <= 1 && !after.sources.length) return "everything reset";
    return said.slice(0, 3).join(", ") + (said.length > 3 ? " …" : "") || "switches";
  }

  // --- the browser's memory ---------------------------------------------------------------------------------------------
  const done = request => new Promise((yes, no) => { request.onsuccess = () => yes(request.result); request.onerror = () => no(request.error); });
  const store = (name, mode = "readwrite") => base.transaction(name, mode).objectStore(name);
  const range = owner => IDBKeyRange.bound([owner, 0], [owner, Infinity]);
  const fresh = () => Math.random().toString(36).slice(2, 12);
  function keep(node) {
    if (!base) return;
    if (node) store("nodes").put({...node, key});
    store("trees").put({key, head, last, at: Date.now()});
  }
  function forget(id) { if (base) store("nodes").delete([key, id]); }
  async function owned(name) {                      // a second page with the same memory works on a copy
    if (!navigator.locks) return true;
    return new Promise(answer => navigator.locks.request(`${KEY} ${name}`, {ifAvailable: true},
      lock => { answer(Boolean(lock)); return lock ? new Promise(() => {}) : undefined; }));
  }
  async function open() {
    const request = indexedDB.open(KEY, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("trees", {keyPath: "key"});
      request.result.createObjectStore("nodes", {keyPath: ["key", "id"]});
    };
    base = await done(request);
    const remembered = sessionStorage.getItem(KEY), tree = remembered && await done(store("trees", "readonly").get(remembered));
    const found = tree ? await done(store("nodes", "readonly").getAll(range(remembered))) : [];
    key = remembered && await owned(remembered) ? remembered : fresh();
    if (key !== remembered) await owned(key);
    sessionStorage.setItem(KEY, key);
    for (const {key: _, ...node} of found) nodes.set(node.id, node);
    if (tree) { head = nodes.has(tree.head) ? tree.head : found.at(-1)?.id ?? null; last = tree.last; }
    if (key !== remembered) for (const node of nodes.values()) keep(node);
    const trees = (await done(store("trees", "readonly").getAll())).sort((a, b) => b.at - a.at);
    for (const old of trees.filter(each => each.key !== key).slice(MOST_TREES)) {
      store("trees").delete(old.key); store("nodes").delete(range(old.key));
    }
  }

  // --- the tree ---------------------------------------------------------------------------------------------------------
  const children = id => [...nodes.values()].filter(node => node.parent === id);
  function arrive(id) {
    head = id;
    const parent = nodes.get(nodes.get(id)?.parent);
    if (parent && parent.next !== id) { parent.next = id; keep(parent); }
    keep();
    studio.emit("history");
  }
  function add(session, label, parent = head) {
    const node = {id: ++last, parent, session, label, at: Date.now(), star: false, thumb: "", next: null};
    nodes.set(node.id, node);
    keep(node);
    return node;
  }
  function commit({session, label, from}) {
    const now = nodes.get(head);
    if (now && from && same(now.session, from)) { now.session = session; keep(now); }    // a reload, said in other words
    if (now && same(now.session, session)) return studio.emit("history");
    const twin = children(head).find(child => same(child.session, session));
    const node = twin || add(session, label || words(now?.session, session));
    arrive(node.id);
    prune();
  }
  // At most LIMIT nodes: the oldest leaf without a star goes first, then the oldest link of a chain, which closes up.
  function prune() {
    while (nodes.size > LIMIT) {
      const loose = [...nodes.values()].filter(node => !node.star && node.id !== head && children(node.id).length < 2);
      const victim = loose.find(node => !children(node.id).length && node.id !== nodes.get(head)?.parent) || loose[0];
      if (!victim) return;
      for (const child of children(victim.id)) { child.parent = victim.parent; keep(child); }
      nodes.delete(victim.id);
      forget(victim.id);
    }
    studio.emit("history");
  }
  async function walk(pick) {
    const node = nodes.get(pick());
    if (node && node.id !== head && await studio.adopt(node.session, false)) arrive(node.id);
    studio.emit("settled");
  }
  const go = pick => chain = chain.then(() => walk(pick)).catch(() => null);
  const redoTo = () => { const kids = children(head); return (kids.find(kid => kid.id === nodes.get(head)?.next) || kids.at(-1))?.id; };

  function photograph({session, canvas}) {
    if (!canvas.width) return;
    const small = document.createElement("canvas"), scale = SIDE / Math.max(canvas.width, canvas.height);
    small.width = Math.max(1, Math.round(canvas.width * scale)); small.height = Math.max(1, Math.round(canvas.height * scale));
    const context = small.getContext("2d");
    context.fillStyle = "#fff"; context.fillRect(0, 0, small.width, small.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(canvas, 0, 0, small.width, small.height);
    const thumb = small.toDataURL("image/jpeg", 0.82), text = JSON.stringify(session);
    tree.ready.then(() => chain).then(() => {
      const recent = [...nodes.values()].reverse().slice(0, 12).concat(nodes.get(head) || []);
      const node = recent.find(each => !each.thumb && JSON.stringify(each.session) === text);
      if (!node) return;
      node.thumb = thumb;
      keep(node);
      studio.emit("history");
    });
  }

  const tree = studio.tree = {
    nodes, LIMIT, ready: null,
    get head() { return head; },
    get canUndo() { return nodes.has(nodes.get(head)?.parent); },
    get canRedo() { return children(head).length > 0; },
    go: id => go(() => id),
    undo: () => go(() => nodes.get(head)?.parent),
    redo: () => go(redoTo),
    star(id) {
      const node = nodes.get(id);
      if (!node) return;
      if (!node.star && [...nodes.values()].filter(each => each.star).length >= MOST_STARS)
        return studio.say(`There are ${MOST_STARS} stars already; take one away first.`, "bad");
      node.star = !node.star;
      keep(node);
      studio.emit("history");
    },
    clear() {
      for (const id of [...nodes.keys()]) if (id !== head) { nodes.delete(id); forget(id); }
      const node = nodes.get(head);
      if (node) { node.parent = null; node.next = null; keep(node); }
      studio.emit("history");
    },
    // The whole tree as the text of a file, and back: the server checks every request before anything is taken.
    toText: () => JSON.stringify({format: FORMAT, head, nodes: [...nodes.values()].map(({next, ...node}) => node)}),
    async take(text) {
      let data = null;
      try { data = JSON.parse(text); } catch { return studio.say("That file is no history of this app; choose one that it saved.", "bad"); }
      const answer = await studio.call("check_history", data);
      if (!answer) return;
      if (nodes.size + answer.nodes.length > LIMIT)
        return studio.say(`Together they have ${nodes.size + answer.nodes.length} pictures, and at most ${LIMIT} are kept; save and clear this history first.`, "bad");
      const places = new Map();
      for (const each of answer.nodes) {
        const node = add(each.session, each.label, places.get(each.parent) ?? null);
        places.set(each.id, node.id);
        Object.assign(node, {at: each.at, star: each.star, thumb: each.thumb});
        keep(node);
      }
      studio.say(`${answer.nodes.length} pictures were added to the history.`, "good");
      await tree.go(places.get(answer.head));
      studio.emit("history");
    },
  };
  tree.ready = open().catch(() => { base = null; });        // a private window: the history lives as long as the page
  studio.on("committed", document.documentElement, change => chain = chain.then(() => tree.ready).then(() => commit(change)));
  studio.on("shown", document.documentElement, photograph);
})();
