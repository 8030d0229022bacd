/** What errors of @platformatic/kafka mean. They come nested: in `errors`, and in `cause`. */

import type { Consumer } from "@platformatic/kafka";

import { BrokerUnavailable } from "./errors.js";

export type FetchResponse = Awaited<ReturnType<Consumer["fetch"]>>;

interface LibraryError extends Error {
  readonly code?: string;
  readonly apiId?: string;
  readonly path?: string;
  readonly errors?: readonly unknown[];
  readonly response?: unknown;
}

const UNKNOWN_TOPIC = /^Unknown topic (\S+)\.$/;
const PLACE = /^\/responses\/(\d+)\/partitions\/(\d+)$/;
const FINAL: ReadonlySet<string | undefined> = new Set([
  "PLT_KFK_AUTHENTICATION",
  "PLT_KFK_UNSUPPORTED_API",
  "PLT_KFK_UNSUPPORTED_COMPRESSION",
]);
const OWN = "PLT_KFK_";
const MANY = "PLT_KFK_MULTIPLE"; // holds others
const MAX_DEPTH = 8;

/** An error and all that it is made of. */
function* within(error: unknown, depth = 0): Generator<LibraryError> {
  if (!(error instanceof Error) || depth > MAX_DEPTH) return;
  yield error;
  for (const each of (error as LibraryError).errors ?? []) yield* within(each, depth + 1);
  yield* within(error.cause, depth + 1);
}

/** Whether trying again is of no use: who we are, what we may do, what there is. */
export function isFinal(error: unknown): boolean {
  for (const { code, apiId, message } of within(error)) {
    if (FINAL.has(code)) return true;
    if (apiId?.endsWith("_AUTHORIZATION_FAILED") || UNKNOWN_TOPIC.test(message)) return true;
  }
  return error instanceof BrokerUnavailable;
}

/** The topic that does not exist; undefined if it is another error. */
export function unknownTopic(error: unknown): string | undefined {
  for (const { message } of within(error)) {
    const found = UNKNOWN_TOPIC.exec(message);
    if (found !== null) return found[1];
  }
  return undefined;
}

/** The answer to a fetch, of which a part was in error. */
export function responseOf(error: unknown): FetchResponse | undefined {
  for (const { code, response } of within(error)) {
    if (code === "PLT_KFK_RESPONSE" && response !== undefined) return response as FetchResponse;
  }
  return undefined;
}

/** The partitions of a fetch whose log does not hold the offset that was asked for. */
export function outOfRange(error: unknown): number[] {
  const partitions: number[] = [];
  const response = responseOf(error);
  for (const { apiId, path } of within(error)) {
    const [, topic, place] = PLACE.exec(path ?? "") ?? [];
    if (apiId !== "OFFSET_OUT_OF_RANGE" || place === undefined) continue;
    const found = response?.responses[Number(topic)]?.partitions[Number(place)];
    if (found !== undefined) partitions.push(found.partitionIndex);
  }
  return partitions;
}

/**
 * Whether what a broker sent could not be unpacked or parsed. All else that goes wrong the library
 * tells by errors of its own.
 */
export function isUnreadable(error: unknown): boolean {
  const codes = [...within(error)].map(({ code }) => code);
  return codes.length > 0 && !codes.some((code) => code?.startsWith(OWN) && code !== MANY);
}

/** The innermost words of an error, in one line. */
export function meaning(error: unknown): string {
  const said = [...within(error)].map(({ message }) => message.replace(/\s+/g, " ").trim());
  return said.findLast((each) => each !== "") ?? String(error);
}
