// One turn of the conversation on the screen. All that a model said goes in as text, never as markup.

import { tokensAt } from "./answer.js";
import { wordsOf } from "./failures.js";

const template = document.getElementById("turn");
const DIGITS = 12; // of a digest, where there is little room

/** The view of a turn; `again` is called when its question is to be asked again. */
export class TurnView {
  #turn;
  #frame = null;
  #shown = "";
  #parts;

  constructor(turn, again) {
    this.#turn = turn;
    this.element = template.content.firstElementChild.cloneNode(true);
    const find = (selector) => this.element.querySelector(selector);
    find(".question .text").textContent = turn.question;
    this.#parts = {
      answer: find(".answer"),
      name: find(".answer h2"),
      text: find(".answer .text").appendChild(document.createTextNode("")),
      error: find(".error"),
      waits: find(".waits"),
      again: find(".again"),
      facts: find(".facts"),
      summary: find(".facts summary"),
      list: find(".facts dl"),
    };
    this.#parts.again.addEventListener("click", () => again(turn));
    this.show();
  }

  /** Says why nothing comes; "" when it does. */
  waits(words) {
    const atEnd = isAtEnd();
    this.#parts.waits.textContent = words;
    if (atEnd) scrollToEnd();
  }

  /** Shows what has come, with the next picture that is drawn. */
  soon() {
    this.#frame ??= requestAnimationFrame(() => this.show());
  }

  /** Shows what has come. */
  show() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    const { answer } = this.#turn;
    const parts = this.#parts;
    const text = answer.text + answer.loose;
    const ended = answer.state !== "running";
    const atEnd = isAtEnd();
    if (text.startsWith(this.#shown)) parts.text.appendData(text.slice(this.#shown.length));
    else parts.text.data = text;
    this.#shown = text;
    parts.answer.dataset.state = answer.state;
    parts.answer.setAttribute("aria-busy", String(!ended));
    parts.name.textContent = answer.model;
    parts.error.textContent = endOf(answer);
    parts.again.hidden = answer.state !== "failed" && answer.state !== "stopped";
    parts.facts.hidden = answer.first === null;
    parts.summary.textContent = summaryOf(answer);
    if (ended || !parts.list.hasChildNodes()) parts.list.replaceChildren(...detailsOf(answer).flatMap(entry));
    if (atEnd) scrollToEnd();
  }
}

const main = document.querySelector("main");

function isAtEnd() {
  return main.scrollHeight - main.scrollTop - main.clientHeight < 60;
}

/** Shows the end of the conversation. */
export function scrollToEnd() {
  main.scrollTop = main.scrollHeight;
}

function endOf(answer) {
  if (answer.state === "stopped") return "Stopped.";
  return answer.state === "failed" ? wordsOf(answer.error) : "";
}

/** Returns how many tokens there are, by the service's word or by the id of the last event. */
export function tokensOf(answer) {
  return answer.usage?.completion_tokens ?? tokensAt(answer.at);
}

/** Returns tokens a second: by the service's clock if it has told, else as they come here. */
function rateOf(answer) {
  const steps = tokensOf(answer) - 1;
  const ms = answer.told
    ? answer.told.total_ms - answer.told.ttft_ms
    : (answer.last ?? 0) - (answer.first ?? 0);
  return steps > 0 && ms > 0 ? (steps * 1000) / ms : null;
}

function summaryOf(answer) {
  const { told } = answer;
  const facts = [answer.tenant];
  if (told) {
    const base = named({ name: told.base, digest: told.base_digest }, DIGITS);
    facts.push(`${adapterOf(told, DIGITS)} on ${base}`);
  }
  const tokens = tokensOf(answer);
  facts.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
  const rate = rateOf(answer);
  if (rate !== null) facts.push(`${number(rate)} tokens/s`);
  if (answer.first !== null) facts.push(`first after ${seconds(answer.first - answer.asked)}`);
  return facts.join(" · ");
}

function named({ name, digest }, digits) {
  return digest ? `${name}@${digest.slice(0, digits)}` : name;
}

function adapterOf(told, digits) {
  if (told.adapter) return named({ name: told.adapter, digest: told.digest }, digits);
  if (!told.adapters?.length) return "no adapter";
  return told.adapters.map((each) => `${each.weight} × ${named(each, digits)}`).join(" + ");
}

function detailsOf(answer) {
  const { told, usage } = answer;
  const rate = rateOf(answer);
  const details = [["Tenant", answer.tenant]];
  if (told) {
    details.push(["Adapter", adapterOf(told)]);
    details.push(["Backbone", told.base]);
    details.push(["Backbone’s digest", told.base_digest ?? "not told"]);
  }
  if (usage) details.push(["Tokens", `${usage.prompt_tokens} read, ${usage.completion_tokens} written`]);
  if (rate !== null) details.push(["Tokens a second", number(rate)]);
  if (answer.first !== null) details.push(["First token, seen here", seconds(answer.first - answer.asked)]);
  if (told) {
    details.push(["First token, by the service", seconds(told.ttft_ms)]);
    details.push(["Waited in the queue", seconds(told.queue_ms)]);
    details.push(["All of it", seconds(told.total_ms)]);
    details.push(["Seed", told.seed]);
  }
  if (answer.finish) details.push(["Ended by", answer.finish === "length" ? "its longest length" : answer.finish]);
  details.push(["Job", told?.job ?? answer.key]);
  return details;
}

function entry([name, value]) {
  const term = document.createElement("dt");
  const said = document.createElement("dd");
  term.textContent = name;
  said.textContent = value;
  return [term, said];
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

function number(value) {
  return value < 100 ? value.toFixed(1) : value.toFixed(0);
}
