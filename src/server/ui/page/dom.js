// Elements, and what is said in them. Whatever comes from outside becomes text, never markup.

export const byId = (id) => document.getElementById(id);

/** Makes an element with properties and children; strings are text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function replace(parent, ...children) {
  parent.replaceChildren(...children);
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const number = (value) => (Number.isFinite(value) ? plain.format(value) : "–");

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${plain.format(count)} ${units[unit]}`;
}

/** A box with its label. */
export function check(name, value, label, checked, ...before) {
  const box = make("input", { type: "checkbox", name, value, checked });
  return make("label", { className: "check" }, box, ...before, label);
}

/** A failure as the server tells it, or as the browser does. */
export class Failure extends Error {
  constructor({ code, message, details }, requestId, status) {
    super(message);
    this.code = code;
    this.details = details ?? {};
    this.requestId = requestId;
    this.status = status;
  }

  /** The failure that an answer is. */
  static async of(response) {
    try {
      const { error, requestId } = await response.json();
      return new Failure(error, requestId, response.status);
    } catch {
      const message = `The server answered ${response.status} without saying why.`;
      return new Failure({ code: "unknown", message }, null, response.status);
    }
  }
}

/** Reads JSON from this server. */
export async function read(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Failure({ code: "unreachable", message: "The server cannot be reached." });
  }
  if (!response.ok) throw await Failure.of(response);
  return response.json();
}

// What a person can do about each code; those that are not here say it in their message.
const ADVICE = {
  unreachable: "See whether the server still runs, then try again.",
  interrupted: "See whether the server still runs, then run it again.",
  access_denied: "The server's settings or its role do not allow this. Its operator can.",
  not_found: "Reload the list: it may have been deleted meanwhile.",
  model_not_found: "Choose another model.",
  image_set_not_ready: "Wait until the image set is active, or choose another one.",
  payload_too_large: "The image is too large for the memory of this server; its operator can give it more.",
  invalid_image: "This image cannot be segmented as it is. Choose another image set of the study.",
  corrupt_frame: "A frame of the image is damaged or missing in the data store. Import the image set again.",
  unsupported_pixel_data: "Pixels of this kind cannot be read. Choose another image set.",
  invalid_model: "The model package is faulty; `ahi-inference bundle check` says why.",
  inference_failed: "The network failed on this server; its log says more.",
  upstream: "HealthImaging did not answer as it should. Try again in a while.",
  throttled: "HealthImaging is asked too often. Try again in a while.",
  credentials: "The server's credentials for AWS are missing or have expired.",
  overloaded: "Others are using the server. Try again in a while.",
  unavailable: "The server is starting or stopping. Try again in a while.",
  deadline_exceeded: "Ask for fewer outputs, or have the server's operator set STREAM_TIMEOUT higher.",
  out_of_memory: "Try again once other requests have finished.",
  internal: "The server's log says more, under this request's identifier.",
};

/** Shows a failure at the top of the page. */
export function show(error) {
  const failure = error instanceof Failure
    ? error
    : new Failure({ code: "page", message: `The page failed: ${error?.message ?? error}` });
  byId("error-message").textContent = failure.message;
  // A frame that is not there is no image set that is not there.
  const lost = failure.code === "not_found" && failure.details.imageFrameId;
  const advice = ADVICE[lost ? "corrupt_frame" : failure.code];
  byId("error-advice").textContent = advice ?? "";
  byId("error-advice").hidden = !advice;
  const rows = [["Code", failure.code], ["HTTP status", failure.status], ["Request", failure.requestId]];
  for (const [name, value] of Object.entries(failure.details)) {
    rows.push([name, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  }
  const shown = rows.filter(([, value]) => value !== undefined && value !== null);
  const parts = shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]);
  replace(byId("error-details"), ...parts);
  byId("error").hidden = false;
  byId("error").scrollIntoView({ block: "nearest" });
}

export function hideError() {
  byId("error").hidden = true;
}
