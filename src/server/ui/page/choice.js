// What to run: a model, its segments, and the outputs.

import { byId, check, make, replace } from "./dom.js";

/** What the page itself needs to show a result. */
const VIEWED = ["nifti", "nifti-image"];

const OUTPUTS = [
  ["dicom-seg", "DICOM SEG"],
  ["dicom-seg-labelmap", "DICOM SEG, label map"],
  ["dicom-sr", "DICOM SR"],
  ["rtstruct", "DICOM RTSTRUCT"],
  ["secondary-capture", "DICOM Secondary Capture"],
  ["preview", "Preview (PNG)"],
  ["stl", "Mesh (STL)"],
  ["glb", "Mesh (GLB)"],
];

export class Choice {
  /** `onModel` is called with the model whenever it is another one, or has become ready. */
  constructor(onModel) {
    this.onModel = onModel;
    this.models = [];
    byId("model").addEventListener("change", () => this.describe());
    replace(byId("outputs"), ...OUTPUTS.map(([kind, label]) => check("output", kind, label, false)));
  }

  /** Offers models, as the server describes them. */
  offer(models) {
    const before = byId("model").value;
    this.models = models;
    const options = models.map(({ name, title, state }) => make(
      "option", { value: name, disabled: state !== "ready" },
      title && title !== name ? `${title} (${name})` : name, state === "ready" ? "" : `, ${state}`,
    ));
    replace(byId("model"), ...options);
    const usual = models.find((model) => model.state === "ready");
    byId("model").value = models.some((model) => model.name === before) ? before : usual?.name ?? "";
    if (byId("model").value !== before || !this.described) this.describe();
  }

  get model() {
    return this.models.find(({ name }) => name === byId("model").value);
  }

  ready() {
    return this.model?.state === "ready";
  }

  describe() {
    const model = this.model;
    this.described = this.ready();
    byId("model-about").textContent = model?.version ? `Version ${model.version}, runs on ${model.executionProvider ?? "?"}` : "";
    const segments = model?.segments ?? [];
    replace(byId("segments"), ...segments.map((label) => check("segment", label, label, true)));
    for (const box of byId("outputs").querySelectorAll("input")) {
      box.checked = model?.outputs?.includes(box.value) ?? false;
    }
    this.onModel(model);
  }

  /** The options of a request. */
  options() {
    const chosen = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);
    const segments = chosen("segment");
    const options = { model: this.model.name, outputs: [...chosen("output"), ...VIEWED] };
    // None chosen is as good as all: there is no result without a segment.
    if (segments.length > 0 && segments.length < this.model.segments.length) options.segments = segments;
    return options;
  }
}
