// One answer, as far as it has come.
//
// It is a plain object, so that it can be kept as JSON. What makes it exact:
//
// * `key` is the job's id. To ask again with it is to ask for the same answer, not for another one.
// * `text` and `at` belong together: `at` is the id of the last event whose text is in `text`.
//   Whoever goes on from `at` gets exactly what follows `text`.
// * Text that came with no new id is `loose`: shown, but read again after a cut.

import { Failure } from "./failures.js";

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
    whole: false, // whether its stream cannot be gone on with, so that it is read in one piece
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

/** Takes the next event of an answer's stream. Throws `Failure` where the event is one. */
export function take(answer, { id, data }) {
  if (data === "[DONE]") {
    settle(answer);
    answer.state = "done";
    return;
  }
  const chunk = objectOf(data);
  if (chunk.error) throw new Failure(chunk.error);
  answer.id = chunk.id ?? answer.id;
  const choice = chunk.choices?.[0];
  add(answer, choice?.delta?.content ?? "");
  takeFacts(answer, chunk, data);
  if (id !== undefined && id !== answer.at) {
    answer.at = id;
    settle(answer);
  }
}

/** Takes an answer in one piece, in place of all that has come. */
export function takeWhole(answer, data) {
  const response = objectOf(data);
  forget(answer);
  add(answer, response.choices[0].message.content);
  takeFacts(answer, response, data);
  settle(answer);
  answer.state = "done";
}

/** Takes back all that has come. */
export function forget(answer) {
  Object.assign(answer, { text: "", loose: "" });
}

/** Makes it the answer to another job, where nothing came of the first. */
export function renew(answer) {
  Object.assign(answer, { key: newKey(), id: null });
}

/** Returns the tokens that an event's id tells of. */
export function tokensAt(id) {
  return Number(/^\d+\.\d+\.(\d+)\./.exec(id ?? "")?.[1] ?? 0);
}

function objectOf(data) {
  const value = JSON.parse(data);
  if (typeof value !== "object" || value === null) throw new SyntaxError("no object");
  return value;
}

function add(answer, piece) {
  if (!piece) return;
  answer.last = Date.now();
  answer.first ??= answer.last;
  answer.loose += piece;
}

function takeFacts(answer, { choices, usage }, data) {
  answer.usage = usage ?? answer.usage;
  answer.finish = choices?.[0]?.finish_reason ?? answer.finish;
  const told = choices?.[0]?.aril;
  // A seed may have more digits than a number here.
  if (told) answer.told = { ...told, seed: /"seed": ?(\d+)/.exec(data)?.[1] };
}

function settle(answer) {
  answer.text += answer.loose;
  answer.loose = "";
}

function newKey() {
  // randomUUID is there on https and localhost only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
