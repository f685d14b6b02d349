// One event stream for all tabs of a browser: each tab says which page it shows, and hears everything.
const ports = new Map();
let source = null, asked = "";

function tell(message) {
  for (const port of ports.keys()) port.postMessage(message);
}

function connect() {
  const pages = [...new Set(ports.values())].sort().map((page) => "page=" + encodeURIComponent(page)).join("&");
  if (pages === asked) return;
  if (source) source.close();
  asked = pages;
  source = pages ? new EventSource("/events?" + pages) : null;
  if (!source) return;
  // What happened while there was no stream is not told: pages read again.
  source.onopen = () => tell({ name: "opened" });
  for (const name of ["changed", "beat"])
    source.addEventListener(name, (event) => tell({ name, data: JSON.parse(event.data) }));
  source.onerror = () => {
    if (source.readyState !== 2) return;
    tell({ name: "lost" });
    setTimeout(() => { asked = ""; connect(); }, 4000);
  };
}

function attend(port) {
  port.onmessage = (event) => {
    if (event.data === null) ports.delete(port);
    else ports.set(port, event.data);
    connect();
  };
}

if ("onconnect" in self) self.onconnect = (event) => attend(event.ports[0]);
else attend(self);
