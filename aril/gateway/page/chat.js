// The page: who asks, what is asked, and the one answer that is being read.

import { newAnswer } from "./answer.js";
import { Failure, failureOf, wordsOf } from "./failures.js";
import { Kept, keepKey, keptKey, newChat } from "./kept.js";
import { cancel, read } from "./reading.js";
import { TurnView, scrollToEnd, tokensOf } from "./turn.js";

const RETRY = 3_000; // ms, for the gateway to be there when the page is opened
const PATIENCE = 10_000; // ms, for a stopped answer to end by itself
const BACKBONE = "aril";

const at = (id) => document.getElementById(id);
const kept = new Kept(() => notice("This conversation is too long to outlive a reload."));
const views = new Map();
let who = null; // {tenant, name, keyless}
let current = null; // {turn, abort}: the answer that is being read

// --- who asks

function headers() {
  const key = keptKey();
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function connect() {
  let response;
  try {
    response = await fetch("page/caller", { headers: headers(), cache: "no-store" });
    if (!response.ok) throw await failureOf(response);
    who = await response.json();
  } catch (error) {
    if (error instanceof Failure && error.status === 401) return askForKey(keptKey() ? error : null);
    notice(`${error instanceof Failure ? wordsOf(error.error) : "The gateway cannot be reached."} Trying again.`);
    setTimeout(connect, RETRY);
    return;
  }
  notice("");
  at("key").hidden = true;
  at("forget").hidden = who.keyless;
  at("who").textContent = who.tenant;
  // What one tenant was told is not sent on in the name of another.
  if (kept.chat.tenant && kept.chat.tenant !== who.tenant) clear();
  proceed();
  await listModels();
}

function askForKey(failure) {
  who = null;
  at("who").textContent = "";
  at("key").hidden = false;
  at("forget").hidden = true;
  at("key-error").textContent = failure ? wordsOf(failure.error) : "";
  at("secret").focus();
}

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("secret").value.trim());
  at("secret").value = "";
  connect();
});

at("forget").addEventListener("click", () => {
  clear();
  keepKey("");
  askForKey(null);
});

// --- what can be asked

async function listModels() {
  let names = [BACKBONE]; // which is there in any case
  try {
    const response = await fetch("v1/models", { headers: headers(), cache: "no-store" });
    if (!response.ok) throw await failureOf(response);
    names = (await response.json()).data.map((model) => String(model.id));
  } catch (error) {
    if (!(error instanceof Failure) || error.passing || error.wait) setTimeout(listModels, RETRY);
  }
  const chosen = at("model").value || kept.chat.model;
  const options = names.map((name) => {
    const option = document.createElement("option");
    option.value = option.textContent = name;
    return option;
  });
  at("model").replaceChildren(...options);
  if (names.includes(chosen)) at("model").value = chosen;
  at("model").disabled = false;
}

/** Returns the request's body for a turn: the same whenever it is asked for. */
function bodyOf(turn) {
  const { model, options } = turn.answer;
  const messages = [];
  if (options.system) messages.push({ role: "system", content: options.system });
  for (const each of kept.chat.turns) {
    if (each !== turn && !each.answer.text) continue; // nothing came of it
    messages.push({ role: "user", content: each.question });
    if (each === turn) break;
    messages.push({ role: "assistant", content: each.answer.text });
  }
  const body = { model, messages, stream: true, stream_options: { include_usage: true } };
  if (options.max_tokens) body.max_tokens = Number(options.max_tokens);
  if (options.temperature) body.temperature = Number(options.temperature);
  return body;
}

function options() {
  return {
    system: at("system").value.trim(),
    max_tokens: at("max_tokens").value,
    temperature: at("temperature").value,
  };
}

// --- asking

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (!question || current || !who) return;
  const turn = { question, answer: newAnswer(at("model").value, options()) };
  kept.chat.turns.push(turn);
  at("question").value = "";
  begin(turn);
});

function again(turn) {
  if (current || !who) return;
  turn.answer = newAnswer(at("model").value, options());
  begin(turn);
}

