/** Log probabilities: flat rows of numbers and token ids, of an answer's tokens and of a prompt's. */

import { isInteger, malformed, numberOf, type DecodeError, type Value } from "./fields.js";
import * as limits from "./limits.js";
import type { PromptLogprobs, TokenLogprobs } from "./reply.js";

export function wrong(field: string): DecodeError {
  return malformed("invalid_reply", `${field}: missing or not valid`);
}

/** The rows of a tokens record, one for each of its tokens. */
export function tokenLogprobs(rows: Value, tokens: number): TokenLogprobs[] | null {
  if (rows === null) return null;
  if (!Array.isArray(rows) || rows.length !== tokens) throw wrong("logprobs");
  return rows.map((row) => {
    if (!Array.isArray(row) || row.length > 1 + 2 * limits.MAX_LOGPROBS) throw wrong("logprobs");
    return pairs(row, "logprobs");
  });
}

/** The rows of a prompt: one array for all, each row with `top` pairs behind its first number. */
export function promptLogprobs(value: Value): PromptLogprobs | null {
  const field = "prompt_logprobs";
  if (value === null) return null;
  const top = value instanceof Map ? value.get("top") : undefined;
  const numbers = value instanceof Map ? value.get("numbers") : undefined;
  if (!isInteger(top, 0, limits.MAX_LOGPROBS) || !Array.isArray(numbers)) throw wrong(field);
  const width = 1 + 2 * top;
  if (numbers.length > limits.MAX_PROMPT_LOGPROB_NUMBERS || numbers.length % width !== 0) {
    throw wrong(field);
  }
  const rows: Array<TokenLogprobs | null> = [null];
  for (let at = 0; at < numbers.length; at += width) {
    rows.push(pairs(numbers.slice(at, at + width), field));
  }
  return rows;
}

/** One row: the chosen token's number, then a token and a number for each of the most likely. */
function pairs(row: readonly Value[], field: string): TokenLogprobs {
  if (row.length % 2 === 0) throw wrong(field);
  const top: Array<readonly [number, number]> = [];
  for (let at = 1; at < row.length; at += 2) {
    const token = row[at];
    if (!isInteger(token, 0, limits.MAX_TOKEN_ID)) throw wrong(field);
    top.push([token, logprob(row[at + 1], field)]);
  }
  return { chosen: logprob(row[0], field), top };
}

function logprob(value: Value | undefined, field: string): number {
  const number = numberOf(value);
  if (number === undefined) throw wrong(field);
  return Number(number);
}
