// The images of a run: the chosen image set, or for a model of several images one for each of their names.

import { byId, make, replace } from "./dom.js";

export class Images {
  /** `onChange` is called when the run has all its images, or no longer has them. */
  constructor(onChange) {
    this.onChange = onChange;
    this.names = [];
    this.chosen = null;
    this.assigned = new Map();
  }

  /** Asks for the images that a model takes. Image sets stay assigned to names that both models have. */
  ask(names) {
    const several = names.length > 1 ? names : [];
    if (several.join("\n") !== this.names.join("\n")) {
      this.names = several;
      this.assigned = new Map([...this.assigned].filter(([name]) => several.includes(name)));
    }
    this.draw();
  }

  /** The image set that is chosen in the list; null if none is. */
  choose(place) {
    this.chosen = place;
    this.draw();
  }

  ready() {
    if (this.names.length === 0) return this.chosen !== null;
    return this.names.every((name) => this.assigned.has(name));
  }

  /** The part of the request that names them. */
  request() {
    const place = ({ datastoreId, imageSetId }) => ({ datastoreId, imageSetId });
    if (this.names.length === 0) return place(this.chosen);
    return { images: Object.fromEntries(this.names.map((name) => [name, place(this.assigned.get(name))])) };
  }

  draw() {
    const several = this.names.length > 0;
    byId("images-field").hidden = !several;
    replace(byId("images"), ...this.names.map((name) => this.row(name)));
    const missing = this.names.filter((name) => !this.assigned.has(name));
    let text = this.chosen ? `Image set ${this.chosen.imageSetId}` : "No image set is chosen.";
    if (several) text = missing.length > 0 ? `To be assigned: ${missing.join(", ")}.` : "All images are assigned.";
    byId("chosen").textContent = text;
    this.onChange();
  }

  row(name) {
    const place = this.assigned.get(name);
    const button = make("button", {
      type: "button", disabled: this.chosen === null, "aria-label": `Use the chosen image set as ${name}`,
    }, "Use the chosen one");
    button.addEventListener("click", () => {
      this.assigned.set(name, this.chosen);
      this.draw();
      byId("images").querySelector(`button[data-name="${CSS.escape(name)}"]`)?.focus();
    });
    button.dataset.name = name;
    const about = place ? [place.label, place.imageSetId].filter(Boolean).join(", ") : "not assigned";
    return make("li", {}, make("span", {}, name), make("span", { className: "quiet" }, about), button);
  }
}
