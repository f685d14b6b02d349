// Turns the picture of a measured structure into the whole head, slice by slice (NiiVue, WebGL 2). The page works without it.
(() => {
  const own = document.currentScript, view = document.getElementById("view"), box = document.getElementById("volume");
  const canvas = document.getElementById("slices");
  // After an act the answer says which row comes next; one row is the chosen one: the one under the hand.
  document.addEventListener("htmx:afterSettle", () => {
    const next = document.querySelector("[data-go]");
    if (next) { next.removeAttribute("data-go"); next.focus(); next.scrollIntoView({ block: "nearest" }); }
  });
  addEventListener("focusin", (event) => {
    const line = event.target.matches("[data-row]") && event.target.closest("tr");
    if (!line) return;
    for (const other of line.closest("table").querySelectorAll("tr.picked")) other.classList.remove("picked");
    line.classList.add("picked");
  });
  // The answer for a row comes after the hand went on to a field of the same row: what stands there already is kept.
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const old = event.detail.target, active = document.activeElement, fresh = event.detail.fragment.firstElementChild;
    if (!old.dataset.of || !old.contains(active) || !active.matches("input, textarea, select")) return;
    if (fresh && fresh.dataset.of === old.dataset.of) event.detail.shouldSwap = false;
  });
  if (!view || !canvas) return;
  const asked = () => document.getElementById("picture");
  const say = (text) => { const line = document.getElementById("view-words"); if (line) line.textContent = text; };
  const PLANES = { axial: 0, coronal: 1, sagittal: 2 };
  let nv = null, legend = null, shown = "", whole = null, lines = null;

  // Drawn by software (no graphics card) a slice takes seconds: the server's pictures are better then.
  const works = () => {
    const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
    const told = gl && gl.getExtension("WEBGL_debug_renderer_info");
    const drawer = told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : "";
    if (gl) gl.getExtension("WEBGL_lose_context")?.loseContext();
    return !!gl && !/swiftshader|llvmpipe|software|basic render/i.test(drawer);
  };

  function script(url) {
    return new Promise((resolve, reject) => {
      const made = document.createElement("script");
      made.src = url; made.onload = resolve; made.onerror = reject;
      document.head.append(made);
    });
  }

  // Only the chosen structure is coloured; everything else of the label map is clear.
  function colours(structure) {
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const part of structure.parts) for (const label of part.labels) {
      map.I.push(label); map.A.push(255); map.labels.push("");
      ["R", "G", "B"].forEach((c, k) => map[c].push(part.colour[k]));
    }
    return map;
  }

  // The border of every label: what has a neighbour of another label.
  function border(img, [, x, y, z]) {
    const made = new Uint8Array(img.length), row = x, sheet = x * y, last = img.length - sheet;
    for (let i = sheet; i < last; i++) {
      const label = img[i];
      if (label && (img[i - 1] !== label || img[i + 1] !== label || img[i - row] !== label || img[i + row] !== label || img[i - sheet] !== label || img[i + sheet] !== label)) made[i] = label;
    }
    return made;
  }

  function show() {
    const root = asked(), structure = legend.structures[root.dataset.structure], layer = root.dataset.layer;
    if (!structure) { view.classList.remove("live-view"); box.hidden = true; return; }
    view.classList.add("live-view"); box.hidden = false;
    const [, labels, doubt] = nv.volumes;
    labels.img = layer === "fill" ? whole : lines;
    labels.setColormapLabel(colours(structure));
    nv.setOpacity(1, layer === "off" ? 0 : layer === "fill" ? 0.45 : 1);
    if (doubt) nv.setOpacity(2, layer === "uncertainty" ? 0.75 : 0);
    nv.updateGLVolume();
    if (shown !== root.dataset.structure) {
      shown = root.dataset.structure;
      nv.scene.crosshairPos = nv.mm2frac(structure.centre_mm);
      nv.setSliceType(PLANES[structure.plane] ?? 1);
      nv.createOnLocationChange();
    }
    nv.drawScene();
    say("Wheel: slices. " + structure.plane + ", radiological: right of the patient is left of the picture");
  }

  async function load() {
    const root = asked(), at = root.dataset.study;
    if (!at) return;  // no picture either
    const answer = await fetch(at + "/legend");
    if (!answer.ok) return say("This study was kept without its volume: pictures made by the server are shown, one slice a structure.");
    legend = await answer.json();
    await script(own.dataset.niivue);
    nv = new window.niivue.Niivue({
      backColor: [0, 0, 0, 1], isRadiologicalConvention: true, show3Dcrosshair: false, crosshairWidth: 0, dragAndDropEnabled: false,
      isOrientationTextVisible: true, isSliceMM: false, logLevel: "error", loadingText: "", textHeight: 0.05, sagittalNoseLeft: true,
    });
    await nv.attachToCanvas(canvas);
    const volumes = [{ url: at + "/head.nii.gz", colormap: "gray" }, { url: at + "/labels.nii.gz", opacity: 1 }];
    if (legend.uncertainty) volumes.push({ url: at + "/uncertainty.nii.gz", colormap: "inferno", opacity: 0, cal_min: 40, cal_max: 255 });
    await nv.loadVolumes(volumes);
    whole = nv.volumes[1].img;
    lines = border(whole, nv.volumes[1].hdr.dims);
    show();
    new MutationObserver(() => { if (asked()) show(); }).observe(view, { childList: true });
  }

  if (!works()) return say("No WebGL 2 with a graphics card here: pictures made by the server are shown, one slice a structure.");
  load().catch(() => { view.classList.remove("live-view"); box.hidden = true; say("The volume could not be shown: pictures made by the server stand here."); });
})();
