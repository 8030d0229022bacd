// One answer, read to its end: over cut connections, gateways that die, and reloads of the page.
//
// An answer is a plain object, so that it can be kept as JSON. What makes it exact:
//
// * `key` is the job's id. To ask again with it is to ask for the same answer, not for another one.
// * `text` and `at` belong together: `at` is the id of the last event whose text is in `text`.
//   Whoever goes on from `at` gets exactly what follows `text`.
// * Text that came with no new id is `loose`: shown, but read again after a cut.

import { Cut, Failure, failureOf } from "./failures.js";
import { eventsOf } from "./sse.js";

const SILENCE = 60_000; // ms; the gateway says something every 15 s
const FIRST_PAUSE = 500; // ms; doubled each time
const LONGEST_PAUSE = 15_000; // ms
const REFUSALS = 3;

/** Returns an answer that nobody was asked for yet. */
export function newAnswer(model, options) {
  return {
    key: newKey(),
    model,
    options,
    state: "running", // then: done, stopped, failed
    id: null,
    at: null,
    text: "",
    loose: "",
    tenant: "",
    told: null, // what the service says of it
    usage: null,
    finish: null,
    error: null,
    asked: Date.now(), // ms since 1970, as all times here: they are to outlive the page
    first: null,
    last: null,
  };
}

/** Returns the visible tokens and resets that an event's id tells of. */
export function placeOf(id) {
  const found = /^\d+\.\d+\.(\d+)\.(\d+)\./.exec(id ?? "");
  return { tokens: Number(found?.[1] ?? 0), resets: Number(found?.[2] ?? 0) };
}

/** Takes the next event into an answer. Throws `Failure` where the event is one. */
export function take(answer, { id, data }, now = Date.now()) {
  if (data === "[DONE]") {
    settle(answer);
    answer.state = "done";
    return;
  }
  const chunk = JSON.parse(data);
  if (typeof chunk !== "object" || chunk === null) throw new SyntaxError("no object");
  if (chunk.error?.code === "withdrawn") throw withdrawn(answer, id, chunk.error);
  if (chunk.error) throw new Failure(chunk.error);
  answer.id = chunk.id ?? answer.id;
  answer.usage = chunk.usage ?? answer.usage;
  const choice = chunk.choices?.[0];
  const piece = choice?.delta?.content ?? "";
  if (piece) {
    answer.first ??= now;
    answer.last = now;
  }
  answer.loose += piece;
  answer.finish = choice?.finish_reason ?? answer.finish;
  // A seed may have more digits than a number here.
  if (choice?.aril) answer.told = { ...choice.aril, seed: /"seed":(\d+)/.exec(data)?.[1] };
  if (id !== undefined && id !== answer.at) {
    if (placeOf(id).resets > placeOf(answer.at).resets) answer.text = ""; // the service withdrew it
    answer.at = id;
    settle(answer);
  }
}

/** Takes back what was shown; what holds in its place is read from `id` on, if there is one. */
function withdrawn(answer, id, error) {
  Object.assign(answer, { text: "", loose: "" });
  if (id === undefined || id === answer.at) return new Failure(error);
  answer.at = id;
  return new Cut("The service took back what it had said.");
}

function settle(answer) {
  answer.text += answer.loose;
  answer.loose = "";
}

/**
 * Reads an answer until it has ended, however often that has to begin again.
 *
 * `body` is the request's, the same each time; `headers()` says who asks; `changed()` is called
 * after each event, `waiting(failure, ms)` before each pause. Returns "ended", or "key" where the
 * caller is not known: then ask for a key and read on. Throws what `signal` was aborted with.
 */
export async function read(answer, { body, headers, changed, waiting, signal }) {
  let pause = FIRST_PAUSE;
  let refusals = 0;
  for (;;) {
    const before = answer.at;
    try {
      await readOnce(answer, { body, headers, changed, signal });
      return "ended";
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (!(error instanceof Failure)) throw error;
      if (error.status === 401) return "key";
      answer.loose = "";
      // A key's limits refuse a request, a queue's end the job: of one that has begun it is the
      // first, else it is asked again to see.
      const refused = error.code === "overloaded" && (before !== null || ++refusals <= REFUSALS);
      if (!error.passing && !refused) {
        answer.state = error.code === "cancelled" ? "stopped" : "failed";
        answer.error = error.error;
        return "ended";
      }
      if (answer.at !== before) pause = FIRST_PAUSE; // it does go on
      const wait = Math.max(error.wait, pause * (0.5 + Math.random() / 2));
      pause = Math.min(pause * 2, LONGEST_PAUSE);
      waiting(error, wait);
      await sleep(wait, signal);
    }
  }
}

async function readOnce(answer, { body, headers, changed, signal }) {
  answer.loose = "";
  const cut = new AbortController();
  const stop = () => cut.abort();
  signal.addEventListener("abort", stop, { once: true });
  let silence;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(stop, SILENCE);
  };
  const asking = {
    ...headers(),
    accept: "text/event-stream",
    "content-type": "application/json",
    "idempotency-key": answer.key,
  };
  if (answer.at !== null) asking["last-event-id"] = answer.at;
  try {
    heard();
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: asking,
      body: JSON.stringify(body),
      cache: "no-store",
      signal: cut.signal,
    });
    if (!response.ok) throw await failureOf(response);
    for await (const event of eventsOf(response.body, heard)) {
      take(answer, event);
      changed();
      if (answer.state === "done") return;
    }
    throw new Cut("The connection ended in the middle of the answer.");
  } catch (error) {
    if (error instanceof Failure) throw error;
    if (error instanceof SyntaxError) throw new Failure({ message: "What came is no answer." });
    throw new Cut("There is no connection to the gateway."); // TypeError, or the silence's abort
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", stop);
  }
}

/** Asks the service to end an answer. Throws `Failure`. */
export async function cancel(answer, headers) {
  // Before its first event it has no id. To end a job its own id is enough, wherever it is answered.
  const id = answer.id ?? `chatcmpl-0.0.${answer.key}`;
  let response;
  try {
    const path = `v1/chat/completions/${encodeURIComponent(id)}/cancel`;
    response = await fetch(path, { method: "POST", headers, cache: "no-store" });
  } catch {
    throw new Cut("There is no connection to the gateway.");
  }
  if (!response.ok) throw await failureOf(response);
}

/** Waits; a network that has come back ends it early. */
function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(end, ms);
    function end() {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    }
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

function newKey() {
  // randomUUID is there on https and localhost only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
