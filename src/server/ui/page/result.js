// A result: the image with its segments, the table of what was measured, the outputs.

import { byId, bytes, Failure, make, number, replace } from "./dom.js";
import { Viewer, VIEWS } from "./viewer.js";

/** Level and width in Hounsfield units. */
const WINDOWS = {
  Abdomen: [40, 400],
  Lung: [-600, 1500],
  Bone: [400, 1800],
  Brain: [40, 80],
  Liver: [60, 160],
};

const AXES = ["Left – right", "Back – front", "Foot – head"];

/** What lies below and above zero on each axis. */
const SIDES = [["left", "right"], ["back", "front"], ["down", "up"]];

const KINDS = {
  nifti: "Label map (NIfTI)",
  "nifti-image": "Image (NIfTI)",
  "dicom-seg": "DICOM SEG",
  "dicom-seg-labelmap": "DICOM SEG, label map",
  "dicom-sr": "DICOM SR",
  rtstruct: "DICOM RTSTRUCT",
  "secondary-capture": "DICOM Secondary Capture",
  preview: "Preview (PNG)",
  stl: "Mesh (STL)",
  glb: "Mesh (GLB)",
};

export class Result {
  constructor() {
    this.viewer = new Viewer(byId("canvas"), (place) => this.moved(place));
    this.id = null;
    this.one = null;
    this.controls();
  }

  /** Shows the report of a run whose outputs are the result `id`. */
  async show(id, report) {
    this.id = id;
    byId("report").textContent = JSON.stringify(report, null, 2);
    const failed = report.results.find((one) => one.error);
    if (failed) throw new Failure(failed.error, report.requestId);
    const options = report.results.map((one, index) => (
      make("option", { value: index }, one.volume?.name ?? `Volume ${index + 1}`)
    ));
    replace(byId("which"), ...options);
    byId("which-field").hidden = report.results.length < 2;
    byId("which").onchange = () => this.open(report.results[byId("which").value], report.model);
    byId("result").hidden = false;
    await this.open(report.results[0], report.model);
    byId("result-title").focus({ preventScroll: true });
    byId("result").scrollIntoView({ block: "start" });
  }

  async open(one, model) {
    this.one = one;
    byId("canvas").dataset.ready = "false";
    const seconds = one.timings?.total;
    const took = seconds === undefined ? "" : `, ${number(seconds)} s`;
    byId("result-about").textContent = `${model} on ${one.executionProvider}${took}. Series ${one.seriesInstanceUID ?? "–"}`;
    replace(byId("warnings"), ...(one.warnings ?? []).map((warning) => make("li", {}, warning)));
    this.files();
    this.table();
    this.windows();
    const url = (kind) => this.url(one.outputs.find((output) => output.kind === kind));
    const overlay = one.segments.map((segment) => ({ place: segment.in.nifti, color: segment.color }));
    byId("place").textContent = "Loading the image…";
    await this.viewer.load(url("nifti-image"), url("nifti"), overlay);
    this.setView("multi");
    this.setWindow();
    this.toggle();
    this.viewer.setOpacity(byId("opacity").value / 100);
    this.viewer.tell();
    byId("canvas").dataset.ready = "true";
  }

  url(output) {
    return `api/results/${this.id}/${encodeURIComponent(output.fileName)}`;
  }

  files() {
    const links = this.one.outputs.map((output) => make(
      "li", {},
      make("a", { href: this.url(output), download: output.fileName }, KINDS[output.kind] ?? output.kind),
      make("span", { className: "quiet" }, `${bytes(output.bytes)}`),
    ));
    replace(byId("files"), ...links);
  }

