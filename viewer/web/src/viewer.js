// The page of `synbrain view`: pictures on the left, the cortex (or voxels, or units) in the middle, ROIs beside or below.
import { absQuantile, minus, unpack } from "./arrays.js";
import { DIVERGING, ROI_COLOURS, gradient } from "./colours.js";
import { Cortex, VIEWS } from "./cortex.js";
import { csv, gifti, save } from "./files.js";

const MAPS = {
  expected: "expected response",
  trial: "one synthetic trial",
  sd: "sd of single trials",
  error: "error of the mean (sd)",
  measured: "measured mean",
  difference: "measured minus expected",
};
// on a phone, where six long names would take three rows
const BRIEF = {
  expected: "expected", trial: "one trial", sd: "trial sd", error: "error of mean", measured: "measured", difference: "difference",
};
const SPREADS = ["sd", "error"]; // from 0 up, and without a mean map to subtract
const SHEETS = ["inflated", "white", "flat"];
const MAX_UPLOAD = 20e6;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const short = (value) => (Number.isFinite(value) ? (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2)) : "–");

class Viewer {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.baseline = unpack(data.baseline);
    this.ceiling = unpack(data.ceiling);
    this.ends = data.interval && ["low", "high"].map((end) => unpack(data.interval[end]));
    this.atlases = data.atlases.map((atlas) => ({ ...atlas, voxels: unpack(atlas.voxels) }));
    // what the stage shows, in the words of the data
    this.scene = data.geometry.kind === "surface" ? "cortex" : data.unit_names;
    this.views = data.geometry.kind === "surface" ? Object.keys(VIEWS)
      : data.geometry.kind === "grid" ? [] : Object.keys(VIEWS).filter((view) => view !== "inside");
    this.cache = new Map();
    this.state = {
      map: "expected", trial: 0, relative: !!this.baseline, colours: "blue-red", threshold: 0, limit: 1,
      atlas: this.atlases.length ? 0 : -1, row: 0,
    };
    this.pinned = null;
    this.build();
    const missing = this.openCortex();
    if (missing) this.say(missing);
    this.show(this.read(data.first));
    new ResizeObserver(() => this.cortex?.resize()).observe(this.canvas);
    root.dataset.ready = "yes";
  }

  openCortex() {
    try {
      this.cortex = new Cortex(this.canvas, this.data.geometry);
    } catch (error) {
      return `This browser shows no WebGL (${error.message}): the ${this.scene} cannot be drawn, figures and files still work.`;
    }
    for (const atlas of this.atlases) {
      const n = this.cortex.isSurface ? 2 * this.cortex.nVertices : this.data.n_voxels;
      atlas.vertices = Int16Array.from({ length: n }, (_, i) => atlas.voxels[this.cortex.voxelOf(i)] ?? 0);
    }
    this.cortex.setPanels(1);
    this.cortex.setAtlas(this.atlases[this.state.atlas] || null);
    this.cortex.resize();
    return "";
  }

  read(response) {
    const maps = Object.fromEntries(
      Object.entries(response.maps).map(([k, v]) => [k, Array.isArray(v) ? v.map(unpack) : unpack(v)]),
    );
    return { ...response, maps };
  }

  // ---- the controls -----------------------------------------------------------------------------------

  select(label, options, value, change) {
    const box = make("select", { "aria-label": label, onchange: (event) => change(event.target.value) });
    for (const [key, text] of options) box.append(make("option", { value: key, selected: key === value }, text));
    return make("label", {}, make("span", {}, label), box);
  }

  build() {
    const { data } = this;
    this.canvas = make("canvas", {
      tabindex: "0", role: "img", "aria-label": `The ${this.scene} with the chosen map; arrow keys turn, + and - zoom`,
    });
    this.tip = make("div", { class: "sv-tip", role: "status", hidden: true });
    this.note = make("p", { class: "sv-note", role: "alert", hidden: true });
    this.names = make("div", { class: "sv-names", "aria-hidden": "true" });
    this.stage = make("div", { class: "sv-stage" }, this.canvas, this.names, this.tip);
    this.picture = make("img", { class: "sv-picture", alt: "" });
    this.caption = make("p", { class: "sv-caption" });
    this.beside = make("div", { class: "sv-beside" });
    this.bar = make("div", { class: "sv-bar" });
    this.legend = make("div", { class: "sv-legend" });
    this.rois = make("section", { class: "sv-rois", "aria-label": "ROIs" });
    this.root.classList.add("sv");
    if (!data.first.rois?.length) this.root.classList.add("sv-roiless");
    this.root.append(
      make("aside", { class: "sv-side", "aria-label": "Picture" },
        ...this.pictureControls(), this.note, make("figure", {}, this.picture, this.caption), this.beside),
      make("section", { class: "sv-main", "aria-label": `The ${this.scene}` },
        this.controls(), this.stage, this.bar, this.legend, this.downloads()),
      this.rois,
    );
    this.listen();
    if (data.geometry.note) this.root.append(make("p", { class: "sv-foot" }, data.geometry.note));
  }

  pictureControls() {
    const { data } = this;
    const nodes = [];
    if (data.mode === "server") {
      this.file = make("input", {
        type: "file", accept: "image/png,image/jpeg,image/webp,image/bmp,image/gif,image/tiff", class: "sv-file",
        onchange: () => this.file.files[0] && this.upload(this.file.files[0]),
      });
      nodes.push(make("label", { class: "sv-drop" }, "Drop a picture here, or click to choose one", this.file));
    }
    if (data.images.length) {
      const last = data.images.length - 1;
      this.slider = make("input", {
        type: "range", min: 0, max: last, value: 0, "aria-label": "test image",
        oninput: () => this.openRow(Number(this.slider.value)),
      });
      this.place = make("output", {}, `1 of ${last + 1}`);
      nodes.push(make("div", { class: "sv-scrub" },
        make("button", { "aria-label": "previous image", onclick: () => this.step(-1) }, "‹"), this.slider,
        make("button", { "aria-label": "next image", onclick: () => this.step(1) }, "›"), this.place));
    }
    this.pin = make("button", { class: "sv-pin", onclick: () => this.togglePin() }, "Keep as B and compare");
    nodes.push(this.pin);
    return nodes;
  }

  controls() {
    const { state, data } = this;
    const there = Object.entries(MAPS).filter(([key]) => this.has(data.first, key));
    this.mapBox = make("div", { class: "sv-maps", role: "group", "aria-label": "map" });
    for (const [key, text] of there) {
      this.mapBox.append(make("button", { "data-map": key, onclick: () => this.set({ map: key }) },
        make("span", { class: "sv-long" }, text), make("span", { class: "sv-brief" }, BRIEF[key])));
    }
    const n = (data.first.maps.trials || []).length;
    this.trialBox = this.select("trial", Array.from({ length: n }, (_, i) => [String(i), `trial ${i + 1}`]), "0",
      (value) => this.set({ trial: Number(value), map: "trial" }));
    const row = make("div", { class: "sv-row" });
    if (n) row.append(this.trialBox);
    if (data.geometry.kind === "surface") {
      row.append(this.select("surface", SHEETS.map((s) => [s, s]), "inflated", (value) => this.setSheet(value)));
    }
    if (this.views.length) {
      row.append(this.select("view", this.views.map((v) => [v, v]), "behind", (value) => this.setView(value)));
    }
    if (this.atlases.length) {
      const names = [["-1", "none"], ...this.atlases.map((a, i) => [String(i), a.name])];
      row.append(this.select("ROIs", names, String(state.atlas), (value) => this.setAtlas(Number(value))));
    }
    row.append(this.select("colours", DIVERGING.map((c) => [c, c]), state.colours, (value) => this.set({ colours: value })));
    this.threshold = make("input", { type: "range", min: 0, max: 100, value: 0, "aria-label": "hide values below",
      oninput: () => this.set({ threshold: Number(this.threshold.value) / 100 }) });
    this.range = make("input", { type: "range", min: 10, max: 200, value: 100, "aria-label": "range of colours",
      oninput: () => this.set({ limit: Number(this.range.value) / 100 }) });
    row.append(make("label", {}, make("span", {}, "hide below"), this.threshold),
      make("label", {}, make("span", {}, "colour range"), this.range));
    if (this.baseline) {
      this.relative = make("input", { type: "checkbox", checked: state.relative,
        onchange: () => this.set({ relative: this.relative.checked }) });
      row.append(make("label", { class: "sv-check" }, this.relative, make("span", {}, "minus the mean map")));
    }
    return make("div", { class: "sv-controls" }, this.mapBox, row);
  }

  downloads() {
    const row = make("div", { class: "sv-row sv-take" },
      make("button", { onclick: () => this.saveCsv() }, "CSV"),
      make("button", { onclick: () => this.savePng() }, "PNG"));
    if (this.data.geometry.kind === "surface") row.append(make("button", { onclick: () => this.saveGifti() }, "GIfTI"));
    row.append(make("button", { onclick: () => this.toggleDark(), "aria-label": "light or dark" }, "◐"),
      make("details", { class: "sv-keys" }, make("summary", {}, "keys"),
        ["n, p: next and previous image", "1 to 6: maps", ...(this.views.length ? ["v: view"] : []),
          ...(this.data.geometry.kind === "surface" ? ["s: surface"] : []), "b: keep as B", "d: dark",
          `on the ${this.scene}: arrows turn, + − zoom`].join(" · ")));
    return row;
  }

  listen() {
    const point = (event) => {
      const box = this.canvas.getBoundingClientRect();
      this.pointer = [event.clientX - box.left, event.clientY - box.top];
      this.hover();
    };
    this.canvas.addEventListener("pointermove", point);
    this.canvas.addEventListener("pointerdown", point);
    // a finger that is lifted leaves the cortex, too: what it pointed at stays until the next tap
    this.canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "touch") return;
      this.pointer = null;
      this.hover();
    });
    this.canvas.addEventListener("keydown", (event) => this.turnKey(event));
    // the page's own keys, unless someone types or the viewer is one of several things on the page
    this.root.addEventListener("keydown", (event) => this.key(event));
    if (this.root.parentElement === document.body || this.root.closest("main") === this.root) {
      document.addEventListener("keydown", (event) => !this.root.contains(event.target) && this.key(event));
    }
    if (this.data.mode !== "server") return;
    for (const name of ["dragenter", "dragover"]) {
      document.addEventListener(name, (event) => {
        event.preventDefault();
        this.root.classList.add("sv-over");
      });
    }
    document.addEventListener("dragleave", () => this.root.classList.remove("sv-over"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.root.classList.remove("sv-over");
      const file = event.dataTransfer.files[0];
      if (file) this.upload(file);
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
    const cycle = (names, now) => names[(names.indexOf(now) + 1) % names.length];
    const maps = [...this.mapBox.children];
    if (event.key === "n") this.step(1);
    else if (event.key === "p") this.step(-1);
    else if (/^[1-6]$/.test(event.key) && maps[event.key - 1]) maps[event.key - 1].click();
    else if (event.key === "v" && this.cortex && this.views.length) this.setView(cycle(this.views, this.cortex.view));
    else if (event.key === "s" && this.cortex?.isSurface) this.setSheet(cycle(SHEETS, this.cortex.sheet));
    else if (event.key === "b") this.togglePin();
    else if (event.key === "d") this.toggleDark();
    else return;
    event.preventDefault();
  }

  turnKey(event) {
    const steps = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15] };
    if (!this.cortex) return;
    if (steps[event.key]) this.cortex.turn(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") this.cortex.zoom(0.9);
    else if (event.key === "-") this.cortex.zoom(1.1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- what is shown ----------------------------------------------------------------------------------

  set(change) {
    Object.assign(this.state, change);
    this.paint();
  }

  setSheet(sheet) {
    this.cortex.sheet = sheet;
    this.root.querySelector("[aria-label=surface]").value = sheet;
    this.cortex.layOut();
    this.hover();
  }

  setView(view) {
    this.cortex.view = view;
    this.root.querySelector("[aria-label=view]").value = view;
    this.cortex.layOut();
    this.hover();
  }

  setAtlas(number) {
    this.state.atlas = number;
    this.cortex?.setAtlas(this.atlases[number] || null);
    this.cortex?.render();
    this.drawLegend();
    this.drawRois();
  }

  say(message) {
    this.note.textContent = message;
    this.note.hidden = !message;
  }

  has(response, map) {
    if (map === "trial") return !!response.maps.trials?.length;
    if (map === "difference") return !!response.maps.measured && !!response.maps.expected;
    return !!response.maps[map];
  }

  values(response, map) {
    const { maps } = response;
    if (!this.has(response, map)) return null;
    if (map === "difference") return minus(maps.measured, maps.expected);
    const raw = map === "trial" ? maps.trials[Math.min(this.state.trial, maps.trials.length - 1)] : maps[map];
    return this.state.relative && !SPREADS.includes(map) ? minus(raw, this.baseline) : raw;
  }

  show(response) {
    this.current = response;
    this.picture.src = response.picture;
    this.picture.alt = `the picture that is looked at: ${response.name}`;
    this.caption.textContent = response.name;
    for (const button of this.mapBox.children) button.disabled = !this.has(response, button.dataset.map);
    if (!this.has(response, this.state.map)) this.state.map = "expected";
    this.drawBeside();
    this.paint();
  }

  panelsOf() {
    const { map } = this.state;
    const a = this.values(this.current, map);
    if (!this.pinned) return [["", a]];
    const b = this.values(this.pinned, map) || a.map(() => NaN);
    return [["A", a], ["B", b], ["A − B", minus(a, b)]];
  }

  paint() {
    const { state } = this;
    const sequential = SPREADS.includes(state.map);
    this.shown = this.panelsOf();
    // one range for expected, trial and measured maps, so that they can be compared by eye
    const like = sequential ? [state.map] : state.map === "difference" ? ["difference"] : ["expected", "measured"];
    const base = [this.current, this.pinned].filter(Boolean).flatMap((r) => like.map((m) => this.values(r, m)))
      .filter(Boolean);
    const limit = absQuantile(base, 0.98) * state.limit;
    const colours = sequential ? "cividis" : state.colours;
    this.scale = { limit, map: colours, sequential, threshold: state.threshold * limit };
    if (this.cortex) {
      this.cortex.setPanels(this.shown.length);
      this.vertices = this.shown.map(([, values]) => this.cortex.toVertices(values));
      this.vertices.forEach((values, i) => {
        const one = this.shown[i][0] === "A − B" && sequential ? { ...this.scale, sequential: false, map: state.colours } : this.scale;
        this.cortex.paint(i, values, one);
      });
      this.cortex.render();
    }
    this.names.replaceChildren(...this.shown.map(([name], i) => {
      const [x, y] = this.cortex ? this.cortex.boxes()[i] : [0, 0];
      return make("span", { style: `left:${x + 8}px;top:${y + 6}px` }, name);
    }));
    for (const button of this.mapBox.children) button.setAttribute("aria-pressed", button.dataset.map === state.map);
    this.drawBar();
    this.drawLegend();
    this.drawRois();
    this.hover(); // a tooltip must not keep the value of another map
  }

  /** The name of the map, and whether the mean map is taken off it. */
  called(map) {
    return MAPS[map] + (this.state.relative && ![...SPREADS, "difference"].includes(map) ? ", minus the mean map" : "");
  }

  drawBar() {
    const { scale, state } = this;
    const what = this.called(state.map);
    const low = scale.sequential ? 0 : -scale.limit;
    this.bar.replaceChildren(
      make("span", {}, short(low)), make("i", { style: `background:${gradient(scale.map)}` }),
      make("span", {}, short(scale.limit)), make("b", {}, `${what} (${this.data.unit})`));
  }

  drawLegend() {
    const atlas = this.atlases[this.state.atlas];
    this.legend.replaceChildren();
    if (!atlas) return;
    atlas.labels.forEach((label, i) => {
      if (!i) return;
      const colour = ROI_COLOURS[(i - 1) % ROI_COLOURS.length];
      this.legend.append(make("span", {}, make("i", { style: `background:${colour}` }), label));
    });
  }

  drawRois() {
    const atlas = this.atlases[this.state.atlas];
    const ofAtlas = (roi) => !atlas || roi.atlas === atlas.name;
    const rows = (this.current.rois || []).filter(ofAtlas);
    this.rois.replaceChildren();
    if (!rows.length) return;
    this.rois.append(this.pinned ? this.pairTable(rows, (this.pinned.rois || []).filter(ofAtlas)) : this.roiTable(rows));
  }

  /** A mean over an ROI, minus the mean map where that is asked for; NaN where it is not known. */
  roiValue(roi, key) {
    if (key === "difference") return this.roiValue(roi, "measured") - this.roiValue(roi, "expected");
    const value = roi?.[key] ?? NaN;
    return this.state.relative && !SPREADS.includes(key) ? value - (roi?.baseline ?? 0) : value;
  }

  tableOf(caption, titles, rows) {
    return make("table", {}, caption,
      make("thead", {}, make("tr", {}, ...["ROI", "", ...titles].map((t) => make("th", { scope: "col" }, t)))),
      make("tbody", {}, ...rows.map(([name, track, values]) => make("tr", {}, make("th", { scope: "row" }, name),
        make("td", {}, track), ...values.map((value) => make("td", {}, short(value)))))));
  }

  roiTable(rows) {
    const value = (roi, key) => this.roiValue(roi, key);
    const reach = Math.max(...rows.flatMap((r) =>
      [Math.abs(value(r, "expected")) + Math.max(r.sd || 0, r.error || 0), Math.abs(value(r, "measured")) || 0])) || 1;
    const has = (key) => rows.some((r) => Number.isFinite(r[key]));
    const columns = [["expected", "expected"], ["sd", "trial sd"], ["error", "error of mean"], ["measured", "measured"], ["ceiling", "ceiling r"]]
      .filter(([key]) => has(key));
    const at = (v) => 50 + (48 * v) / reach;
    const key = (tag, text) => make("span", {}, make(tag), text);
    const caption = make("caption", {}, `Mean over each ROI${this.state.relative ? ", minus the mean map" : ""} (${this.data.unit})`);
    const legend = make("div", { class: "sv-key" }, key("i", "expected"));
    if (has("sd")) legend.append(key("u", "± sd of single trials"));
    if (has("error")) legend.append(key("b", "± error of the mean (one sd each)"));
    if (has("measured")) legend.append(make("span", {}, make("em", {}, "◆"), "measured"));
    caption.append(legend);
    return this.tableOf(caption, columns.map(([, title]) => title), rows.map((roi) => {
      const [e, m] = [value(roi, "expected"), value(roi, "measured")];
      const sd = roi.sd || 0;
      const track = this.track(at, e, m);
      track.append(make("u", { style: `left:${at(e - sd)}%;width:${(96 * sd) / reach}%` }));
      // below the bar: repeats vary by the line, and the bar's own end may lie anywhere along the block
      if (roi.error) track.append(make("b", { style: `left:${at(e - roi.error)}%;width:${(96 * roi.error) / reach}%` }));
      return [roi.name, track, columns.map(([name]) => (name === "ceiling" ? roi.ceiling ?? NaN : value(roi, name)))];
    }));
  }

  /** A, B and their difference, of the map that is shown: single trials have no means of their own, the expected one stands for them. */
  pairTable(rows, others) {
    const map = this.state.map === "trial" ? "expected" : this.state.map;
    const pairs = rows.map((roi) => {
      const other = others.find((o) => o.atlas === roi.atlas && o.name === roi.name);
      return [roi.name, this.roiValue(roi, map), this.roiValue(other, map)];
    });
    const reach = Math.max(...pairs.flatMap(([, a, b]) => [Math.abs(a) || 0, Math.abs(b) || 0])) || 1;
    const at = (v) => 50 + (48 * v) / reach;
    const caption = make("caption", {}, `Mean over each ROI: ${this.called(map)} (${this.data.unit})`,
      make("div", { class: "sv-key" }, make("span", {}, make("i"), "A"), make("span", {}, make("em", {}, "◆"), "B")));
    return this.tableOf(caption, ["A", "B", "A − B"],
      pairs.map(([name, a, b]) => [name, this.track(at, a, b), [a, b, a - b]]));
  }

  /** A bar from 0 to one value, and a mark at another where that is known. */
  track(at, bar, mark) {
    const track = make("div", { class: "sv-track", "aria-hidden": "true" }, make("s"));
    if (Number.isFinite(bar)) track.append(make("i", { style: `left:${Math.min(50, at(bar))}%;width:${Math.abs(at(bar) - 50)}%` }));
    if (Number.isFinite(mark)) track.append(make("em", { style: `left:${at(mark)}%` }, "◆"));
    return track;
  }

  drawBeside() {
    const { nearest, decoded } = this.current;
    this.beside.replaceChildren();
    if (decoded) {
      // a column each response, a row each way to show what the decoder reads from it
      const from = ["expected", "measured"].filter((key) => decoded[0][key]);
      const table = make("table", { class: "sv-decoded" },
        make("caption", {}, "Decoded from the response", make("details", {}, make("summary", {}, "what these are"), this.data.decoder)),
        make("thead", {}, make("tr", {}, make("td"), ...from.map((key) => make("th", { scope: "col" }, key)))));
      const body = make("tbody");
      for (const row of decoded) {
        body.append(make("tr", {}, make("th", { scope: "row" }, row.label), ...from.map((key) =>
          make("td", {}, make("img", { src: row[key], alt: `${row.label}: decoded from the ${key} response` })))));
      }
      table.append(body);
      this.beside.append(table);
    }
    if (nearest?.length) {
      this.beside.append(make("h3", {}, "Training images with the most similar measured response"));
      const row = make("div", { class: "sv-nearest" });
      for (const image of nearest) {
        row.append(make("figure", {}, make("img", { src: image.picture, alt: `training image ${image.name}` }),
          make("figcaption", {}, `r ${short(image.r)}`)));
      }
      this.beside.append(row);
    }
    if (this.pinned) {
      this.beside.append(make("h3", {}, "B"), make("img", { src: this.pinned.picture, class: "sv-picture", alt: `picture B: ${this.pinned.name}` }),
        make("p", { class: "sv-caption" }, this.pinned.name));
    }
  }

  hover() {
    const hit = this.pointer && this.cortex?.pick(...this.pointer);
    const voxel = hit ? this.cortex.voxelOf(hit.vertex) : -1;
    this.tip.hidden = !hit || voxel < 0;
    if (this.tip.hidden) return;
    const labels = this.atlases.map((a) => a.labels[a.voxels[voxel]]).filter(Boolean);
    const [name] = this.shown[hit.panel];
    const lines = [
      [`${this.data.unit_name} ${voxel}`, ...(this.atlases.length ? [labels.join(" · ") || "no ROI"] : [])].join(" · "),
      `${name ? name + ": " : ""}${short(this.vertices[hit.panel][hit.vertex])} ${this.data.unit}`,
      this.called(this.state.map),
      ...this.beyond(hit.panel, voxel),
    ];
    if (this.ceiling) lines.push(`ceiling r ${short(this.ceiling[voxel])}`);
    this.tip.replaceChildren(...lines.map((line) => make("div", {}, line)));
    const [x, y] = this.pointer;
    const w = this.stage.clientWidth;
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, w - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${Math.max(4, y - this.tip.offsetHeight - 10)}px`;
  }

  /** What is expected of a voxel, what was measured, and both uncertainties; of a difference, what it is between. */
  beyond(panel, voxel) {
    if (panel === 2) {
      const [[, a], [, b]] = this.shown;
      return [`A ${short(a[voxel])}, B ${short(b[voxel])}`];
    }
    const response = [this.current, this.pinned][panel];
    const known = ["expected", "measured"].filter((map) => this.has(response, map));
    const lines = [known.map((map) => `${map} ${short(this.values(response, map)[voxel])}`).join(", ")];
    if (!response.maps.sd) return lines;
    const { sd, error } = response.maps;
    if (this.ends) {
      const [low, high] = this.interval(response, voxel);
      lines.push(`${Math.round(100 * this.data.interval.level)} % of new trials: ${short(low)} to ${short(high)}`,
        `trial sd ${short(sd[voxel])}, mean known to ± ${short(error[voxel])} (sd)`);
    } else lines.push(`trial sd ${short(sd[voxel])}`);
    return lines;
  }

  /** Ends of the predictive interval of a voxel: trial noise and what is not known of the mean in one. */
  interval(response, voxel, relative = this.state.relative) {
    const { expected, sd, error } = response.maps;
    const middle = expected[voxel] - (relative ? this.baseline[voxel] : 0);
    return this.ends.map((end) => middle + end[voxel] * Math.hypot(sd[voxel], error[voxel]));
  }

  togglePin() {
    this.pinned = this.pinned ? null : this.current;
    this.pin.textContent = this.pinned ? "Stop comparing" : "Keep as B and compare";
    this.drawBeside();
    this.paint();
  }

  toggleDark() {
    const page = document.documentElement;
    const dark = page.dataset.theme ? page.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    page.dataset.theme = dark ? "light" : "dark";
  }

  // ---- pictures ---------------------------------------------------------------------------------------

  step(by) {
    const n = this.data.images.length;
    if (n) this.openRow((this.state.row + by + n) % n);
  }

  async openRow(row) {
    this.state.row = row;
    this.slider.value = row;
    this.place.textContent = `${row + 1} of ${this.data.images.length}`;
    await this.ask(row, () => (this.data.responses
      ? this.read(this.data.responses[row])
      : this.fetch(`api/test?row=${row}`)));
  }

  async upload(file) {
    if (file.size > MAX_UPLOAD) {
      this.say(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; ${MAX_UPLOAD / 1e6} MB are the most.`);
      return;
    }
    const name = encodeURIComponent(file.name).slice(0, 400);
    await this.ask(null, () => this.fetch("api/predict", {
      method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream", "X-Name": name },
    }));
    if (this.file) this.file.value = "";
  }

  async fetch(where, options) {
    const answer = await fetch(where, options);
    const content = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
    if (!answer.ok) throw new Error(content.error);
    return this.read(content);
  }

  /** Show what `get` gives, unless something newer was asked for in the meantime. */
  async ask(row, get) {
    const ticket = (this.ticket = (this.ticket || 0) + 1);
    this.root.classList.add("sv-busy");
    try {
      const response = (row !== null && this.cache.get(row)) || (await get());
      if (row !== null) this.cache.set(row, response);
      if (this.cache.size > 40) this.cache.delete(this.cache.keys().next().value);
      if (ticket !== this.ticket) return;
      this.say("");
      this.show(response);
      if (row === null && this.place) this.place.textContent = "your own picture"; // no test image is shown
    } catch (error) {
      if (ticket === this.ticket) this.say(error.message === "Failed to fetch" ? "The server does not answer: is `synbrain view` still running?" : error.message);
    } finally {
      if (ticket === this.ticket) this.root.classList.remove("sv-busy");
    }
  }

  stem() {
    return this.current.name.replace(/\.[a-z]+$/i, "").replace(/[^\w-]+/g, "_").slice(0, 60) || "picture";
  }

  saveCsv() {
    const columns = { [this.data.unit_name]: Array.from({ length: this.data.n_voxels }, (_, i) => i) };
    for (const atlas of this.atlases) columns[atlas.name] = Array.from(atlas.voxels, (v) => atlas.labels[v]);
    if (this.ceiling) columns.ceiling_r = this.ceiling;
    const { trials = [], ...maps } = this.current.maps;
    const called = { sd: "trial_sd", error: "mean_error_sd" };
    for (const [name, values] of Object.entries(maps)) if (values) columns[called[name] || name] = values;
    if (this.ends && maps.sd) {
      const percent = Math.round(100 * this.data.interval.level);
      const ends = Array.from(maps.sd, (_, voxel) => this.interval(this.current, voxel, false));
      columns[`lower_${percent}`] = ends.map(([low]) => low);
      columns[`upper_${percent}`] = ends.map(([, high]) => high);
    }
    trials.forEach((values, i) => (columns[`trial_${i + 1}`] = values));
    if (this.baseline) columns.mean_map = this.baseline;
    save(`${this.stem()}.csv`, csv(columns), "text/csv");
  }

  savePng() {
    this.cortex?.render();
    this.canvas.toBlob((blob) => blob && save(`${this.stem()}-${this.state.map}.png`, blob));
  }

  saveGifti() {
    const n = this.cortex.nVertices;
    const name = `${this.current.name} ${MAPS[this.state.map]} (${this.data.unit})`;
    [["L", "CortexLeft", 0], ["R", "CortexRight", n]].forEach(([tag, structure, first]) => {
      const values = Float32Array.from(this.vertices[0].subarray(first, first + n));
      save(`${this.stem()}-${this.state.map}_hemi-${tag}.func.gii`, gifti(values, structure, name), "application/xml");
    });
  }
}

function start() {
  for (const root of document.querySelectorAll("[data-synbrain]")) {
    const data = JSON.parse(document.getElementById(root.dataset.synbrain).textContent);
    root.viewer = new Viewer(root, data);
  }
}
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
