// The page: what is chosen where, and what follows from it.

import { byId, Failure, hideError, make, read, replace, show } from "./dom.js";
import { Browser } from "./browse.js";
import { Choice } from "./choice.js";
import { Images } from "./images.js";
import { Run } from "./run.js";
import { Result } from "./result.js";

let running = null;
const result = new Result();
const images = new Images(() => enable());
const choice = new Choice((model) => images.ask(model?.images ?? []));
const browser = new Browser((imageSet) => {
  const label = imageSet && [imageSet.studyDescription, imageSet.modality].filter(Boolean).join(", ");
  images.choose(imageSet && { datastoreId: browser.datastoreId, imageSetId: imageSet.imageSetId, label });
});

/** Lets a run begin that has all it needs. */
function enable() {
  byId("run").disabled = running !== null || !images.ready() || !choice.ready();
}

async function about() {
  const info = await read("../info");
  const ready = info.models.filter((model) => model.state === "ready");
  byId("server").textContent = `Version ${info.version}, ${ready.length} of ${info.models.length} models ready`;
  choice.offer(info.models);
  enable();
  // Models are loaded while the server already answers.
  if (info.models.some((model) => model.state === "loading") || info.models.length === 0) {
    setTimeout(() => about().catch(show), 1000);
  }
}

async function datastores() {
  const { datastores: stores } = await read("api/datastores");
  const options = stores.map(({ datastoreId, name }) => (
    make("option", { value: datastoreId }, name ? `${name} (${datastoreId})` : datastoreId)
  ));
  replace(byId("datastore"), ...options);
  if (stores.length === 0) {
    byId("browse-status").textContent = "There is no data store that this server may use.";
    return;
  }
  await browser.open(stores[0].datastoreId);
}

async function run() {
  hideError();
  running = new Run({ ...images.request(), ...choice.options() });
  enable();
  byId("cancel").hidden = false;
  try {
    const { id, report } = await running.result();
    await result.show(id, report);
  } catch (error) {
    if (error.name !== "AbortError") show(error);
  } finally {
    running = null;
    byId("cancel").hidden = true;
    enable();
  }
}

byId("choice").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!byId("run").disabled) run();
});
byId("cancel").addEventListener("click", () => running?.cancel());
byId("datastore").addEventListener("change", (event) => browser.open(event.target.value).catch(show));
byId("error-close").addEventListener("click", () => {
  hideError();
  byId("main").focus();
});
window.addEventListener("unhandledrejection", (event) => {
  show(event.reason instanceof Failure ? event.reason : new Error(String(event.reason?.message ?? event.reason)));
});

enable();
about().catch(show);
datastores().catch(show);
