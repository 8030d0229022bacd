// Reads an answer to its end: over cut connections, gateways that die, and reloads of the page.

import { forget, renew, take, takeWhole } from "./answer.js";
import { Cut, Failure, failureOf } from "./failures.js";
import { eventsOf } from "./sse.js";

const URL = "v1/chat/completions";
const SILENCE = 60_000; // ms; the gateway says something every 15 s
const FIRST_PAUSE = 500; // ms; doubled each time
const LONGEST_PAUSE = 15_000; // ms
const REFUSALS = 3;

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
    answer.loose = "";
    try {
      if (answer.whole) await readWhole(answer, headers(), signal);
      else await readOn(answer, body, headers(), changed, signal);
      return "ended";
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (!(error instanceof Failure)) throw error;
      if (error.status === 401) return "key";
      if (error.code === "withdrawn" && answer.id !== null && !answer.whole) {
        // No stream takes back what it has shown; read by its id the answer is what holds.
        forget(answer);
        answer.whole = true;
        changed();
        continue;
      }
      answer.loose = "";
      // The queue's refusal has ended the job: another one may find room. A key's own limits
      // (rate_limit_exceeded) refuse a request, and pass.
      const full = error.code === "overloaded" && answer.at === null && ++refusals <= REFUSALS;
      if (full) {
        renew(answer);
        changed();
      } else if (!error.passing) {
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

/** Asks for an answer, or goes on behind the last event, and reads its stream. */
async function readOn(answer, body, headers, changed, signal) {
  const asking = {
    ...headers,
    accept: "text/event-stream",
    "content-type": "application/json",
    "idempotency-key": answer.key,
  };
  if (answer.at !== null) asking["last-event-id"] = answer.at;
  await over(signal, async (cut, heard) => {
    const request = { method: "POST", headers: asking, body: JSON.stringify(body), signal: cut };
    const response = await asked(URL, request);
    for await (const event of eventsOf(response.body, heard)) {
      take(answer, event);
      changed();
      if (answer.state === "done") return;
    }
    throw new Cut("The connection ended in the middle of the answer.");
  });
}

async function readWhole(answer, headers, signal) {
  await over(signal, async (cut) => {
    const response = await asked(pathOf(answer.id), { headers, signal: cut });
    takeWhole(answer, await response.text());
  });
}

/** Asks the service to end an answer. Throws `Failure`. */
export async function cancel(answer, headers) {
  // Before its first event it has no id. To end a job its own id is enough, wherever it is answered.
  const path = pathOf(answer.id ?? `chatcmpl-0.0.${answer.key}`);
  await over(new AbortController().signal, (cut) =>
    asked(`${path}/cancel`, { method: "POST", headers, signal: cut }),
  );
}

function pathOf(id) {
  return `${URL}/${encodeURIComponent(id)}`;
}

async function asked(path, request) {
  const response = await fetch(path, { cache: "no-store", ...request });
  if (!response.ok) throw await failureOf(response);
  return response;
}

/** Does something over a connection that is given up once nothing is heard. Throws `Failure`. */
async function over(signal, work) {
  const cut = new AbortController();
  const stop = () => cut.abort();
  let silence;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(stop, SILENCE);
  };
  signal.addEventListener("abort", stop, { once: true });
  try {
    heard();
    return await work(cut.signal, heard);
  } catch (error) {
    if (error instanceof Failure) throw error;
    if (error instanceof SyntaxError) throw new Failure({ message: "What came is no answer." });
    throw new Cut("There is no connection to the gateway."); // TypeError, or the silence's abort
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", stop);
  }
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
