// One run, from its request to its report, with what happens in between.

import { byId, Failure, make, replace } from "./dom.js";

const STAGES = {
  metadata: "Headers",
  memory: "Memory",
  frames: "Frames",
  preprocess: "Preprocessing",
  inference: "Network",
  postprocess: "Postprocessing",
  write: "Outputs",
  store: "Storing",
};

export class Run {
  constructor(request) {
    this.request = request;
    this.abort = new AbortController();
    this.rows = new Map();
    replace(byId("stages"));
    byId("progress").hidden = false;
    this.say("Sending the request…");
  }

  cancel() {
    this.abort.abort();
    this.say("Cancelled.");
  }

  say(text) {
    byId("progress-state").textContent = text;
  }

  /** The name of the result and the report; a Failure where there is none. */
  async result() {
    try {
      return await this.follow();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.say("Failed.");
      if (error instanceof Failure) throw error;
      throw new Failure({ code: "interrupted", message: "The connection to the server broke off." });
    }
  }

  async follow() {
    const response = await fetch("api/runs", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/jsonlines" },
      body: JSON.stringify(this.request),
      signal: this.abort.signal,
    });
    if (!response.ok) throw await Failure.of(response);
    for await (const event of lines(response.body)) {
      if (event.event === "result") {
        this.say("Finished.");
        return { id: response.headers.get("X-Result-Id"), report: event.report };
      }
      if (event.event === "error") throw new Failure(event.error, event.requestId, event.status);
      this.note(event);
    }
    throw new Failure({ code: "interrupted", message: "The answer ended before the result." });
  }

  note(event) {
    switch (event.event) {
      case "accepted":
        this.say("Accepted.");
        break;
      case "queued":
        this.say(`Waiting for its turn, number ${event.place} in the queue.`);
        break;
      case "started":
        this.say("Running.");
        break;
      case "progress":
        this.advance(event);
        break;
    }
  }

  advance({ stage, share, done, total }) {
    const name = STAGES[stage] ?? stage;
    if (!this.rows.has(stage)) {
      const bar = make("progress", { max: 1, value: 0, "aria-label": name });
      const count = make("span", { className: "number" });
      byId("stages").append(make("li", {}, make("span", {}, name), bar, count));
      this.rows.set(stage, { bar, count });
    }
    const { bar, count } = this.rows.get(stage);
    bar.value = share;
    count.textContent = `${Math.round(share * 100)} %`;
    bar.title = `${done} of ${total}`;
  }
}

/** The objects of a body of JSON Lines. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const [first, ...rest] = value.split("\n");
    parts.push(first);
    for (const part of rest) {
      const line = parts.join("");
      parts = [part];
      if (line) yield JSON.parse(line);
    }
  }
}
