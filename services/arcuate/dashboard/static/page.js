// Keeps a page alive without moving it under the hand, and makes it work by keys. Pages work without it.
(() => {
  const body = document.body, data = body.dataset, now = () => Date.now();
  const one = (css, root) => (root || document).querySelector(css), all = (css, root) => [...(root || document).querySelectorAll(css)];
  const csrf = JSON.parse(body.getAttribute("hx-headers") || "{}");
  const page = data.page + (data.about ? ":" + data.about.split(",").sort().join(",") : "");
  const waiting = new Set();
  let beat = now(), silent = null, acted = 0, pinged = now(), made = data.made, loaded = now();

  // Parts
  const rootOf = (name) => document.getElementById(name);
  const busy = (root) => {
    if (!root || !("hold" in root.dataset)) return false;
    const active = document.activeElement;
    return now() - acted < 3000 || (root.contains(active) && active !== root && now() - acted < 20000) || !!one("dialog[open]");
  };

  function put(fresh) {
    const old = rootOf(fresh.id);
    if (!old) return;
    const active = old.contains(document.activeElement) ? document.activeElement : null;
    if (active && active.matches("input, textarea, select") && (busy(old) ? waiting.add(old.id) : active.value !== active.defaultValue)) return;
    const rows = active ? all("[data-row]", old).map((row) => row.id) : [];
    const places = all("[data-scroll]", old).concat(old).map((el) => [el.id, el.scrollTop, el.scrollLeft]);
    old.replaceWith(fresh);
    for (const [id, top, left] of places) { const el = id && rootOf(id); if (el) { el.scrollTop = top; el.scrollLeft = left; } }
    if (window.htmx) htmx.process(fresh);
    rove();
    if (!active) return;
    // The same item keeps the focus, else its successor.
    const after = rows.slice(rows.indexOf(active.id) + 1).concat(rows.slice(0, rows.indexOf(active.id) + 1).reverse());
    const next = [active.id, ...after].map((id) => id && rootOf(id)).find((el) => el);
    (next || one("[data-row]", fresh) || one("#main")).focus({ preventScroll: true });
  }

  async function refresh(names) {
    if (!data.parts || !names.length) return;
    const query = location.search.slice(1);
    const answer = await fetch(data.parts + "?names=" + names + (query && "&" + query), { headers: { "X-Live": "1" } }).catch(() => ({}));
    if (answer.status === 401) location.href = "/sign-in?ended=1";
    if (!answer.ok) return;
    made = answer.headers.get("X-Made") || made;
    for (const fresh of [...new DOMParser().parseFromString(await answer.text(), "text/html").body.children]) put(document.adoptNode(fresh));
    again();
  }

  function again() {
    for (const el of all("[data-again]")) {
      const root = el.closest("[data-part]"), wait = el.dataset.again * 1000, whole = "whole" in el.dataset;
      delete el.dataset.again;
      const go = () => whole ? busy(root) ? setTimeout(go, wait) : location.reload() : refresh([root.id]);
      if (root) setTimeout(go, wait);
    }
  }

  function changed(names) {
    for (const name of names) waiting[busy(rootOf(name)) ? "add" : "delete"](name);
    refresh(names.filter((name) => !waiting.has(name)));
    announce();
  }

  function announce() {
    const line = one("#changes");
    line.hidden = !waiting.size;
    line.innerHTML = waiting.size + (waiting.size > 1 ? " changes" : " change") + ", show <kbd>.</kbd>";
  }

  function show() {
    const names = [...waiting];
    waiting.clear(); announce(); refresh(names);
  }

  // The stream, and how old the page is
  function hear(message) {
    if (message.name === "beat") { beat = now(); silent = message.data.silent; }
    if (message.name === "changed" && message.data.page === page) changed(message.data.parts);
    if (message.name === "opened" && now() - loaded > 3000) changed(all("[data-part]").map((el) => el.id));
    if (message.name === "lost") refresh(all("[data-part]").slice(0, 1).map((el) => el.id));
    age();
  }

  function age() {
    const line = one("[data-age]");
    if (!line) return;
    const seconds = Math.round((now() - beat) / 1000), stale = seconds > 15 || silent;
    line.className = "age " + (stale ? "stale" : "live");
    const gap = silent ? Math.round((now() - Date.parse(silent)) / 1000) : seconds;
    line.lastElementChild.textContent = stale ? "No news for " + (gap < 100 ? gap + " s" : Math.round(gap / 60) + " min") + "; what you see is of " + made : "Live, " + seconds + " s ago";
    one("#band").hidden = !(stale && gap > 120);
  }

  function listen() {
    if (!data.stream || !data.parts) return;
    const worker = window.SharedWorker ? new SharedWorker(data.stream).port : new Worker(data.stream);
    worker.onmessage = (event) => hear(event.data);
    worker.postMessage(page);
    addEventListener("pagehide", () => worker.postMessage(null));
    addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
    one("#changes").onclick = show;
    setInterval(age, 1000);
    setInterval(() => { if (waiting.size && ![...waiting].some((name) => busy(rootOf(name)))) show(); }, 1000);
  }

  // Keys
  const rows = () => all("[data-row]");
  function rove() {
    const list = rows(), at = list.find((row) => row === document.activeElement) || list.find((row) => row.closest(".picked")) || list[0];
    for (const row of list) row.tabIndex = row === at ? 0 : -1;
  }

  function move(step) {
    const list = rows();
    if (!list.length) return;
    let at = list.indexOf(document.activeElement);
    if (at < 0) at = list.findIndex((row) => row.closest(".picked"));
    if (at < 0) at = Math.max(0, list.findIndex((row) => !row.matches(".done, .missed"))) - step;
    go(list[Math.min(list.length - 1, Math.max(0, at + step))]);
  }

  function across(step) {
    const here = document.activeElement, lane = here.closest("svg.lane"), lanes = all("svg.lane");
    const next = lane && lanes[lanes.indexOf(lane) + step];
    if (!next) return;
    const y = here.getBoundingClientRect().top, far = (row) => Math.abs(row.getBoundingClientRect().top - y);
    go(all("[data-row]", next).sort((a, b) => far(a) - far(b))[0]);
  }

  function go(row) {
    if (!row) return;
    row.focus(); row.scrollIntoView({ block: "nearest" }); rove();
  }

  const MOVES = { j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1), ArrowLeft: () => across(-1), ArrowRight: () => across(1) };

  function press(event) {
    acted = now(); ping();
    if (event.ctrlKey || event.altKey || event.metaKey || one("dialog[open]")) return;
    const field = event.target.closest("input, textarea, select");
    if (field) { if (event.key === "Escape") field.blur(); return; }
    if (event.key.length === 1 && data.letters === "off") return;
    const near = event.target.closest("[data-row]") && one('[data-key="' + CSS.escape(event.key) + '"]', event.target.closest("tr, li") || body);
    const aim = near || one('[data-key="' + CSS.escape(event.key) + '"]');
    // What the side says of another row than the hand's is never acted on.
    const of = aim && aim.closest("[data-of]"), row = event.target.closest("[data-row]");
    if (of && row && of.dataset.of !== row.id) return event.preventDefault();
    if (event.key === "?") one("#help").showModal();
    else if (MOVES[event.key] && (rows().length || !event.key.startsWith("Arrow"))) MOVES[event.key]();
    else if (aim && aim.matches("input, textarea, select")) { aim.focus(); aim.select(); }
    else if (aim) aim.click();
    else return;
    event.preventDefault();
  }

  function ping() {
    if (!csrf["X-CSRF-Token"] || now() - pinged < 60000) return;
    pinged = now();
    fetch("/me/seen", { method: "POST", headers: csrf }).catch(() => {});
  }

  addEventListener("keydown", press);
  addEventListener("pointerdown", () => { acted = now(); ping(); });
  document.addEventListener("htmx:afterSwap", rove);
  for (const el of all("[data-top]")) el.scrollTop = el.dataset.top;
  const mark = one("[data-focus]");
  if (mark) mark.focus();
  rove(); again(); listen();
})();