  table() {
    const units = this.one.units ? ` (${this.one.units})` : "";
    const columns = ["Volume (mL)", `Mean${units}`, "SD", "Min", "Median", "Max", "Parts"];
    const head = columns.map((name) => make("th", { scope: "col", className: "number" }, name));
    replace(byId("volumes").tHead, make("tr", {}, make("th", { scope: "col" }, "Segment"), ...head));
    const rows = this.one.segments.map((segment, index) => {
      const swatch = make("span", { className: "swatch", "aria-hidden": "true" });
      swatch.style.backgroundColor = segment.color;
      const box = make("input", { type: "checkbox", name: "shown", value: index, checked: true });
      box.addEventListener("change", () => this.toggle());
      const label = make("label", { className: "check" }, box, swatch, segment.label);
      const values = segment.statistics ?? {};
      const cells = [
        segment.millilitres, values.mean, values.standardDeviation, values.minimum, values.median, values.maximum,
        segment.components?.count ?? 0,
      ];
      return make(
        "tr", {}, make("th", { scope: "row" }, label),
        ...cells.map((value) => make("td", { className: "number" }, number(value))),
      );
    });
    replace(byId("volumes").tBodies[0], ...rows);
  }

  boxes() {
    return [...document.querySelectorAll("input[name=shown]")];
  }

  toggle() {
    this.viewer.setShown(this.boxes().map((box) => box.checked));
  }

  /** The windows that suit the image's units. */
  windows() {
    const names = ["Automatic", ...(this.one.units === "HU" ? Object.keys(WINDOWS) : []), "Custom"];
    replace(byId("window"), ...names.map((name) => make("option", { value: name }, name)));
    byId("window").value = names[this.one.units === "HU" ? 1 : 0];
  }

  /** Sets the window that is chosen. */
  setWindow() {
    const name = byId("window").value;
    if (name === "Custom") {
      const [level, width] = [byId("level").valueAsNumber, byId("width").valueAsNumber];
      if (Number.isFinite(level) && width > 0) this.viewer.setWindow(level, width);
      return;
    }
    const [level, width] = WINDOWS[name] ?? this.viewer.usualWindow();
    byId("level").value = +level.toFixed(2);
    byId("width").value = +width.toFixed(2);
    this.viewer.setWindow(level, width);
  }

  setView(view) {
    document.querySelector(`input[name=view][value=${view}]`).checked = true;
    this.viewer.setView(view);
    byId("image-field").hidden = view !== "render";
    byId("slices").hidden = view === "render";
    byId("canvas").setAttribute("aria-label", `Image with segments, ${VIEWS[view].label}`);
  }

  /** Tells where the crosshair is. */
  moved({ fractions, millimetres, value, segment }) {
    const at = millimetres.map((mm, axis) => `${number(Math.abs(mm))} mm ${SIDES[axis][mm < 0 ? 0 : 1]}`);
    const found = this.one.segments[segment]?.label;
    const parts = [at.join(", "), `${number(value)} ${this.one.units ?? ""}`.trim(), found];
    byId("place").textContent = parts.filter(Boolean).join("; ");
    AXES.forEach((_, axis) => {
      const slider = byId(`slice-${axis}`);
      if (document.activeElement !== slider) slider.value = Math.round(fractions[axis] * 1000);
    });
  }

  controls() {
    const views = Object.entries(VIEWS).map(([value, { label }]) => {
      const radio = make("input", { type: "radio", name: "view", value });
      radio.addEventListener("change", () => this.setView(value));
      return make("label", {}, radio, label);
    });
    replace(byId("views"), ...views);
    const sliders = AXES.map((label, axis) => {
      const slider = make("input", { type: "range", id: `slice-${axis}`, min: 0, max: 1000, value: 500 });
      slider.addEventListener("input", () => this.viewer.moveTo(axis, slider.value / 1000));
      return make("label", { className: "field" }, label, slider);
    });
    replace(byId("slices"), ...sliders);
    byId("window").addEventListener("change", () => this.setWindow());
    for (const id of ["level", "width"]) {
      byId(id).addEventListener("input", () => {
        byId("window").value = "Custom";
        this.setWindow();
      });
    }
    byId("opacity").addEventListener("input", (event) => this.viewer.setOpacity(event.target.value / 100));
    byId("image").addEventListener("change", (event) => this.viewer.setImageIn3d(event.target.checked));
    for (const [id, shown] of [["all", true], ["none", false]]) {
      byId(id).addEventListener("click", () => {
        this.boxes().forEach((box) => { box.checked = shown; });
        this.toggle();
      });
    }
  }
}