function begin(turn) {
  turn.answer.tenant = kept.chat.tenant = who.tenant;
  Object.assign(kept.chat, { model: turn.answer.model, options: turn.answer.options });
  kept.now(); // before anything is sent: nothing is asked that a reload does not know of
  show(turn);
  scrollToEnd();
  run(turn);
}

function show(turn) {
  views.get(turn)?.show();
  if (!views.has(turn)) {
    const view = new TurnView(turn, again);
    views.set(turn, view);
    at("turns").append(view.element);
  }
  at("empty").hidden = kept.chat.turns.length > 0;
  for (const [each, view] of views) {
    view.element.classList.toggle("last", each === kept.chat.turns.at(-1));
  }
}

/** Goes on with the answer that a reload or a key that was not known had cut. */
function proceed() {
  const turn = kept.chat.turns.at(-1);
  if (turn?.answer.state === "running" && !current) run(turn);
}

async function run(turn) {
  const { answer } = turn;
  const view = views.get(turn);
  const abort = new AbortController();
  current = { turn, abort };
  buttons();
  say("Answering.");
  let end;
  try {
    end = await read(answer, {
      body: bodyOf(turn),
      headers,
      signal: abort.signal,
      changed() {
        view.waits("");
        view.soon();
        kept.soon();
      },
      waiting(failure, ms) {
        const seconds = Math.ceil(ms / 1000);
        view.show();
        view.waits(`${wordsOf(failure.error)} Trying again in ${seconds} s; the answer goes on where it was.`);
        say("Connection lost. Trying again.");
      },
    });
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    end = "left";
  }
  if (current?.abort !== abort) return; // the conversation was cleared meanwhile
  current = null;
  view.waits("");
  if (end === "key") askForKey(new Failure({ code: "invalid_api_key", message: "Give another one to read on." }));
  if (end === "left") answer.state = "stopped";
  kept.now();
  view.show();
  buttons();
  if (end !== "key") say(spoken(answer));
}

function spoken(answer) {
  if (answer.state === "stopped") return "Stopped.";
  if (answer.state === "failed") return `No answer. ${wordsOf(answer.error)}`;
  return `The answer is complete: ${tokensOf(answer)} tokens.`;
}

at("stop").addEventListener("click", async () => {
  const { turn, abort } = current;
  const view = views.get(turn);
  at("stop").disabled = true;
  try {
    await cancel(turn.answer, headers());
    // The stream ends by itself, behind the last token that came of it.
    setTimeout(() => abort.abort(), PATIENCE);
  } catch (error) {
    abort.abort();
    notice(`Not read any further. The service could not be told: ${wordsOf(error.error)}`);
  }
  view.show();
});

at("new").addEventListener("click", () => {
  clear();
  listModels();
  at("question").focus();
});

function clear() {
  current?.abort.abort();
  if (current) cancel(current.turn.answer, headers()).catch(() => {}); // nobody will read it
  current = null;
  const { model, options } = kept.chat;
  kept.chat = Object.assign(newChat(), { model, options });
  kept.now();
  views.clear();
  at("turns").replaceChildren();
  at("empty").hidden = false;
  notice("");
  buttons();
}

at("question").addEventListener("keydown", (event) => {
  // On a screen without keys Enter is a new line: the button sends.
  const typed = event.key === "Enter" && !event.shiftKey && !event.isComposing;
  if (!typed || matchMedia("(pointer: coarse)").matches) return;
  event.preventDefault();
  at("ask").requestSubmit();
});

function buttons() {
  const hadFocus = document.activeElement === at("stop");
  at("send").hidden = current !== null;
  at("stop").hidden = current === null;
  at("stop").disabled = false;
  if (hadFocus && current === null) at("question").focus();
}

function notice(words) {
  at("notice").textContent = words;
}

function say(words) {
  at("status").textContent = words;
}

// --- what a reload finds

at("system").value = kept.chat.options.system ?? "";
at("max_tokens").value = kept.chat.options.max_tokens ?? "";
at("temperature").value = kept.chat.options.temperature ?? "";
kept.chat.turns.forEach(show);
scrollToEnd();
connect();
