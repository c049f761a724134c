// The image sets of a data store, to choose one of.

import { byId, make, number, read, replace, show } from "./dom.js";

/** Rows that are drawn at once; the filter finds the others. */
const MOST_ROWS = 500;

export class Browser {
  constructor(onChoice) {
    this.onChoice = onChoice;
    this.datastoreId = null;
    this.chosen = null;
    this.sets = [];
    this.next = null;
    this.body = byId("image-sets").tBodies[0];
    byId("filter").addEventListener("input", () => this.draw());
    byId("more").addEventListener("click", () => this.more().catch(show));
  }

  /** Shows the image sets of another data store. */
  async open(datastoreId) {
    this.datastoreId = datastoreId;
    this.sets = [];
    this.next = null;
    this.choose(null);
    this.draw();
    await this.more();
  }

  async more() {
    const of = this.datastoreId;
    const query = this.next ? `?next=${encodeURIComponent(this.next)}` : "";
    byId("browse-status").textContent = "Loading…";
    byId("more").disabled = true;
    try {
      const page = await read(`api/datastores/${encodeURIComponent(of)}/image-sets${query}`);
      // Another data store may have been opened meanwhile.
      if (of !== this.datastoreId) return;
      this.sets.push(...page.imageSets);
      this.next = page.next ?? null;
    } finally {
      byId("more").disabled = false;
      if (of === this.datastoreId) this.draw();
    }
  }

  choose(imageSet) {
    this.chosen = imageSet;
    for (const row of this.body.rows) row.classList.toggle("chosen", row.dataset.id === imageSet?.imageSetId);
    this.onChoice(imageSet);
  }

  draw() {
    const wanted = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.sets.filter((set) => {
      const text = Object.values(set).join(" ").toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    replace(this.body, ...found.slice(0, MOST_ROWS).map((set) => this.row(set)));
    byId("more").hidden = this.next === null;
    const shown = Math.min(found.length, MOST_ROWS);
    const more = this.next === null ? "" : ", there are more";
    byId("browse-status").textContent = `${shown} of ${this.sets.length} image sets${more}`;
  }

  row(set) {
    const said = [set.studyDescription, set.modality, set.bodyPart, date(set.studyDate)].filter(Boolean).join(", ");
    const radio = make("input", {
      type: "radio", name: "image-set", value: set.imageSetId, checked: this.chosen === set,
      "aria-label": `${said || "no description"}, image set ${set.imageSetId}`,
    });
    radio.addEventListener("change", () => this.choose(set));
    const cell = (text, className = "") => make("td", { className }, text ?? "–");
    const study = make("td", {}, set.studyDescription ?? "–");
    if (set.isPrimary === false) study.append(make("span", { className: "quiet" }, " (not primary)"));
    const row = make(
      "tr", { className: this.chosen === set ? "chosen" : "" },
      make("td", {}, radio), study, cell(date(set.studyDate), "date"), cell(set.modality), cell(set.bodyPart),
      cell(set.seriesNumber === null ? null : String(set.seriesNumber), "number"),
      cell(number(set.studyInstances), "number"),
      make("td", { className: "ids" }, set.seriesInstanceUid ?? "", make("br"), set.imageSetId),
    );
    row.dataset.id = set.imageSetId;
    row.addEventListener("click", () => radio.checked || radio.click());
    return row;
  }
}

/** A date of DICOM as ISO 8601 has it. */
function date(text) {
  return text?.replace(/^(\d{4})(\d{2})(\d{2})$/, "$1-$2-$3");
}
